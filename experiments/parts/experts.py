"""Populations of PPO or SAC agents: training in lanes, their checkpoints, the data they leave."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.vector import VectorEnv, broadcast_params
from experiments.parts.cost import Cost
from jaxagent import keys
from jaxagent.agents import actor_critic, soft_actor_critic
from jaxagent.config import PPOConfig, SACConfig
from jaxagent.data import normalize, tree_file
from jaxagent.data.rollout import ActorState, rollout
from jaxagent.data.store import Shard
from jaxagent.evaluate.episodes import play
from jaxagent.nn.transformer import num_parameters
from jaxagent.train import history, loops, optimizer, parallel
from jaxagent.train.run import Work
from jaxagent.types import Agent, Loop, Policy, Trajectory

SNAPSHOTS = "snapshots.npz"


def stack(trees: list[Any]) -> Any:
    """Pytrees of equal structure to one with a new leading axis, on the host.

    On the host because every eager operation on the device compiles a program of its own.
    """
    return jax.tree.map(lambda *x: np.stack(x), *jax.device_get(trees))


AgentConfig = PPOConfig | SACConfig


class Algorithm(NamedTuple):
    """What an agent's training needs that depends on the algorithm."""

    agent: Agent
    loop: Loop
    select: Callable  # learner -> what a snapshot keeps
    env_steps_per_update: int


def _algorithm(env: Any, config: AgentConfig) -> Algorithm:
    vector, sizes = VectorEnv(env), (len(env.obs_spec), env.action_spec)
    env_steps = config.num_envs * config.num_steps
    if isinstance(config, SACConfig):
        agent = soft_actor_critic.soft_actor_critic(*sizes, config)
        loop = loops.replay(
            agent,
            vector,
            optimizer.plain_adam(config.learning_rate),
            config,
            explore=soft_actor_critic.uniform(env.action_spec),
            as_steps=soft_actor_critic.as_steps,
            slow=loops.moving_average(lambda params: params.critics, config.tau),
        )
        return Algorithm(agent, loop, lambda x: (x.params.actor, x.normalizer), env_steps)
    agent = actor_critic.ppo(*sizes, config)
    optimiser = optimizer.adam(optimizer.linear_decay(config), config.max_gradient_norm)
    loop = loops.on_policy(agent, vector, optimiser, config)
    return Algorithm(agent, loop, lambda x: (x.params, x.normalizer), env_steps)


def train(env: Any, tasks: list[Any], config: AgentConfig, seed: int, devices: int) -> Work:
    """Train one agent per task as lanes of one program; snapshots at chunk borders stay.

    Agent i's stream depends on its index alone. The artefact holds `(params, moments)` with leaves
    `[chunks + 1, agents, ...]`; of SAC's parameters the policy's.
    """
    purpose = f"agents/{env.name}"

    def first_keys() -> jax.Array:
        return keys.per_index(keys.derive(seed, f"{purpose}/init"), jnp.arange(len(tasks)))

    return train_lanes(
        _algorithm(env, config), tasks, config, first_keys, keys.derive(seed, f"{purpose}/update"), devices
    )


def seeds_of(part: Any) -> tuple[int, ...]:
    """The seeds of a configuration with `first_seed` and `num_seeds`."""
    return tuple(range(part.first_seed, part.first_seed + part.num_seeds))


def train_seeds(
    algorithm: Algorithm,
    task: Any,
    config: Any,
    seeds: tuple[int, ...],
    purpose: str,
    devices: int,
    *,
    in_turn: bool = False,
) -> Work:
    """Train one agent a seed on one task, a lane each.

    Agents of a seed begin alike and draw alike whatever the algorithm, so that arms are paired.
    """

    def first_keys() -> jax.Array:
        return jnp.stack([keys.derive(seed, f"{purpose}/init") for seed in seeds])

    return train_lanes(
        algorithm,
        [task] * len(seeds),
        config,
        first_keys,
        keys.derive(0, f"{purpose}/update"),
        devices,
        lane_ids=jnp.array(seeds),
        in_turn=in_turn,
    )


def train_lanes(
    algorithm: Algorithm,
    tasks: list[Any],
    config: Any,
    first_keys: Callable[[], jax.Array],
    update_key: jax.Array,
    devices: int,
    *,
    lane_ids: Any = None,
    in_turn: bool = False,
) -> Work:
    """Train one agent per task; lanes and `in_turn` as in `loops.lanes`.

    `first_keys()` are the keys `[lanes]` of the agents' first states. `SNAPSHOTS` holds what
    `algorithm.select` keeps, leaves `[chunks + 1, lanes, ...]`.
    """
    loop = loops.lanes(algorithm.loop, lane_ids=lane_ids, in_turn=in_turn)
    num_chunks = config.num_updates // config.updates_per_chunk

    def first(lane_keys: jax.Array, tasks: Any) -> Any:
        lane_tasks = jax.vmap(lambda task: broadcast_params(task, config.num_envs))(tasks)
        state = parallel.first_state(*loop.init(lane_keys, lane_tasks))
        return history.first_state(state, algorithm.select, num_chunks)

    def init() -> Any:
        return jax.jit(first)(first_keys(), stack(tasks))

    chunk = parallel.chunked(loop, config.updates_per_chunk, devices)

    def finish(state: Any, place: Path) -> dict[str, Any]:
        tree_file.save(place / SNAPSHOTS, state.learner.snapshots)
        env_steps = config.num_updates * algorithm.env_steps_per_update
        return {"agents": len(tasks), "env_steps_per_agent": env_steps}

    return Work(
        finish=finish,
        init=init,
        chunk=history.remembering(
            lambda state: chunk(state, update_key), algorithm.select, config.updates_per_chunk
        ),
        num_chunks=num_chunks,
        updates_per_chunk=config.updates_per_chunk,
        units_per_update={"env_steps": algorithm.env_steps_per_update * len(tasks)},
    )


def cost(stage: str, env: Any, config: AgentConfig, num_agents: int) -> Cost:
    """What training takes: the products of the networks (physics is not counted)."""
    params = jax.eval_shape(_algorithm(env, config).agent.init, jax.random.key(0))
    size = num_agents * num_parameters(params)
    acted = config.num_envs * config.num_steps
    if isinstance(config, SACConfig):
        fitted = config.num_gradient_steps * config.batch_size
        held = config.capacity * num_agents * (2 * len(env.obs_spec) + len(env.action_spec) + 2)
    else:
        fitted = held = acted * config.num_epochs
    flops = 2.0 * size * config.num_updates * (acted + 3 * fitted)
    return Cost(stage, size, flops, 4.0 * held, 0.1, 30.0)


def load_snapshots(place: Path, env: Any, config: AgentConfig, num_agents: int) -> Any:
    """Read the artefact of `train`."""
    num_snapshots = config.num_updates // config.updates_per_chunk + 1
    return tree_file.load(place / SNAPSHOTS, snapshot_template(env, config, (num_snapshots, num_agents)))


def load_lanes(place: Path, init: Callable[[jax.Array], Any], config: Any, num_lanes: int) -> Any:
    """Read what `train_lanes` left where snapshots are the parameters that `init(key)` makes."""
    lead = (config.num_updates // config.updates_per_chunk + 1, num_lanes)
    template = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype), jax.eval_shape(init, jax.random.key(0))
    )
    return tree_file.load(place / SNAPSHOTS, template)


def even_rows(last: int, count: int) -> np.ndarray:
    """At most `count` whole numbers from 0 to `last`, both included, evenly."""
    return np.unique(np.linspace(0, last, count).round().astype(int))


def snapshot_template(env: Any, config: AgentConfig, lead: tuple[int, ...]) -> Any:
    """Shapes of `(params, moments)` of one agent behind leading axes `lead`."""
    algorithm = _algorithm(env, config)

    def one() -> Any:
        params = algorithm.agent.init(jax.random.key(0))
        return algorithm.select(loops.Learner(params, (), normalize.init(env.obs_shape)))

    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype), jax.eval_shape(one))


def as_policy(env: Any, config: AgentConfig, *, is_greedy: bool) -> Policy:
    """The agent as a policy of `(params, moments)`: its mode, or a draw."""
    if isinstance(config, SACConfig):
        acting = soft_actor_critic.sac_policy(env.action_spec, config, is_greedy=is_greedy)
    elif is_greedy:
        acting = actor_critic.greedy(len(env.obs_spec), env.action_spec, config)
    else:
        acting = _algorithm(env, config).agent

    def act(params, carry, obs, is_first, key):
        network, moments = params
        return acting.act(network, carry, normalize.apply(moments, obs), is_first, key)

    return Policy(lambda batch_size: (), act)


def mean_returns(
    env: Any, policy: Policy, snapshots: Any, tasks: list[Any], episodes: int, key: jax.Array
) -> np.ndarray:
    """Mean returns `[snapshots, agents]`, agent i on task i, all under the same keys."""

    def one(params: Any, task: Any) -> jax.Array:
        lanes = broadcast_params(task, episodes)
        return jnp.mean(play(env, policy, params, lanes, key, env.max_steps).returns)

    by_agent = jax.vmap(one)
    lane_tasks = stack(tasks)
    return np.asarray(jax.jit(lambda s: jax.lax.map(lambda p: by_agent(p, lane_tasks), s))(snapshots))


def early_checkpoints(
    scores: np.ndarray, agents: range, max_score: float, count: int
) -> list[tuple[int, int]]:
    """Up to `count` checkpoints `(snapshot, agent)` per agent: its best below `max_score`.

    `scores [snapshots, agents]` are normalised returns. An agent that was never that bad leaves
    nothing; raises ValueError if none was.
    """
    chosen = []
    for agent in agents:
        below = np.flatnonzero(scores[:, agent] < max_score)
        best = sorted(below, key=lambda s: -scores[s, agent])[:count]
        chosen += [(int(s), agent) for s in best]
    if not chosen:
        raise ValueError(
            f"early checkpoints: got none of agents {list(agents)} below {max_score}, expected at "
            "least one; raise collect.max_return or save more often (ppo.updates_per_chunk)."
        )
    return chosen


def roll_out(
    env: Any, policy: Policy, params: Any, task: Any, lanes: int, steps: int, key: jax.Array
) -> Trajectory:
    """Trajectories `[M, T, B, ...]` of M policies, `params` with leaves `[M, ...]`, on one task."""
    vector = VectorEnv(env)

    def one(params: Any, key: jax.Array) -> Trajectory:
        key_reset, key_act = jax.random.split(key)
        env_state = vector.reset(key_reset, broadcast_params(task, lanes))
        first = ActorState(env_state, policy.init(lanes), jnp.ones((lanes,), bool))
        return rollout(vector, partial(policy.act, params), key_act, first, steps)[1]

    count = jax.tree.leaves(params)[0].shape[0]
    policy_keys = keys.per_index(key, jnp.arange(count))
    return jax.device_get(jax.jit(jax.vmap(one))(params, policy_keys))._replace(extras=())


def first_episodes(trajectory: Trajectory) -> list[Trajectory]:
    """Each lane's first episode, of `[T, B, ...]`, as `[T_i, 1, ...]`; unfinished ones are left."""
    done = trajectory.terminated | trajectory.truncated
    episodes = []
    for lane in range(done.shape[1]):
        ends = np.flatnonzero(done[:, lane])
        if len(ends):
            cut = slice(0, ends[0] + 1), slice(lane, lane + 1)
            episodes.append(jax.tree.map(lambda x, c=cut: x[c], trajectory))
    return episodes


def take(snapshots: Any, pairs: list[tuple[int, int]]) -> Any:
    """Snapshots `[M, ...]` of (snapshot, agent) pairs."""
    rows, columns = (np.array([p[i] for p in pairs]) for i in (0, 1))
    return jax.tree.map(lambda x: x[rows, columns], snapshots)


def shards_of(trajectories: Trajectory, metas: list[dict[str, Any]]) -> list[Shard]:
    """Split `[M, T, B, ...]` into one shard per meta."""
    return [Shard(meta, jax.tree.map(lambda x, i=i: x[i], trajectories)) for i, meta in enumerate(metas)]


def make_tasks(env_id: str, overrides: dict[str, float]) -> tuple[Any, Any, Any]:
    """An environment, its nominal task and its changed one."""
    env, nominal = envs.make(env_id)
    return env, nominal, envs.make(env_id, **overrides)[1]
