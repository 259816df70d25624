"""Windows of stored trajectories, drawn inside jit as a pure function of a key."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxagent.config import TokenConfig
from jaxagent.tokens import component
from jaxagent.tokens.component import Codec, Domain
from jaxagent.tokens.tokenizer import Tokenizer
from jaxagent.types import Trajectory

PADDING = -1  # segment of steps that do not exist


class Windows(NamedTuple):
    """Steps of one domain on the device, laid out so that every real step may start a window."""

    obs: jax.Array  # [N + K - 1, n] float32
    obs_tokens: jax.Array  # [N + K - 1, n] int32
    action_tokens: jax.Array  # [N + K - 1, m] int32
    segment: jax.Array  # [N + K - 1] int32: episode, or PADDING
    num_real: jax.Array  # [] int32: steps 0..num_real - 1 exist, the others are padding


class Batch(NamedTuple):
    """B windows of K transitions."""

    obs: jax.Array  # [B, K, n]
    obs_tokens: jax.Array  # [B, K, n]
    action_tokens: jax.Array  # [B, K, m]
    segment: jax.Array  # [B, K]; steps outside the first step's episode are PADDING


def windows(
    trajectories: Sequence[Trajectory],
    codec: Codec,
    domain: Domain,
    config: TokenConfig,
    context: int,
    num_steps: int | None = None,
) -> Windows:
    """Lay out trajectories `[T, B, ...]` lane after lane and tokenise them once.

    Episodes are cut at terminations, truncations and lane ends. `num_steps` pads to a common size,
    so that several data sets can be lanes of one program.
    """
    obs, action, segment = lay_out(trajectories, domain.obs_size)
    pad = _padding(len(obs), context, num_steps)
    obs, action = _pad(obs, pad), _pad(action, pad)
    obs_tokens, action_tokens = _tokenise(codec, obs, action, domain, config.num_bins)
    return Windows(
        obs=jnp.asarray(obs),
        obs_tokens=obs_tokens,
        action_tokens=action_tokens,
        segment=jnp.asarray(np.pad(segment, (0, pad), constant_values=PADDING)),
        num_real=jnp.asarray(len(segment), jnp.int32),
    )


def sample(data: Windows, key: jax.Array, batch_size: int, context: int) -> Batch:
    """Draw windows `[batch_size, context, ...]` that start at uniform real steps and leave no episode."""
    starts = jax.random.randint(key, (batch_size,), 0, data.num_real)
    index = starts[:, None] + jnp.arange(context)[None, :]
    segment = data.segment[index]
    return Batch(
        obs=data.obs[index],
        obs_tokens=data.obs_tokens[index],
        action_tokens=data.action_tokens[index],
        segment=jnp.where(segment == segment[:, :1], segment, PADDING),
    )


def shuffled(data: Windows, key: jax.Array) -> Windows:
    """The saboteur's data: every step keeps its marginals, no step follows from the one before.

    Observations and actions `[N, ...]` are permuted over all real steps, each on its own.
    """
    return _shuffle(data, key, num_real=int(data.num_real))


@partial(jax.jit, static_argnames="num_real")
def _shuffle(data: Windows, key: jax.Array, num_real: int) -> Windows:
    key_obs, key_action = jax.random.split(key)

    def permute(key: jax.Array, *arrays: jax.Array) -> list[jax.Array]:
        order = jax.random.permutation(key, num_real)
        return [jnp.concatenate([x[order], x[num_real:]]) for x in arrays]

    obs, obs_tokens = permute(key_obs, data.obs, data.obs_tokens)
    (action_tokens,) = permute(key_action, data.action_tokens)
    return data._replace(obs=obs, obs_tokens=obs_tokens, action_tokens=action_tokens)


class UnitWindows(NamedTuple):
    """As `Windows`, the scalars as places in the tokenizer's warped space."""

    unit: jax.Array  # [N + K - 1, P] float32 in [-1, 1]
    segment: jax.Array  # [N + K - 1] int32: episode, or PADDING
    num_real: jax.Array  # [] int32: as in `Windows`


class UnitBatch(NamedTuple):
    """B windows of K transitions of P scalars."""

    unit: jax.Array  # [B, K, P]
    is_real: jax.Array  # [B, K] bool: the step exists and belongs to the first step's episode


def unit_windows(
    trajectories: Sequence[Trajectory], tokenizer: Tokenizer, context: int, num_steps: int | None = None
) -> UnitWindows:
    """Lay out trajectories `[T, B, ...]` as `windows` does, in the tokenizer's warped space."""
    obs, action, segment = lay_out(trajectories, tokenizer.domain.obs_size)
    pad = _padding(len(obs), context, num_steps)
    unit = _pad(np.asarray(tokenizer.unit(obs, action)), pad)
    segment = np.pad(segment, (0, pad), constant_values=PADDING)
    num_real = jnp.asarray(len(obs), jnp.int32)
    return UnitWindows(jnp.asarray(unit), jnp.asarray(segment), num_real)


def sample_units(data: UnitWindows, key: jax.Array, batch_size: int, context: int) -> UnitBatch:
    """Draw windows `[batch_size, context, P]` as `sample` does."""
    starts = jax.random.randint(key, (batch_size,), 0, data.num_real)
    index = starts[:, None] + jnp.arange(context)[None, :]
    segment = data.segment[index]
    return UnitBatch(data.unit[index], (segment == segment[:, :1]) & (segment != PADDING))


def shuffled_units(data: UnitWindows, key: jax.Array, obs_size: int) -> UnitWindows:
    """The saboteur's data, of the same shapes, as `shuffled` makes them; obs are `unit[:, :obs_size]`."""
    num_real = int(data.num_real)
    key_obs, key_action = jax.random.split(key)
    orders = [jax.random.permutation(k, num_real) for k in (key_obs, key_action)]
    parts = (data.unit[:, :obs_size], data.unit[:, obs_size:])
    moved = [jnp.concatenate([x[o], x[num_real:]]) for x, o in zip(parts, orders, strict=True)]
    return data._replace(unit=jnp.concatenate(moved, axis=1))


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


@partial(jax.jit, static_argnames=("domain", "num_bins"))
def _tokenise(
    codec: Codec, obs: jax.Array, action: jax.Array, domain: Domain, num_bins: int
) -> tuple[jax.Array, jax.Array]:
    return component.encode_obs(codec, domain, num_bins, obs), component.encode_action(
        codec, domain, num_bins, action
    )


def _pad(x: np.ndarray, pad: int) -> np.ndarray:
    return np.pad(x, ((0, pad), *((0, 0),) * (x.ndim - 1)))
