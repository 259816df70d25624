"""Failing sensors: components of the observation that the agent loses (PASTA, section 4)."""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np

from envs.common.names import check_name
from envs.types import Component, Environment, Params
from envs.wrappers.wrapper import Wrapper, show, wrap


def sensor_failure(
    env: Environment, params: Params, sensors: Sequence[int], mode: Literal["zero", "mask", "drop"] = "zero"
) -> tuple[Wrapper, Params]:
    """Lose the components `sensors` of the flattened observation.

    "zero": they read 0. "mask": they read 0, and a flag a sensor (1: alive) is appended. "drop":
    they are removed, and the observation is shorter. Which sensors fail is a bool `[n]` in the
    params for "zero" and "mask" (vmap over it), part of the shape for "drop". The last two flatten.
    """
    check_name("mode of sensor failure", mode, ("zero", "mask", "drop"))
    size = len(env.obs_spec)
    outside = [i for i in sensors if not 0 <= i < size]
    if outside:
        raise ValueError(f"{env.name}: got sensors {outside}, expected indices in [0, {size - 1}].")
    failed = np.isin(np.arange(size), list(sensors))
    if mode == "drop":
        return _drop(env, params, failed)

    def seen(own, obs):
        alive = ~own if mode == "mask" else ~own.reshape(env.obs_shape)
        if mode == "zero":
            return jnp.where(alive, obs, jnp.zeros_like(obs))
        values = jnp.where(alive, obs.reshape(-1).astype(jnp.float32), 0.0)
        return jnp.concatenate([values, alive.astype(jnp.float32)])

    # Zero may lie outside the bounds of a sensor that can fail.
    reals = (
        c._replace(low=min(c.low, 0.0), high=max(c.high, 0.0)) if c.kind == "real" else c
        for c in env.obs_spec
    )
    specs = {"obs_spec": tuple(reals)}
    if mode == "mask":
        flags = (Component(f"{c.name} alive", "category", cardinality=2) for c in env.obs_spec)
        specs = {"obs_spec": (*specs["obs_spec"], *flags), "obs_shape": (2 * size,)}
        specs["obs_dtype"] = np.float32
    own = jnp.asarray(failed)
    return wrap(env, params, own, f"sensor failure ({mode})", **show(seen), **specs)


def _drop(env: Environment, params: Params, failed: np.ndarray) -> tuple[Wrapper, Params]:
    kept = np.flatnonzero(~failed)
    if not kept.size:
        raise ValueError(f"{env.name}: got every sensor to drop, expected one that stays.")
    spec = tuple(env.obs_spec[i] for i in kept)

    def seen(own, obs):
        del own
        return obs.reshape(-1)[kept]

    specs = {"obs_spec": spec, "obs_shape": (len(spec),)}
    return wrap(env, params, (), "sensor failure (drop)", **show(seen), **specs)
