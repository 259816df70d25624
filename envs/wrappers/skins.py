"""Skins: the same world with its symbols renamed (AutoEnv's SkinEnv)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Environment, Params, clip_category
from envs.wrappers.wrapper import Wrapper, show, wrap


class Skin(NamedTuple):
    """Permutations of symbols; row k of `symbols` serves the k-th alphabet of the environment."""

    symbols: jax.Array  # int32 [K, C]: what a symbol looks like
    actions: jax.Array  # int32 [A]: what an action does


def draw_skin(key: jax.Array, env: Environment, *, renames_actions: bool = False) -> Skin:
    """A random skin of `env`: a permutation for each of the K alphabets (cardinalities) it shows.

    Shapes as in `Skin`; actions keep their meaning unless `renames_actions`.
    """
    sizes, _ = _alphabets(env)
    key_symbols, key_actions = jax.random.split(key)
    keys = jax.random.split(key_symbols, len(sizes))
    width = max(sizes)
    rows = [
        jnp.concatenate([jax.random.permutation(k, n), jnp.arange(n, width)]).astype(jnp.int32)
        for k, n in zip(keys, sizes, strict=True)
    ]
    num_actions = env.action_spec[0].cardinality if env.is_discrete else 0
    actions = jnp.arange(num_actions, dtype=jnp.int32)
    if renames_actions:
        actions = jax.random.permutation(key_actions, actions)
    return Skin(jnp.stack(rows), actions)


def inverse_skin(skin: Skin) -> Skin:
    """The skin that undoes `skin` where it is worn over it."""
    return jax.tree.map(lambda x: jnp.argsort(x, axis=-1).astype(jnp.int32), skin)


def skin(env: Environment, params: Params, skin: Skin) -> tuple[Wrapper, Params]:
    """Show every categorical component through `skin`, and read actions through it."""
    sizes, alphabet = _alphabets(env)
    if skin.symbols.shape != (len(sizes), max(sizes)):
        raise ValueError(
            f"{env.name}: got a skin of shape {skin.symbols.shape}, expected "
            f"{(len(sizes), max(sizes))}; draw it with draw_skin(key, env)."
        )
    rows = jnp.asarray(np.maximum(alphabet, 0).reshape(env.obs_shape))
    is_symbol = jnp.asarray((alphabet >= 0).reshape(env.obs_shape))

    def shown(own, obs):
        renamed = own.symbols[rows, jnp.where(is_symbol, obs, jnp.zeros_like(obs)).astype(jnp.int32)]
        return jnp.where(is_symbol, renamed.astype(obs.dtype), obs)

    def act(key, own, memory, action):
        del key, memory
        return own.actions[clip_category(env.action_spec, action)] if env.is_discrete else action

    def legal_actions(state, params):
        legal = env.legal_actions(state.env, params.env)
        return legal[params.own.actions] if env.is_discrete else legal

    return wrap(env, params, skin, "skin", act=act, **show(shown), legal_actions=legal_actions)


def _alphabets(env: Environment) -> tuple[list[int], np.ndarray]:
    """Distinct cardinalities, and for each component the index of its own (-1: no symbol)."""
    sizes = sorted({c.cardinality for c in env.obs_spec if c.kind == "category"})
    if not sizes:
        raise ValueError(
            f"{env.name}: got no categorical component, expected symbols to rename; a skin is for "
            "worlds that show symbols (xminigrid, minatar)."
        )
    index = [sizes.index(c.cardinality) if c.kind == "category" else -1 for c in env.obs_spec]
    return sizes, np.array(index, np.int32)
