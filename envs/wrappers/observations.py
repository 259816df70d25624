"""Wrappers of observations: noise, stacks, scales."""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.common.names import check_name
from envs.types import Component, Environment, Params
from envs.wrappers.wrapper import Wrapper, require_reals, show, wrap


class Noise(NamedTuple):
    """A stationary first-order autoregressive process."""

    scale: jax.Array  # [] float32: its standard deviation
    correlation: jax.Array  # [] float32 in [0, 1]: from one env step to the next; 0 is independent


def exogenous_noise(
    env: Environment, params: Params, scale: float, correlation: float = 0.0, num_components: int = 0
) -> tuple[Wrapper, Params]:
    """Gaussian noise that no action changes, independent or correlated in time.

    `num_components` > 0 appends so many components of pure noise to a flat observation; 0 adds
    noise to every component of the observation, whatever its shape.
    """
    if scale < 0 or not 0.0 <= correlation <= 1.0:
        raise ValueError(
            f"got scale {scale} and correlation {correlation}, expected scale >= 0 and a "
            "correlation in [0, 1]."
        )
    if num_components and len(env.obs_shape) != 1:
        raise ValueError(
            f"{env.name}: got num_components={num_components} for observations of shape "
            f"{env.obs_shape}, expected flat ones; use 0 to add noise to what is there."
        )
    shape = (num_components,) if num_components else env.obs_shape

    def mix(noise, obs):
        return jnp.concatenate([obs, noise]) if num_components else obs + noise

    def begin(key, own, obs):
        noise = own.scale * jax.random.normal(key, shape)
        return noise, mix(noise, obs.astype(jnp.float32))

    def after(key, own, noise, action, step):
        del action
        fresh = jnp.sqrt(1.0 - own.correlation**2) * own.scale
        noise = own.correlation * noise + fresh * jax.random.normal(key, shape)
        return noise, step._replace(obs=mix(noise, step.obs.astype(jnp.float32)))

    own = Noise(jnp.asarray(scale, jnp.float32), jnp.asarray(correlation, jnp.float32))
    unbounded = [c._replace(kind="real", low=-math.inf, high=math.inf) for c in env.obs_spec]
    extra = [Component(f"noise[{i}]", "real") for i in range(num_components)]
    return wrap(
        env,
        params,
        own,
        "exogenous noise",
        begin=begin,
        after=after,
        is_random=True,
        obs_spec=(*(env.obs_spec if num_components else unbounded), *extra),
        obs_shape=(len(env.obs_spec) + num_components,) if num_components else env.obs_shape,
        obs_dtype=np.float32,
    )


def frame_stack(env: Environment, params: Params, num_frames: int) -> tuple[Wrapper, Params]:
    """The last `num_frames` observations side by side on the last axis, oldest first.

    An episode starts with its first observation repeated.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames: got {num_frames}, expected at least 1.")
    if not env.obs_shape:
        raise ValueError(f"{env.name}: got scalar observations, expected an axis to stack on.")
    *outer, depth = env.obs_shape

    def begin(key, own, obs):
        del key, own
        frames = jnp.concatenate([obs] * num_frames, axis=-1)
        return frames, frames

    def after(key, own, frames, action, step):
        del key, own, action
        frames = jnp.concatenate([frames[..., depth:], step.obs], axis=-1)
        return frames, step._replace(obs=frames)

    rows = [env.obs_spec[i : i + depth] for i in range(0, len(env.obs_spec), depth)]
    spec = tuple(
        c._replace(name=f"{c.name}@{i - num_frames + 1}")
        for row in rows
        for i in range(num_frames)
        for c in row
    )
    return wrap(
        env,
        params,
        (),
        "frame stack",
        begin=begin,
        after=after,
        obs_spec=spec,
        obs_shape=(*outer, depth * num_frames),
    )


class Scale(NamedTuple):
    """The mean that is taken from an observation, and the deviation that divides it."""

    mean: jax.Array  # float32 [*obs_shape]
    std: jax.Array  # float32 [*obs_shape]


def normalize_observations(
    env: Environment,
    params: Params,
    mean: np.ndarray | None = None,
    std: np.ndarray | None = None,
    source: Literal["bounds", "moments"] = "bounds",
) -> tuple[Wrapper, Params]:
    """`(obs - mean) / std` with fixed numbers a component.

    source "bounds": [low, high] of the spec becomes [-1, 1]; "moments": the given `mean` and `std`,
    shaped as the observation. Running moments belong to the learner (`jaxagent.data.normalize`).
    """
    check_name("source", source, ("bounds", "moments"))
    if source == "bounds":
        require_reals(env, env.obs_spec, "observation")
        low, high = np.array([(c.low, c.high) for c in env.obs_spec]).T
        mean, std = (low + high) / 2, (high - low) / 2
    if mean is None or std is None:
        raise ValueError("source 'moments': got no mean or no std, expected both.")
    mean = np.broadcast_to(np.asarray(mean, np.float32).reshape(-1), (len(env.obs_spec),))
    std = np.broadcast_to(np.asarray(std, np.float32).reshape(-1), (len(env.obs_spec),))
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ValueError("got a mean or std that is not finite, or a std <= 0; drop the component.")

    def scaled(own, obs):
        return (obs.astype(jnp.float32) - own.mean) / own.std

    spec = tuple(
        Component(c.name, "real", (c.low - m) / s, (c.high - m) / s)
        if c.kind == "real"
        else Component(c.name, "real", -m / s, (c.cardinality - 1 - m) / s)
        for c, m, s in zip(env.obs_spec, mean.tolist(), std.tolist(), strict=True)
    )
    own = Scale(jnp.asarray(mean.reshape(env.obs_shape)), jnp.asarray(std.reshape(env.obs_shape)))
    return wrap(
        env, params, own, "normalized observations", **show(scaled), obs_spec=spec, obs_dtype=np.float32
    )


def flat_observations(env: Environment, params: Params) -> tuple[Wrapper, Params]:
    """Observations as vectors `[n]`, for networks of dense layers; the spec is the same."""
    size = math.prod(env.obs_shape)

    def seen(own, obs):
        del own
        return obs.reshape(size)

    return wrap(env, params, (), "flat observations", **show(seen), obs_shape=(size,))


def one_hot_observations(env: Environment, params: Params) -> tuple[Wrapper, Params]:
    """Each category of a vector as so many numbers, 1 at its id, where it stood; reals stay.

    Raises ValueError for observations that are no vectors.
    """
    if len(env.obs_shape) != 1:
        raise ValueError(
            f"{env.name}: got observations of shape {env.obs_shape}, expected vectors; boards have no "
            "categories, leave them."
        )
    spec: list[Component] = []
    for c in env.obs_spec:
        spec += [Component(f"{c.name} is {i}", "real", 0.0, 1.0) for i in range(c.cardinality)] or [c]

    def seen(own, obs):
        del own
        parts = [
            jax.nn.one_hot(obs[i].astype(jnp.int32), c.cardinality) if c.cardinality else obs[i : i + 1]
            for i, c in enumerate(env.obs_spec)
        ]
        return jnp.concatenate(parts).astype(jnp.float32)

    shape = {"obs_spec": tuple(spec), "obs_shape": (len(spec),), "obs_dtype": np.float32}
    return wrap(env, params, (), "one-hot observations", **show(seen), **shape)
