"""Networks with a memory of what was seen in the episode so far, behind one interface.

A carry belongs to lanes that may stand anywhere in their episodes: it is forgotten where `is_first`
says that a lane has just been reset, in the middle of a window too, so that learning replays what
acting did. `unroll` is one pass over a window; of the GRU only what depends on the state is stepped,
and the linear recurrence is a scan of its own (`kernels.linear_recurrence`).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxagent.config import MemoryConfig
from jaxagent.nn.dense import Dense
from jaxagent.nn.initializers import orthogonal
from kernels.linear_recurrence import Complex, recurrence

RADII = (0.9, 0.999)  # moduli that eigenvalues of a linear recurrence begin between
PHASE = math.pi / 10  # and below which phase (Orvieto et al. 2023, section 3.4: long memories)


class Memory(NamedTuple):
    """A network over time, as plain functions of its parameters."""

    init: Callable[[jax.Array], Any]  # key -> params
    init_carry: Callable[[int], Any]  # batch size -> carry, leaves [B, ...]
    # (params, carry, x [B, n], is_first [B]) -> features [B, D], carry
    step: Callable
    # (params, carry, x [T, B, n], is_first [T, B]) -> features [T, B, D], carry
    unroll: Callable
    # (params, carry, x [T, B, n], is_first [T, B], next_x [T, B, n]) -> features [T, B, D] of x, and of
    # `next_x[t]` where it follows `x[t]` in its episode; the carry does not hear of it
    peek: Callable


def memory(config: MemoryConfig, input_size: int) -> Memory:
    """The memory of a configuration for inputs `[..., n]` of `input_size`."""
    return _from_network(NETWORKS[config.kind](config), input_size)


def _from_network(network: nn.Module, input_size: int) -> Memory:
    """Functions of a module `(carry, x [T, B, n], is_first [T, B]) -> features, carry, all carries`."""

    def run(params: Any, carry: Any, x: jax.Array, is_first: jax.Array) -> tuple[jax.Array, Any, Any]:
        sizes = {leaf.shape[0] for leaf in jax.tree.leaves(carry)}
        if sizes - {x.shape[1]}:
            raise ValueError(
                f"memory: got a carry of {sorted(sizes)} lanes for inputs of {x.shape[1]}, expected as "
                "many; begin with `init_carry(batch_size)`."
            )
        return network.apply({"params": params}, carry, x, is_first)

    def init(key: jax.Array) -> Any:
        x, is_first = jnp.zeros((1, 1, input_size)), jnp.zeros((1, 1), bool)
        return network.init(key, network.blank(1, input_size), x, is_first)["params"]

    def step(params, carry, x, is_first):
        features, carry, _ = run(params, carry, x[None], is_first[None])
        return features[0], carry

    def unroll(params, carry, x, is_first):
        features, carry, _ = run(params, carry, x, is_first)
        return features, carry

    def peek(params, carry, x, is_first, next_x):
        features, _, carries = run(params, carry, x, is_first)
        num_steps, batch_size = is_first.shape
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), carries)
        next_flat = next_x.reshape(1, -1, next_x.shape[-1])
        peeked, _, _ = run(params, flat, next_flat, jnp.zeros(next_flat.shape[:2], bool))
        return features, peeked[0].reshape(num_steps, batch_size, -1)

    return Memory(init, lambda batch_size: network.blank(batch_size, input_size), step, unroll, peek)


def forget(carry: Any, blank: Any, is_first: jax.Array) -> Any:
    """`carry`, leaves `[B, ...]`, and where `is_first [B]` what it was before an episode, `blank`."""

    def one(leaf: jax.Array, empty: jax.Array) -> jax.Array:
        return jnp.where(is_first.reshape(-1, *(1,) * (leaf.ndim - 1)), empty, leaf)

    return jax.tree.map(one, carry, blank)


class Reflex(nn.Module):
    """No memory: features of what is seen now."""

    config: MemoryConfig

    @nn.compact
    def __call__(self, carry: Any, x: jax.Array, is_first: jax.Array) -> tuple[jax.Array, Any, Any]:
        """As in `_from_network`."""
        del is_first
        return _stem(self.config, x), carry, carry

    def blank(self, batch_size: int, input_size: int) -> Any:
        """The carry of no past, leaves `[B, ...]`."""
        del batch_size, input_size
        return ()


class Stack(nn.Module):
    """The last `context` inputs side by side; those of another episode are zero, and marked."""

    config: MemoryConfig

    @nn.compact
    def __call__(self, carry: jax.Array, x: jax.Array, is_first: jax.Array) -> tuple[jax.Array, Any, Any]:
        """As in `_from_network`; the carry is earlier inputs `[B, context - 1, n + 1]`, the newest last."""
        blank, here = jnp.zeros_like(carry), jnp.ones((*x.shape[:2], 1))
        marked = jnp.concatenate([x, here], axis=-1)

        def push(past: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Any]:
            now, first = step
            seen = jnp.concatenate([forget(past, blank, first), now[:, None]], axis=1)
            return seen[:, 1:], (seen, seen[:, 1:])

        carry, (seen, carries) = jax.lax.scan(push, carry, (marked, is_first))
        return _stem(self.config, seen.reshape(*seen.shape[:2], -1)), carry, carries

    def blank(self, batch_size: int, input_size: int) -> jax.Array:
        """The carry of no past."""
        return jnp.zeros((batch_size, self.config.context - 1, input_size + 1))


class GRU(nn.Module):
    """A gated recurrent unit (Cho et al. 2014), its reset gate behind the product, as in cuDNN."""

    config: MemoryConfig

    @nn.compact
    def __call__(self, carry: jax.Array, x: jax.Array, is_first: jax.Array) -> tuple[jax.Array, Any, Any]:
        """As in `_from_network`; the carry is the state `[B, D]`."""
        size = self.config.width
        x = _stem(self.config, x)
        inputs = Dense(3 * size, name="input")(x)
        kernel = self.param("recurrent", _orthogonal_gates, (size, 3 * size))
        bias = self.param("bias", nn.initializers.zeros, (size,))

        def step(state: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            gates, first = now
            state = forget(state, jnp.zeros_like(state), first)
            reset, update, new = jnp.split(gates, 3, axis=-1)
            state_reset, state_update, state_new = jnp.split(state @ kernel, 3, axis=-1)
            reset = jax.nn.sigmoid(reset + state_reset)
            update = jax.nn.sigmoid(update + state_update)
            new = jnp.tanh(new + reset * (state_new + bias[None]))
            state = (1.0 - update) * new + update * state
            return state, state

        carry, states = jax.lax.scan(step, carry, (inputs, is_first))
        return states, carry, states

    def blank(self, batch_size: int, input_size: int) -> jax.Array:
        """The state of no past."""
        del input_size
        return jnp.zeros((batch_size, self.config.width))


class LinearRecurrences(nn.Module):
    """Linear recurrent units behind norms, each added to the stream (Orvieto et al. 2023)."""

    config: MemoryConfig

    @nn.compact
    def __call__(self, carry: jax.Array, x: jax.Array, is_first: jax.Array) -> tuple[jax.Array, Any, Any]:
        """As in `_from_network`; the carry is `[B, layers, 2, D]`, real and imaginary parts."""
        x = _stem(self.config, x)
        states = []
        for layer in range(self.config.num_layers):
            norm = nn.LayerNorm(name=f"norm_{layer}")(x)
            unit = LinearRecurrence(self.config.width, name=f"recurrence_{layer}")
            mixed, state = unit(norm, carry[:, layer], is_first)
            states.append(state)
            gate = Dense(2 * self.config.width, name=f"gate_{layer}")(nn.gelu(mixed))
            x = x + nn.glu(gate)
        carries = jnp.stack(states, axis=2)  # [T, B, layers, 2, D]
        return nn.LayerNorm(name="norm")(x), carries[-1], carries

    def blank(self, batch_size: int, input_size: int) -> jax.Array:
        """The states of no past."""
        del input_size
        return jnp.zeros((batch_size, self.config.num_layers, 2, self.config.width))


class LinearRecurrence(nn.Module):
    """A diagonal linear recurrence over time: `h' = lambda h + gamma B x`, `y = C h + D x`.

    Eigenvalues are `exp(-exp(nu) + i exp(theta))`, stable by construction; `gamma` keeps the size of
    states (Orvieto et al. 2023, eq. 5 and section 3.4). Resets cut it: there `lambda` is 0.
    """

    size: int

    @nn.compact
    def __call__(self, x: jax.Array, state: jax.Array, is_first: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Outputs `[T, B, D]` of `x [T, B, D]` and all states `[T, B, 2, D]`, from `state [B, 2, D]`."""
        size, wide = self.size, (None, None)
        nu = self.param("nu", _log_decay, (size,))
        theta = self.param("theta", _log_phase, (size,))
        decay, phase = jnp.exp(-jnp.exp(nu)), jnp.exp(theta)
        gamma = jnp.sqrt(1.0 - jnp.square(decay))
        inward = nn.initializers.normal(1.0 / math.sqrt(2 * size))
        drive = x @ self.param("b", inward, (size, 2 * size)) * jnp.tile(gamma, 2)[wide]
        drive = Complex(*jnp.split(drive, 2, axis=-1))
        eigenvalue = Complex(decay * jnp.cos(phase), decay * jnp.sin(phase))
        factor = Complex(*(jnp.where(is_first[..., None], 0.0, part[wide]) for part in eigenvalue))
        states = recurrence(factor, drive, Complex(state[:, 0], state[:, 1]))
        states = jnp.concatenate(states, axis=-1)
        out = states @ self.param("c", nn.initializers.normal(1.0 / math.sqrt(size)), (2 * size, size))
        out = out + x * self.param("d", nn.initializers.normal(1.0), (size,))[wide]
        return out, states.reshape(*x.shape[:2], 2, size)


def _log_decay(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`nu` for moduli drawn uniformly on the ring between `RADII`."""
    low, high = RADII
    squared = jax.random.uniform(key, shape) * (high**2 - low**2) + low**2
    return jnp.log(-0.5 * jnp.log(squared))


def _log_phase(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`theta` for phases drawn uniformly below `PHASE`."""
    return jnp.log(PHASE * jax.random.uniform(key, shape, minval=1e-3))


def _orthogonal_gates(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """An orthogonal matrix a gate."""
    keys = jax.random.split(key, shape[1] // shape[0])
    return jnp.concatenate([orthogonal(1.0)(k, (shape[0], shape[0])) for k in keys], axis=1)


def _stem(config: MemoryConfig, x: jax.Array) -> jax.Array:
    return nn.tanh(Dense(config.width, kernel_init=orthogonal(math.sqrt(2)), name="stem")(x))


NETWORKS: dict[str, Callable[[MemoryConfig], nn.Module]] = {
    "none": Reflex,
    "stack": Stack,
    "gru": GRU,
    "lru": LinearRecurrences,
}
