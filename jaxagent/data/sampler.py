"""Windows of stored trajectories, drawn inside jit as a pure function of a key."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxagent.tokens import scalar
from jaxagent.tokens.stream import PADDING
from jaxagent.tokens.tokenizer import Tokenizer
from jaxagent.types import Trajectory


class Windows(NamedTuple):
    """Steps of one domain on the device, laid out so that every real step may start a window."""

    unit: jax.Array  # [N + K - 1, P] float32: places of reals in [-1, 1], ids of categories
    obs: jax.Array  # [N + K - 1, n] float32, as the environment gave them
    segment: jax.Array  # [N + K - 1] int32: episode, or PADDING
    num_real: jax.Array  # [] int32: steps 0..num_real - 1 exist, the others are padding


class Batch(NamedTuple):
    """B windows of K transitions of P scalars."""

    unit: jax.Array  # [B, K, P]
    is_real: jax.Array  # [B, K] bool: the step exists and belongs to the first step's episode
    obs: Any = ()  # [B, K, n] as the environment gave them, for who reads no tokens


def windows(
    trajectories: Sequence[Trajectory], tokenizer: Tokenizer, context: int, num_steps: int | None = None
) -> Windows:
    """Lay out trajectories `[T, B, ...]` lane after lane and encode them once.

    Episodes are cut at terminations, truncations and lane ends. `num_steps` pads to a common size,
    so that several data sets can be lanes of one program.
    """
    obs, action, segment = lay_out(trajectories, tokenizer.domain.obs_size)
    pad = _padding(len(obs), context, num_steps)
    return Windows(
        unit=jnp.asarray(_pad(np.asarray(tokenizer.unit(obs, action)), pad)),
        obs=jnp.asarray(_pad(obs, pad)),
        segment=jnp.asarray(np.pad(segment, (0, pad), constant_values=PADDING)),
        num_real=jnp.asarray(len(segment), jnp.int32),
    )


def raw_windows(trajectories: Sequence[Trajectory], context: int) -> Windows:
    """As `windows`, of observations `[N, *obs_shape]` as they are; `unit [N, m]` are the actions alone.

    They are those of `Trajectory.action`: ids of a category, or reals.
    """
    shape = trajectories[0].obs.shape[2:]
    obs, action, segment = lay_out(trajectories, math.prod(shape))
    pad = _padding(len(obs), context, None)
    return Windows(
        unit=jnp.asarray(_pad(action.reshape(len(action), -1).astype(np.float32), pad)),
        obs=jnp.asarray(_pad(obs.reshape(-1, *shape), pad)),
        segment=jnp.asarray(np.pad(segment, (0, pad), constant_values=PADDING)),
        num_real=jnp.asarray(len(segment), jnp.int32),
    )


def sample(data: Windows, key: jax.Array, batch_size: int, context: int) -> Batch:
    """Draw windows `[batch_size, context, ...]` that start at uniform real steps and leave no episode."""
    starts = jax.random.randint(key, (batch_size,), 0, data.num_real)
    index = starts[:, None] + jnp.arange(context)[None, :]
    segment = data.segment[index]
    is_real = (segment == segment[:, :1]) & (segment != PADDING)
    return Batch(data.unit[index], is_real, data.obs[index])


def shuffled(data: Windows, key: jax.Array) -> Windows:
    """The saboteur's data: every step keeps its marginals, no step follows from the one before.

    Observations and actions `[N, ...]` are permuted over all real steps, each on its own.
    """
    return _shuffle(data, key, num_real=int(data.num_real))


@partial(jax.jit, static_argnames="num_real")
def _shuffle(data: Windows, key: jax.Array, num_real: int) -> Windows:
    key_obs, key_action = jax.random.split(key)

    def permute(key: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.concatenate([x[jax.random.permutation(key, num_real)], x[num_real:]])

    if data.obs.ndim > 2:  # of `raw_windows`: units are actions alone
        return data._replace(unit=permute(key_action, data.unit), obs=permute(key_obs, data.obs))
    num_obs = data.obs.shape[-1]
    seen = permute(key_obs, jnp.concatenate([data.obs, data.unit[:, :num_obs]], axis=1))
    done = permute(key_action, data.unit[:, num_obs:])
    unit = jnp.concatenate([seen[:, num_obs:], done], axis=1)
    return data._replace(unit=unit, obs=seen[:, :num_obs])


@partial(jax.jit, static_argnames=("sizes", "num_bins"))
def renamed(data: Windows, key: jax.Array, sizes: tuple[int, ...], num_bins: int) -> Windows:
    """Another saboteur's data: every value stands where another should, always the same one.

    Bins of each real, and ids of each category of `sizes` (0: a real), are permuted: what follows what
    can still be learned, what it means cannot.
    """
    columns = []
    for column, (size, column_key) in enumerate(zip(sizes, jax.random.split(key, len(sizes)), strict=True)):
        unit = data.unit[:, column]
        place = unit.astype(jnp.int32) if size else scalar.bin_of(unit, num_bins)
        order = jax.random.permutation(column_key, size or num_bins)
        other = jnp.zeros_like(order).at[order].set(jnp.roll(order, 1))[place]  # one cycle: nothing stays
        columns.append(unit + (other - place).astype(jnp.float32) * (1.0 if size else 2.0 / num_bins))
    return data._replace(unit=jnp.stack(columns, axis=1))


def lay_out(trajectories: Sequence[Trajectory], obs_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps of all lanes one after another: obs `[N, n]`, action `[N, ...]`, episode int32 `[N]`.

    Episodes are cut at terminations, truncations and lane ends.
    """
    parts = [_lay_out(t, obs_size) for t in trajectories]
    obs, action, ends = (np.concatenate([p[i] for p in parts]) for i in range(3))
    return obs, action, np.concatenate([[0], np.cumsum(ends)[:-1]]).astype(np.int32)


def _padding(num_real: int, context: int, num_steps: int | None) -> int:
    size = num_real if num_steps is None else num_steps
    if size < num_real:
        raise ValueError(f"windows: got {num_real} steps, expected at most num_steps = {size}.")
    return size - num_real + context - 1


def _lay_out(t: Trajectory, obs_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lane after lane: obs `[T B, n]`, action, whether the step is an episode's or lane's last."""
    ends = np.asarray(t.terminated) | np.asarray(t.truncated)
    ends = ends.copy()
    ends[-1] = True

    def by_lane(x: np.ndarray) -> np.ndarray:
        x = np.swapaxes(np.asarray(x), 0, 1)
        return x.reshape(-1, *x.shape[2:])

    return by_lane(t.obs).reshape(-1, obs_size), by_lane(t.action), by_lane(ends)


def _pad(x: np.ndarray, pad: int) -> np.ndarray:
    return np.pad(x, ((0, pad), *((0, 0),) * (x.ndim - 1)))
