"""Brax: linear feedback on joint angles and velocities, tuned to the default backend."""

from typing import Any

import jax
import jax.numpy as jnp

from envs.trigonometry import wrap_angle

# Found by the cross-entropy method on the return over 1000 steps: brax's spring backend holds
# joints by stiff springs, whose motion a linearisation of the joints alone (for an LQR) misses.
POLE_GAINS = (0.43, 2.5, 0.015, 0.042)  # of cart, pole, then their velocities
# Started from the LQR of a least-squares model of random motion.
TWO_POLE_GAINS = (-3.6, -52.9, -107.0, -0.79, -6.7, -9.6)  # of cart, pole, upper pole; velocities

# Also by the cross-entropy method: of the two angles, then of their velocities.
REACHER_GAINS = (0.061, 0.195, 0.077, 0.039)
UPPER_ARM, FOREARM = 0.1, 0.11  # m; brax/envs/assets/reacher.xml


def inverted_pendulum(state: Any, params: Any) -> jax.Array:
    """Push the cart under the pole: float32 `[1]`."""
    del params
    return _feedback(state, POLE_GAINS)


def inverted_double_pendulum(state: Any, params: Any) -> jax.Array:
    """Push the cart under both poles: float32 `[1]`."""
    del params
    return _feedback(state, TWO_POLE_GAINS)


def reacher(state: Any, params: Any) -> jax.Array:
    """Turn both joints gently to the angles at which the tip is on the target: float32 `[2]`."""
    del params
    (upper, fore, x, y), speed = state.pipeline.q, state.pipeline.qd[:2]
    lengths = UPPER_ARM**2 + FOREARM**2, 2 * UPPER_ARM * FOREARM
    bend = jnp.arccos(jnp.clip((x**2 + y**2 - lengths[0]) / lengths[1], -1.0, 1.0))
    bend = jnp.where(fore >= 0, bend, -bend)  # the elbow stays on its side
    tilt = jnp.arctan2(FOREARM * jnp.sin(bend), UPPER_ARM + FOREARM * jnp.cos(bend))
    error = jnp.stack([wrap_angle(jnp.arctan2(y, x) - tilt - upper), bend - fore])
    gains = jnp.array(REACHER_GAINS, jnp.float32)
    return jnp.clip(gains[:2] * error - gains[2:] * speed, -1.0, 1.0)


def _feedback(state: Any, gains: tuple[float, ...]) -> jax.Array:
    joints = jnp.concatenate([state.pipeline.q, state.pipeline.qd])
    return jnp.clip(jnp.array([gains], jnp.float32) @ joints, -1.0, 1.0)
