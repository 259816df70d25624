"""Action distributions; a handful of formulas, scipy is their oracle in the tests."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Categorical(NamedTuple):
    """Distribution over A categories; events are int32 `[...]`."""

    logits: jax.Array  # [..., A]

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw events `[...]`."""
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def mode(self) -> jax.Array:
        """Most likely events `[...]`."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, event: jax.Array) -> jax.Array:
        """Log-probability `[...]` of events `[...]`, nats."""
        log_probs = jax.nn.log_softmax(self.logits)
        return jnp.take_along_axis(log_probs, event[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        """Entropy `[...]`, nats."""
        log_probs = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

    def kl(self, other: "Categorical") -> jax.Array:
        """Kullback-Leibler divergence `[...]` of another from this one, nats."""
        log_probs = jax.nn.log_softmax(self.logits)
        return jnp.sum(jnp.exp(log_probs) * (log_probs - jax.nn.log_softmax(other.logits)), axis=-1)

    @property
    def parts(self) -> "Parts":
        """This one alone, as `Product.parts`."""
        return (self,)


class Gaussian(NamedTuple):
    """Diagonal normal over A reals; events are float32 `[..., A]`."""

    mean: jax.Array  # [..., A]
    log_std: jax.Array  # broadcastable to the mean

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw events `[..., A]`."""
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape)

    def mode(self) -> jax.Array:
        """Most likely events `[..., A]`: the mean."""
        return self.mean

    def log_prob(self, event: jax.Array) -> jax.Array:
        """Log-density `[...]` of events `[..., A]`, summed over components."""
        z = (event - self.mean) * jnp.exp(-self.log_std)
        per_component = -0.5 * jnp.square(z) - self.log_std - 0.5 * math.log(2 * math.pi)
        return jnp.sum(per_component, axis=-1)

    def entropy(self) -> jax.Array:
        """Differential entropy `[...]`, nats."""
        per_component = self.log_std + 0.5 * math.log(2 * math.pi * math.e)
        return jnp.sum(jnp.broadcast_to(per_component, self.mean.shape), axis=-1)

    def kl(self, other: "Gaussian") -> jax.Array:
        """Kullback-Leibler divergence `[...]` of another from this one, nats, summed over components."""
        ratio = 2.0 * (self.log_std - other.log_std)
        distance = jnp.square((self.mean - other.mean) * jnp.exp(-other.log_std))
        return 0.5 * jnp.sum(jnp.exp(ratio) + distance - 1.0 - ratio, axis=-1)

    @property
    def parts(self) -> "Parts":
        """This one alone, as `Product.parts`."""
        return (self,)


Parts = tuple[Categorical | Gaussian, ...]


def full(parts: Parts) -> Parts:
    """Parts whose every array has the leading axes of the events, so that they can be stored."""

    def one(part: Categorical | Gaussian) -> Categorical | Gaussian:
        if isinstance(part, Categorical):
            return part
        return part._replace(log_std=jnp.broadcast_to(part.log_std, part.mean.shape))

    return tuple(one(part) for part in parts)


def kl(parts: Parts, others: Parts) -> jax.Array:
    """Divergence `[...]` of products of parts, each given those before it: the sum over the parts, nats."""
    terms = [part.kl(other) for part, other in zip(parts, others, strict=True)]
    return sum(terms[1:], terms[0])


class Product(NamedTuple):
    """Independent parts of an action of several components, events `[..., A]`.

    Events are int32 where every part is a category, else float32 in which categories are whole
    numbers, as `envs.types.Environment` has them. Made and used inside one trace: `columns` is static.
    """

    parts: Parts
    columns: tuple[tuple[int, ...], ...]  # of the event: where each part's components are

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw events `[..., A]`."""
        part_keys = jax.random.split(key, len(self.parts))
        return self._event([part.sample(k) for part, k in zip(self.parts, part_keys, strict=True)])

    def mode(self) -> jax.Array:
        """Most likely events `[..., A]`."""
        return self._event([part.mode() for part in self.parts])

    def log_prob(self, event: jax.Array) -> jax.Array:
        """Log-probability or density `[...]` of events `[..., A]`: the sum over the parts, nats."""
        terms = []
        for part, columns in zip(self.parts, self.columns, strict=True):
            is_category = isinstance(part, Categorical)
            own = event[..., columns[0]].astype(jnp.int32) if is_category else event[..., jnp.array(columns)]
            terms.append(part.log_prob(own))
        return sum(terms[1:], terms[0])

    def entropy(self) -> jax.Array:
        """Entropy `[...]`: the sum over the parts, nats."""
        terms = [part.entropy() for part in self.parts]
        return sum(terms[1:], terms[0])

    def _event(self, values: list[jax.Array]) -> jax.Array:
        dtype = jnp.int32 if all(isinstance(p, Categorical) for p in self.parts) else jnp.float32
        columns: dict[int, jax.Array] = {}
        for part, places, value in zip(self.parts, self.columns, values, strict=True):
            of_part = (
                [value] if isinstance(part, Categorical) else [value[..., i] for i in range(len(places))]
            )
            columns |= dict(zip(places, of_part, strict=True))
        return jnp.stack([columns[i].astype(dtype) for i in sorted(columns)], axis=-1)


class TanhGaussian(NamedTuple):
    """The tanh of a diagonal normal, over A reals in (-1, 1) (Haarnoja et al. 2018, appendix C).

    Events are known by their value *before* the tanh: undoing it loses all digits near the ends.
    """

    mean: jax.Array  # [..., A]
    log_std: jax.Array  # broadcastable to the mean

    def from_noise(self, noise: jax.Array) -> jax.Array:
        """The event before the tanh `[..., A]` that standard normal `noise [..., A]` gives."""
        return self.mean + jnp.exp(self.log_std) * noise

    def mode(self) -> jax.Array:
        """The event before the tanh `[..., A]` of the greedy policy: the mean, not the density's mode."""
        return self.mean

    def log_prob(self, event: jax.Array) -> jax.Array:
        """Log-density `[...]` of `tanh(event)`, `event [..., A]`, summed over components.

        `log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2 x))` stays finite where tanh is 1.
        """
        correction = 2.0 * (math.log(2.0) - event - jax.nn.softplus(-2.0 * event))
        return Gaussian(self.mean, self.log_std).log_prob(event) - jnp.sum(correction, axis=-1)
