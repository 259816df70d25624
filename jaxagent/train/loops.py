"""The loops: on-policy, replay, offline. A loop is `init` and `update`; `parallel.chunked` runs it.

Everything that varies is an argument; what does not fit writes its own loop from the same parts.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxagent import keys
from jaxagent.config import NUM_SHARDS, OnPolicyConfig, ReplayConfig, require
from jaxagent.data import normalize
from jaxagent.data import replay as replays
from jaxagent.data.replay import Memory
from jaxagent.data.rollout import ActorState, rollout
from jaxagent.nn import stem
from jaxagent.objectives.value import soft_update
from jaxagent.train import optimizer as optimizers
from jaxagent.train.parallel import Mean, average_shards, value_and_mean_grad
from jaxagent.types import Agent, Anchor, Loop, OfflineAgent, Trajectory, no_carry, see_obs


class Learner(NamedTuple):
    """The learner's state, replicated over devices."""

    params: Any
    opt_state: Any
    normalizer: Any = ()  # moments of the observations, or () where inputs are tokens
    target: Any = ()  # the slow copy of a part of the parameters, an `Anchor`, or ()


class Actors(NamedTuple):
    """The lanes of one logical shard of environments."""

    actor: ActorState
    running_return: jax.Array  # [b] return of the unfinished episode in each lane


def on_policy(
    agent: Agent,
    vector: Any,
    optimizer: optax.GradientTransformation,
    config: OnPolicyConfig,
    *,
    see: Callable = see_obs,
    is_normalized: bool = True,
    in_turn: bool = False,
) -> Loop:
    """Act, estimate targets, fit them for some epochs, forget the data (PPO, A2C, PQN).

    `init(key, tasks, *given)` takes env params with leaves `[num_envs, ...]`, and what else the agent
    begins with. `see` is what the agent acts on, as in `rollout`. `is_normalized`: observations reach the
    agent standardised. `in_turn`: the shards act one after another, as a search must, whose loops would
    copy its trees under `vmap`.
    Raises ValueError where the agent cannot read what the environment shows, and `init` for tasks that are
    not one a lane.
    """
    standardize = _standardizer(agent, vector.env, is_normalized)

    def init(key: jax.Array, tasks: Any, *given: Any) -> tuple[Learner, Actors]:
        key_params, key_env = jax.random.split(key)
        params = agent.init(key_params, *given)
        opt_state = optimizers.init(optimizer, params)
        moments = normalize.init(vector.env.obs_shape) if is_normalized else ()
        anchor = Anchor(params, jnp.zeros((), jnp.int32)) if agent.has_anchor else ()
        actors = _first_actors(vector, tasks, key_env, config, agent.init_carry)
        return Learner(params, opt_state, moments, anchor), actors

    def collect(learner: Learner, shards: Actors, shard_ids: jax.Array, key: jax.Array):
        def act(carry, obs, is_first, key_act):
            obs = standardize(learner.normalizer, obs)
            return agent.act(learner.params, carry, obs, is_first, key_act)

        def one_shard(shard_key, actor):
            return rollout(vector, act, shard_key, actor, config.num_steps, see)

        run = map_in_turn if in_turn else jax.vmap
        return run(one_shard)(keys.per_index(key, shard_ids), shards.actor)

    def update(learner: Learner, shards: Actors, data: Any, shard_ids: jax.Array, key: jax.Array):
        del data
        key_act, key_shuffle = jax.random.split(key)
        actor, trajectory = collect(learner, shards, shard_ids, key_act)
        running, returns = jax.vmap(completed_returns)(shards.running_return, trajectory)
        seen = _seen(partial(standardize, learner.normalizer), trajectory, config)
        anchor = (learner.target,) if agent.has_anchor else ()
        items = agent.targets(learner.params, shards.actor.carry, seen, average_shards, *anchor)
        learner, metrics = _fit_epochs(
            learner, items, keys.per_index(key_shuffle, shard_ids), agent.loss, optimizer, config
        )
        if is_normalized:
            learner = _observe(learner, trajectory, config.num_envs * config.num_steps)
        for first in anchor:
            learner = learner._replace(target=first._replace(num_updates=first.num_updates + 1))
        means = {name: Mean(jnp.mean(x), jnp.ones(())) for name, x in metrics.items()}
        return learner, Actors(actor, running), means | _return_of(returns)

    return Loop(init, update)


def _standardizer(agent: Agent, env: Any, is_normalized: bool) -> Callable:
    """How observations reach the agent; refuses by name an environment that it cannot read.

    Here, since an agent knows a spec alone when it is made: that of a picture is a list as another.
    """
    if agent.obs_size:
        shown = jax.ShapeDtypeStruct(env.obs_shape, env.obs_dtype)
        stem.require_vectors(agent.obs_size, shown, f"{env.name}: observations")
    return normalize.of_spec(env.obs_spec) if is_normalized else _as_is


def _first_actors(
    vector: Any, tasks: Any, key: jax.Array, config: Any, init_carry: Callable = no_carry
) -> Actors:
    """Reset every lane of every shard; `tasks` has leaves `[num_envs, ...]`."""
    count, name = len(jax.tree.leaves(tasks)[0]), type(config).__name__
    fix = "steps are counted by the config: give it a task a lane (`envs.vector.broadcast_params`)"
    require(count == config.num_envs, f"{name}.num_envs", config.num_envs, f"{count}, as many as tasks", fix)
    shard_tasks = jax.tree.map(lambda x: x.reshape(NUM_SHARDS, -1, *x.shape[1:]), tasks)
    shard_keys = keys.per_index(key, jnp.arange(NUM_SHARDS))
    env_state = jax.vmap(vector.reset)(shard_keys, shard_tasks)
    lanes = jax.tree.leaves(shard_tasks)[0].shape[:2]
    carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (NUM_SHARDS, *x.shape)), init_carry(lanes[1]))
    actor = ActorState(env=env_state, carry=carry, is_first=jnp.ones(lanes, bool))
    return Actors(actor, jnp.zeros(lanes))


def map_in_turn(fn: Callable) -> Callable:
    """`jax.vmap(fn)`, one element after another."""
    return lambda *args: jax.lax.map(lambda one: fn(*one), args)


def _as_is(moments: Any, obs: Any) -> Any:
    """Observations as the environment gives them."""
    del moments
    return obs


def _observe(learner: Learner, trajectory: Trajectory, count: int) -> Learner:
    """Add the `count` observations of all shards to the moments."""
    observed = normalize.batch_moments(trajectory.obs, average_shards)
    return learner._replace(normalizer=normalize.update(learner.normalizer, *observed, count))


def _seen(standardize: Callable, trajectory: Trajectory, config: OnPolicyConfig) -> Trajectory:
    """The trajectory as the agent saw it: standardised observations, scaled rewards."""
    return trajectory._replace(
        obs=standardize(trajectory.obs),
        final_obs=standardize(trajectory.final_obs),
        reward=trajectory.reward * config.reward_scale,
    )


def _fit_epochs(
    learner: Learner,
    items: Any,
    shard_keys: jax.Array,
    loss: Callable,
    optimizer: optax.GradientTransformation,
    config: OnPolicyConfig,
) -> tuple[Learner, dict[str, jax.Array]]:
    """Epochs of minibatches over `items [s, n, ...]`, permuted within each shard."""
    num_items = jax.tree.leaves(items)[0].shape[1]

    def minibatch_step(carry, indices):  # indices [s, n / M]
        params, opt_state = carry
        minibatch = jax.vmap(lambda x, i: jax.tree.map(lambda leaf: leaf[i], x))(items, indices)
        (value, metrics), gradients = value_and_mean_grad(loss)(params, minibatch)
        params, opt_state = optimizers.apply(optimizer, gradients, opt_state, params)
        return (params, opt_state), {"train/loss": value, **metrics}

    def epoch(carry, number):
        epoch_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(shard_keys, number)
        order = jax.vmap(lambda k: jax.random.permutation(k, num_items))(epoch_keys)
        indices = order.reshape(order.shape[0], config.num_minibatches, -1).swapaxes(0, 1)
        return jax.lax.scan(minibatch_step, carry, indices)

    carry = (learner.params, learner.opt_state)
    (params, opt_state), metrics = jax.lax.scan(epoch, carry, jnp.arange(config.num_epochs))
    return learner._replace(params=params, opt_state=opt_state), metrics


class ReplayActors(NamedTuple):
    """The lanes of one logical shard of environments, and the replay of their past."""

    actors: Actors
    replay: Any  # of a `Memory`


class SlowCopy(NamedTuple):
    """How a slow copy of the parameters begins and follows them (a target network, an average)."""

    first: Callable[[Any], Any]  # params -> the copy before any update
    follow: Callable[[Any, Any], Any]  # (copy, params after a gradient step) -> copy


def moving_average(select: Callable, tau: float) -> SlowCopy:
    """A slow copy of `select(params)` that moves by `tau` toward it after each gradient step."""
    return SlowCopy(select, lambda copy, params: soft_update(copy, select(params), tau))


def params_of(learner: Learner) -> Any:
    """The learner's parameters, by which most agents act."""
    return learner.params


def replay(
    agent: Agent,
    vector: Any,
    optimizer: optax.GradientTransformation,
    config: ReplayConfig,
    *,
    explore: Callable,
    as_steps: Callable,
    slow: SlowCopy,
    memory: Memory | None = None,
    acts_by: Callable[[Learner], Any] = params_of,
    see: Callable = see_obs,
    is_normalized: bool = True,
    in_turn: bool = False,
) -> Loop:
    """Act a little, keep it, and fit minibatches of all that is kept (SAC, DQN, MuZero, AlphaZero).

    `init(key, tasks)` takes env params with leaves `[num_envs, ...]` and fills the replay with
    `explore`, a function like `agent.act` without parameters. `as_steps(trajectory)` is what the
    `memory` keeps (by default transitions with fields `obs` and `final_obs`); `slow` is the copy
    that `agent.targets(params, copy, minibatch, key)` reads. Where the memory ranks, targets and
    loss take one more key, the same for all shards, and the loss returns `(metrics, priorities [b])`
    beside its value. `agent.act` gets `acts_by(learner)` for parameters; a carry is of acting alone.
    Otherwise as `on_policy`, whose `in_turn` is of targets, too; with it, or standardised, no memory ranks.
    """
    memory = replays.transitions() if memory is None else memory
    if memory.rank is not None and (is_normalized or in_turn):
        raise ValueError(
            f"replay: got is_normalized={is_normalized} and in_turn={in_turn} with a memory that "
            "ranks, expected neither; standardise in a wrapper, or take `replay.windows`."
        )
    over_shards = map_in_turn if in_turn else jax.vmap
    standardize = _standardizer(agent, vector.env, is_normalized)

    def init(key: jax.Array, tasks: Any) -> tuple[Learner, ReplayActors]:
        key_params, key_env, key_explore = jax.random.split(key, 3)
        params = agent.init(key_params)
        actors = _first_actors(vector, tasks, key_env, config, agent.init_carry)
        num_steps = config.warmup_steps // config.num_envs
        shard_ids = jnp.arange(NUM_SHARDS)
        actors, trajectory, _ = play(explore, actors, shard_ids, key_explore, num_steps)
        steps = as_steps(trajectory)
        make_room = partial(memory.init, capacity=config.capacity // NUM_SHARDS)
        ring = jax.vmap(memory.add)(jax.vmap(make_room)(steps), steps)
        moments = _first_moments(vector, steps, config.warmup_steps) if is_normalized else ()
        learner = Learner(params, optimizers.init(optimizer, params), moments, slow.first(params))
        return learner, ReplayActors(actors, ring)

    def play(act: Callable, actors: Actors, shard_ids: jax.Array, key: jax.Array, num_steps: int):
        """New actors, the trajectory and the mean return of finished episodes by shard."""

        def one_shard(shard_key, actor):
            return rollout(vector, act, shard_key, actor, num_steps, see)

        actor, trajectory = over_shards(one_shard)(keys.per_index(key, shard_ids), actors.actor)
        running, returns = jax.vmap(completed_returns)(actors.running_return, trajectory)
        return Actors(actor, running), trajectory, returns

    fit = fit_from_memory(
        agent,
        optimizer,
        memory,
        slow,
        config.batch_size // NUM_SHARDS,
        standardize=standardize if is_normalized else None,
        over_shards=over_shards,
    )

    def update(learner: Learner, shards: ReplayActors, data: Any, shard_ids: jax.Array, key):
        del data
        key_act, key_fit = jax.random.split(key)

        def act(carry, obs, is_first, key):
            obs = standardize(learner.normalizer, obs)
            return agent.act(acts_by(learner), carry, obs, is_first, key)

        actors, trajectory, returns = play(act, shards.actors, shard_ids, key_act, config.num_steps)
        ring = jax.vmap(memory.add)(shards.replay, as_steps(trajectory))
        if is_normalized:
            learner = _observe(learner, trajectory, config.num_envs * config.num_steps)

        def gradient_step(carry: tuple[Learner, Any], number: jax.Array):
            *carry, metrics, did = fit(*carry, shard_ids, jax.random.fold_in(key_fit, number))
            return tuple(carry), (metrics, did)

        numbers = jnp.arange(config.num_gradient_steps)
        (learner, ring), (metrics, did) = jax.lax.scan(gradient_step, (learner, ring), numbers)
        return learner, ReplayActors(actors, ring), means_of(metrics, did) | _return_of(returns)

    return Loop(init, update)


def fit_from_memory(
    agent: Agent,
    optimizer: optax.GradientTransformation,
    memory: Memory,
    slow: SlowCopy,
    batch_size: int,
    *,
    standardize: Callable | None,
    over_shards: Callable,
) -> Callable:
    """One gradient step `(learner, ring, shard_ids [s], key) -> learner, ring, metrics, did`.

    `did`, float32 [], is 0 where a shard has nothing to draw: nothing is learned then.
    `batch_size` is of a shard; memories `ring` have leaves `[s, ...]`; other arguments are those of
    `replay`. `standardize(moments, obs)`, where there are moments; `over_shards` maps `agent.targets`.
    """

    def rank(params: Any, batch: Any, ring: Any, steps: Any, did: jax.Array, key: jax.Array):
        """Loss, metrics, gradients, and the memory with new priorities, if anything is learned."""
        grad = value_and_mean_grad(agent.loss, has_items=True)
        (value, metrics, priorities), gradients = grad(params, batch, key)
        ranked = jax.vmap(memory.rank, (0, 0, 0, None))(ring, steps, priorities, did)
        return (value, metrics), gradients, ranked

    def see(learner: Learner, steps: Any) -> Any:
        if standardize is None:
            return steps
        seen = partial(standardize, learner.normalizer)
        return steps._replace(obs=seen(steps.obs), final_obs=seen(steps.final_obs))

    def fit(learner: Learner, ring: Any, shard_ids: jax.Array, key: jax.Array):
        # One noise for all shards: with one for each there are as many products of matrices (3.4
        # times slower for a small Rainbow with a noisy head on two cores).
        key_sample, key_targets, *shared = jax.random.split(key, 2 if memory.rank is None else 4)
        did = average_shards(jax.vmap(memory.can_draw)(ring).astype(jnp.float32)) == 1.0
        sample = partial(memory.sample, batch_size=batch_size)
        steps = see(learner, jax.vmap(sample)(ring, keys.per_index(key_sample, shard_ids)))
        make_targets = partial(agent.targets, learner.params, learner.target)
        shard_keys = keys.per_index(key_targets, shard_ids)
        if memory.rank is None:
            batch = over_shards(make_targets)(steps, shard_keys)
            (value, metrics), gradients = value_and_mean_grad(agent.loss)(learner.params, batch)
        else:
            batch = jax.vmap(make_targets, (0, 0, None))(steps, shard_keys, shared[0])
            (value, metrics), gradients, ring = rank(learner.params, batch, ring, steps, did, shared[1])
        params, opt_state = optimizers.apply(optimizer, gradients, learner.opt_state, learner.params)
        target = slow.follow(learner.target, params)
        learned = learner._replace(params=params, opt_state=opt_state, target=target)
        learner = jax.tree.map(partial(jnp.where, did), learned, learner)
        return learner, ring, {"train/loss": value, **metrics}, did.astype(jnp.float32)

    return fit


def means_of(metrics: dict[str, jax.Array], did: jax.Array) -> dict[str, Mean]:
    """Metrics `[n]` of gradient steps, of those that were done, and the share that was not; `did [n]`."""
    share = jnp.mean(did)
    means = {name: Mean(jnp.mean(jnp.where(did > 0.0, x, 0.0)), share) for name, x in metrics.items()}
    return means | {"train/skipped": Mean(jnp.mean(1.0 - did), jnp.ones(()))}


def _return_of(returns: Mean) -> dict[str, Mean]:
    """Returns of finished episodes by shard `[s]`, as a metric."""
    return {"train/return": jax.tree.map(lambda x: jnp.mean(x, axis=0), returns)}


def _first_moments(vector: Any, steps: Any, count: int) -> normalize.Moments:
    """Moments of the observations of steps `[S, T, b, ...]`."""
    obs = jax.vmap(replays.flat)(steps.obs)
    observed = normalize.batch_moments(obs, _average_here, num_axes=1)
    return normalize.update(normalize.init(vector.env.obs_shape), *observed, count)


def _average_here(tree: Any) -> Any:
    """Average leaves `[S, ...]` over all shards, outside `chunked`, where no device has a part."""
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), tree)


def completed_returns(running: jax.Array, trajectory: Trajectory) -> tuple[jax.Array, Mean]:
    """Continue returns `[B]` through steps `[T, B]`; also the mean `[]` of the episodes that ended."""

    def step(running, inputs):
        reward, done = inputs
        running = running + reward
        finished = Mean(jnp.sum(jnp.where(done, running, 0.0)), jnp.sum(done, dtype=jnp.float32))
        return jnp.where(done, 0.0, running), finished

    done = trajectory.terminated | trajectory.truncated
    running, finished = jax.lax.scan(step, running, (trajectory.reward, done))
    return running, jax.tree.map(jnp.sum, finished)


class Slow(NamedTuple):
    """A moving average of a part of the parameters, and how many updates it has followed."""

    params: Any
    num_updates: jax.Array  # int32 []


def averaged(tau: float, select: Callable = lambda params: params, period: int = 1) -> SlowCopy:
    """`Slow` of `select(params)`, with `tau` of the new at every `period`-th update."""

    def first(params: Any) -> Slow:
        return Slow(select(params), jnp.zeros((), jnp.int32))

    def follow(slow: Slow, params: Any) -> Slow:
        num_updates = slow.num_updates + 1
        share = tau if period == 1 else jnp.where(num_updates % period == 0, tau, 0.0)
        return Slow(soft_update(slow.params, select(params), share), num_updates)

    return SlowCopy(first, follow)


def supervised(
    loss: Callable,
    sample: Callable,
    optimizer: optax.GradientTransformation,
    *,
    slow: SlowCopy | None = None,
    periods: Any = None,
    in_turn: bool = False,
) -> Loop:
    """Fit stored data (pretraining, cloning, offline reinforcement); each shard draws its part of a batch.

    `init(params)` takes the parameters to start from; `sample(data, key) -> minibatch` of one
    shard; `loss(params, minibatch, data) -> scalar, metrics`. With a `slow` copy of the parameters
    the loss takes one argument more, the copy, which no gradient reaches. `periods` let parts of
    the parameters rest (`optimizer.by_period`). `in_turn`: the shards, as
    `parallel.value_and_mean_grad` has it.
    """
    optimizer = optimizer if periods is None else optimizers.by_period(optimizer, periods)

    def init(params: Any) -> tuple[Learner, tuple[()]]:
        copy = () if slow is None else slow.first(params)
        return Learner(params, optimizers.init(optimizer, params), target=copy), ()

    def update(learner: Learner, shards: tuple[()], data: Any, shard_ids: jax.Array, key: jax.Array):
        minibatch = jax.vmap(sample, in_axes=(None, 0))(data, keys.per_index(key, shard_ids))
        read = (data,) if slow is None else (data, learner.target)
        grad = value_and_mean_grad(loss, in_turn)
        (value, metrics), gradients = grad(learner.params, minibatch, *read)
        params, opt_state = optimizers.apply(optimizer, gradients, learner.opt_state, learner.params)
        means = {"train/loss": value, **metrics}
        means = {name: Mean(x, jnp.ones(())) for name, x in means.items()}
        copy = () if slow is None else slow.follow(learner.target, params)
        return Learner(params, opt_state, target=copy), shards, means

    return Loop(init, update)


def offline_rl(
    agent: OfflineAgent, draw: Callable, optimizer: optax.GradientTransformation, tau: float
) -> Loop:
    """`supervised` for agents that learn from stored `Step`s (TD3+BC, IQL); `init(agent.init(...))`.

    `draw(data, key)` are the steps of one shard: `partial(replay.sample, batch_size=...)` of a full
    `Replay`, say. `tau` is of the slow copy that the targets read.
    """

    def sample(data: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        key_draw, key_targets = jax.random.split(key)
        return draw(data, key_draw), key_targets

    def loss(
        params: Any, minibatch: tuple[Any, jax.Array], data: Any, slow: Slow
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        del data
        targets = agent.targets(jax.lax.stop_gradient(params), slow.params, *minibatch)
        return agent.loss(params, jax.lax.stop_gradient(targets))

    slow = averaged(tau, agent.slow, agent.target_period)
    return supervised(loss, sample, optimizer, slow=slow, periods=agent.periods)


def lanes(
    loop: Loop, data_axis: Any = None, lane_ids: jax.Array | None = None, in_turn: bool = False
) -> Loop:
    """Run independent copies of a loop (seeds, agents) as lanes of one program.

    `init` maps over all its arguments; `update` takes learners and shards `[N, ...]` and data with
    lane axis `data_axis` (None: shared). Lane i draws from `fold_in(key, lane_ids[i])`,
    by default its index; equal ids give paired lanes: the same draws for another method.
    `in_turn`: one lane after another rather than all at once, whose activations then stay in a
    CPU's cache (1.3 times faster for twelve small transformers on two cores); an accelerator
    wants them at once.
    """

    def init(*args: Any) -> tuple[Any, Any]:
        return jax.vmap(loop.init, out_axes=(0, 1))(*args)

    def update(learner: Any, shards: Any, data: Any, shard_ids: jax.Array, key: jax.Array):
        num_lanes = jax.tree.leaves(learner)[0].shape[0]
        ids = jnp.arange(num_lanes) if lane_ids is None else lane_ids
        lane_keys = keys.per_index(key, ids)
        axes = (0, 0, data_axis, None, 0)
        run = _in_turn if in_turn else jax.vmap
        return run(loop.update, in_axes=axes)(learner, shards, data, shard_ids, lane_keys)

    return Loop(init, update, shard_axis=loop.shard_axis + 1)


def _in_turn(update: Callable, in_axes: tuple[Any, ...]) -> Callable:
    """`vmap(update, in_axes)`, one lane after another."""

    def run(*args: Any) -> Any:
        num_lanes = jax.tree.leaves(args[0])[0].shape[0]
        # Handed over by the loop itself, so that each key is seen to be used once.
        mapped = tuple(x for axis, x in zip(in_axes, args, strict=True) if axis == 0)

        def one(lane: tuple[jax.Array, tuple[Any, ...]]) -> Any:
            index, lane_args = lane[0], iter(lane[1])
            take = partial(jax.lax.dynamic_index_in_dim, index=index, keepdims=False)
            pick = [
                next(lane_args) if axis == 0 else _map_axis(lambda x, a: take(x, axis=a), axis, arg)
                for axis, arg in zip(in_axes, args, strict=True)
            ]
            return update(*pick)

        return jax.lax.map(one, (jnp.arange(num_lanes), mapped))

    return run


def _map_axis(fn: Callable, axes: Any, tree: Any) -> Any:
    """`fn(leaf, axis)` for leaves with a lane axis; `axes` is None, a number or a prefix tree."""
    if axes is None:
        return tree
    if isinstance(axes, int):
        return jax.tree.map(lambda x: fn(x, axes), tree)
    return type(tree)(_map_axis(fn, a, t) for a, t in zip(axes, tree, strict=True))
