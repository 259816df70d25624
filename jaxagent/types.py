"""Types that cross module boundaries, and the axis convention, stated once.

Axes: time-major `[T, B, ...]` in everything that scans over time, batch-major `[B, L, ...]` into
sequence models. A leading `[S, ...]` is the logical data shard (`train/parallel.py`), a leading
`[N, ...]` independent lanes (seeds or agents) under `vmap`.
Letters: T time, B batch, L length, D width, H heads, V vocabulary, P tokens per transition.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Trajectory(NamedTuple):
    """The steps of a rollout; `final_obs[t]` is the true observation after step t, always."""

    obs: jax.Array  # [T, B, ...] before the step
    action: jax.Array  # [T, B] int32 or [T, B, A] float32, as the environment took it
    reward: jax.Array  # [T, B]
    terminated: jax.Array  # [T, B] bool
    truncated: jax.Array  # [T, B] bool
    final_obs: jax.Array  # [T, B, ...] after the step, before any reset
    extras: Any = ()  # leaves [T, B, ...]: what `act` returned beside the action
    # [T, B] bool: False where the step only reset the lane and its action was ignored (ALE); drop
    # it from replay and from step counts. `()`: all are real.
    valid: Any = ()

    def fields_of(self, kind: type) -> Any:
        """The fields `[T, B, ...]` that the NamedTuple `kind` names, of the extras where these have one."""
        return kind(*(self.extras[f] if f in self.extras else getattr(self, f) for f in kind._fields))


class Policy(NamedTuple):
    """A way to act: feed-forward policies carry `()`, sequence policies their KV cache."""

    init: Callable[[int], Any]  # batch size -> carry
    # (params, carry, obs [B, ...], is_first [B], key) -> action [B, ...], extras, carry
    act: Callable[[Any, Any, jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any, Any]]


class View(NamedTuple):
    """The input, in place of an observation, of a policy that plans with the true environment."""

    obs: jax.Array  # [B, ...]
    state: Any  # leaves [B, ...]: the environment's
    task: Any  # leaves [B, ...]: its params


def see_obs(obs: jax.Array, state: Any, task: Any) -> jax.Array:
    """The input of most policies: the observation `[B, ...]` alone. The other choice is `View`."""
    del state, task
    return obs


class Masked(NamedTuple):
    """The input, in place of an observation, of a policy that is told what it may do."""

    obs: jax.Array  # [B, ...]
    legal: jax.Array  # [B, K] bool, as `Environment.legal_actions`


def see_legal(env: Any) -> Callable:
    """A choice beside `see_obs`: observations with the masks of the actions that `env` allows."""

    def see(obs: jax.Array, state: Any, task: Any) -> Masked:
        return Masked(obs, jax.vmap(env.legal_actions)(state, task))

    return see


def unmasked(seen: Any) -> tuple[Any, Any]:
    """The observation of what is seen, and the mask of legal actions, or () where there is none."""
    return seen if isinstance(seen, Masked) else (seen, ())


def no_carry(batch_size: int) -> tuple[()]:
    """The `init_carry` of agents without memory."""
    del batch_size
    return ()


def steps_of(x: jax.Array) -> jax.Array:
    """Steps `[s, T b, ...]` of segments `[s, T, b, ...]`."""
    return x.reshape(x.shape[0], -1, *x.shape[3:])


class Agent(NamedTuple):
    """An agent that learns by acting, as functions; `params` is the trainable pytree.

    The carry is its memory: part of acting, and of learning, which begins a segment where acting did.
    """

    init: Callable[[jax.Array], Any]  # key -> params
    act: Callable  # (params, carry, obs, is_first, key) -> action, extras, carry
    # On policy: (params, carry before the segment [s, b], trajectory [s, T, b], average) -> items,
    # leaves [s, n, ...], among which minibatches are drawn. From a replay see `loops.replay`.
    targets: Callable
    loss: Callable  # (params, minibatch) -> scalar, metrics
    init_carry: Callable[[int], Any] = no_carry  # batch size -> carry, leaves [B, ...]
    obs_size: int = 0  # n of the vectors [B, n] that it reads; 0: its observations have another form
    has_anchor: bool = False  # on policy: `targets` take one argument more, the `Anchor`


class Anchor(NamedTuple):
    """The policy that training began with, for who must stay near it."""

    params: Any
    num_updates: jax.Array  # int32 []: since then


class OfflineAgent(NamedTuple):
    """An agent that learns from stored `Step`s; `params` has the fields `actor` and `encoder`."""

    init: Callable  # (key, encoder_params = ()) -> params
    targets: Callable  # (params, target, steps [b, ...], key) -> batch, leaves [b, ...]
    loss: Callable  # (params, batch) -> scalar, metrics
    slow: Callable  # params -> the part whose slow copy `targets` reads; () where there is none
    # Updates from one move of a part to its next, ints in a prefix of params; 0: it never moves.
    periods: Any
    target_period: int  # updates from one move of the slow copy to its next
    policy: Policy  # greedy; reads `params.actor` and `params.encoder` alone


class Loop(NamedTuple):
    """A way to learn, before it meets devices (`train/loops.py` makes them)."""

    init: Callable  # (key, ...) -> learner, shards [S, ...]
    update: Callable  # (learner, shards [s, ...], data, shard_ids [s], key) -> same, metrics
    # Where `update` has the shard axis. Lanes come first inside a program: with the shards first,
    # every update would transpose all that they hold, a replay too, there and back.
    shard_axis: int = 0


class RunState(NamedTuple):
    """Everything that a stage must remember, as one pytree of arrays."""

    learner: Any  # replicated over devices: params, optimiser state, targets, normalisers
    shards: Any  # leaves [S, ...]: per logical shard, e.g. environment states; () if none
    step: jax.Array  # int32 []: updates done
