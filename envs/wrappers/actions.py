"""Wrappers of actions: repeated, rescaled, made discrete, checked."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from envs.types import Component, Environment, Params, blank_action, contains
from envs.wrappers.wrapper import Wrapper, require_reals, wrap

MOST_COMBINATIONS = 1024  # of discrete actions; a policy has a logit for each


def sticky_actions(env: Environment, params: Params, probability: float = 0.1) -> tuple[Wrapper, Params]:
    """Execute the previous action again with `probability` (Machado et al. 2018, section 5.2).

    The action before the first is 0, as in MinAtar (probability 0.1 there, 0.25 in ALE).
    """
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability: got {probability}, expected a number in [0, 1].")
    if env.has_legal_actions:
        raise ValueError(
            f"{env.name}: got a game of legal moves, expected free actions; the move before was "
            "another player's, or is legal no more."
        )
    first = blank_action(env.action_spec)

    def begin(key, own, obs):
        del key, own
        return first, obs

    def act(key, own, memory, action):
        return jnp.where(jax.random.bernoulli(key, own), memory, action)

    def after(key, own, memory, action, step):
        del key, own, memory
        return action, step

    own = jnp.asarray(probability, jnp.float32)
    return wrap(env, params, own, "sticky actions", begin=begin, act=act, after=after, is_random=True)


def normalize_actions(env: Environment, params: Params) -> tuple[Wrapper, Params]:
    """Actions in [-1, 1] a component, clipped there, then mapped linearly to the env's bounds."""
    require_reals(env, env.action_spec, "action")
    low = jnp.asarray([c.low for c in env.action_spec], jnp.float32)
    high = jnp.asarray([c.high for c in env.action_spec], jnp.float32)

    def act(key, own, memory, action):
        del key, own, memory
        unit = (jnp.clip(action, -1.0, 1.0) + 1.0) / 2.0
        return low + unit * (high - low)

    spec = tuple(Component(c.name, "real", -1.0, 1.0) for c in env.action_spec)
    return wrap(env, params, (), "normalized actions", act=act, action_spec=spec)


def discretize_actions(env: Environment, params: Params, num_levels: int = 5) -> tuple[Wrapper, Params]:
    """One category for real actions: all combinations of `num_levels` values a component.

    They are spaced evenly from bound to bound; the first component varies slowest. Raises ValueError for
    fewer than two levels, components that are not bounded reals, or more than 1,024 combinations.
    """
    require_reals(env, env.action_spec, "action")
    count = num_levels ** len(env.action_spec)
    if num_levels < 2 or count > MOST_COMBINATIONS:
        raise ValueError(
            f"{env.name}: got num_levels {num_levels}, so {count} combinations, expected at least 2 levels "
            f"and at most {MOST_COMBINATIONS} combinations; take fewer levels, or an agent for real actions."
        )
    values = [np.linspace(c.low, c.high, num_levels) for c in env.action_spec]
    table = np.stack([v.ravel() for v in np.meshgrid(*values, indexing="ij")], axis=-1).astype(np.float32)

    def act(key, own, memory, action):
        del key, own, memory
        return jnp.asarray(table)[action]

    spec = (Component("combination", "category", cardinality=count),)
    return wrap(env, params, (), "discrete actions", act=act, action_spec=spec)


def checked(env: Environment, params: Params) -> tuple[Wrapper, Params]:
    """Refuse actions outside their space, which a plain environment clips or leaves to its source.

    Outside of jit: `ValueError`. Inside: wrap the caller, `checkify.checkify(jax.jit(f))`, and the
    error it returns holds the message. Slow; for debugging.
    """
    bounds = _describe(env.action_spec)
    message = f"{env.name}: got action {{action}}, expected {bounds}; clip or resample it."

    def act(key, own, memory, action):
        del key, own, memory
        is_inside = contains(env.action_spec, action)
        if isinstance(is_inside, jax.core.Tracer):
            checkify.check(is_inside, message, action=action)
        elif not is_inside:
            raise ValueError(message.format(action=action))
        return action

    return wrap(env, params, (), "checked", act=act)


def _describe(spec: tuple[Component, ...]) -> str:
    if all(c.kind == "category" for c in spec):
        spaces = " and ".join(f"[0, {c.cardinality - 1}]" for c in spec)
        return f"a whole number in {spaces}" if len(spec) == 1 else f"whole numbers in {spaces}"
    bounds = [f"[{c.low:g}, {c.high:g}]" for c in spec if math.isfinite(c.high)]
    return f"{len(spec)} numbers in {' x '.join(bounds) or 'any range'}"
