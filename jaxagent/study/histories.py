"""Data of trained agents: trajectories of their snapshots, whole episodes, shards of a store."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.vector import VectorEnv, broadcast_params
from jaxagent import keys
from jaxagent.data.rollout import ActorState, rollout
from jaxagent.data.store import Shard
from jaxagent.evaluate.episodes import play
from jaxagent.study.agents import stack
from jaxagent.types import Policy, Trajectory


def mean_returns(
    env: Any, policy: Policy, snapshots: Any, tasks: Sequence[Any], episodes: int, key: jax.Array
) -> np.ndarray:
    """Mean returns `[snapshots, agents]`, of leaves likewise, agent i on task i, under the same keys."""

    def one(params: Any, task: Any) -> jax.Array:
        lanes = broadcast_params(task, episodes)
        return jnp.mean(play(env, policy, params, lanes, key).returns)

    by_agent, lane_tasks = jax.vmap(one), stack(tasks)
    return np.asarray(jax.jit(lambda s: jax.lax.map(lambda p: by_agent(p, lane_tasks), s))(snapshots))


def early(scores: np.ndarray, agents: Sequence[int], max_score: float, count: int) -> list[tuple[int, int]]:
    """Up to `count` snapshots `(snapshot, agent)` of each agent: its best below `max_score`.

    `scores [snapshots, agents]` are normalised returns. An agent that was never that bad leaves
    nothing; raises ValueError if none was.
    """
    chosen = []
    for agent in agents:
        below = np.flatnonzero(scores[:, agent] < max_score)
        best = sorted(below, key=lambda row: -scores[row, agent])[:count]
        chosen += [(int(row), agent) for row in best]
    if not chosen:
        raise ValueError(
            f"early snapshots: got none of agents {list(agents)} below {max_score}, expected at least one; "
            "raise collect.max_return or save more often (ppo.updates_per_chunk)."
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


def pick(snapshots: Any, pairs: Sequence[tuple[int, int]]) -> Any:
    """Leaves `[M, ...]` of M (snapshot, agent) pairs, of leaves `[snapshots, agents, ...]`."""
    rows, columns = (np.array([pair[i] for pair in pairs]) for i in (0, 1))
    return jax.tree.map(lambda x: x[rows, columns], snapshots)


def shards_of(trajectories: Trajectory, metas: Sequence[dict[str, Any]]) -> list[Shard]:
    """Split `[M, T, B, ...]` into one shard per meta."""
    return [Shard(meta, jax.tree.map(lambda x, i=i: x[i], trajectories)) for i, meta in enumerate(metas)]
