"""Trajectories of frozen populations: histories for pretraining, demonstrations, references, card.

Agents are split: the best one demonstrates (and leaves its history to offline RL), the next
validates, the others train. Tiers are
selections of a history's snapshots: "expert" the last, "mixed" the last and the middle one,
"replay" all of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.returns import Reference
from envs.types import sample_action
from jaxagent import keys
from jaxagent.data import store
from jaxagent.data.store import Shard
from jaxagent.study import collection, frozen, histories
from jaxagent.types import Policy, Trajectory

HISTOGRAM_BINS = 10
POLICIES = Path(__file__).parents[1] / "policies"  # the committed populations


class RobotData(NamedTuple):
    """What one domain offers."""

    env: Any
    task: Any  # nominal dynamics, the study's horizon
    train: list[Trajectory]
    validation: list[Trajectory]
    demonstrations: list[Trajectory]  # episodes [T, 1, ...]
    offline: list[Trajectory]  # the demonstrator's whole history, for offline RL
    reference: Reference  # returns of random actions and of the demonstrator, at this horizon


def split(returns: np.ndarray) -> dict[str, list[int]]:
    """Agents of each part, by their last returns; `returns [snapshots, agents]`."""
    order = np.argsort(-returns[-1], kind="stable").tolist()
    return {"demonstration": order[:1], "validation": order[1:2], "train": sorted(order[2:])}


def snapshots_of(tier: str, count: int) -> list[int]:
    """Snapshots of a history of `count` that a tier holds."""
    return {"expert": [count - 1], "mixed": [count // 2, count - 1], "replay": list(range(count))}[tier]


def make(env_id: str, horizon: int, **overrides: float) -> tuple[Any, Any]:
    """An environment whose episodes end after `horizon` steps, and its task."""
    return envs.make(env_id, max_steps=horizon, **overrides)


def collect(domain: Any, config: Any, seed: int) -> tuple[list[Shard], dict[str, Any]]:
    """Shards of one domain and its card."""
    population = frozen.load(domain.env, POLICIES)
    env, task = make(domain.env, domain.horizon)
    parts = split(population.returns)
    count = len(population.returns)

    pairs, metas = [], []
    for part in ("train", "validation"):
        for agent in parts[part]:
            for snapshot in snapshots_of("replay", count):
                pairs.append((snapshot, agent))
                score = float(population.returns[snapshot, agent])
                metas.append(_meta(domain.env, part, agent, snapshot, score))
    best, last = parts["demonstration"][0], count - 1
    for snapshot in snapshots_of("replay", count):
        pairs.append((snapshot, best))
        score = float(population.returns[snapshot, best])
        metas.append(_meta(domain.env, "offline", best, snapshot, score))
    # Demonstrations and random actions are lanes of the same program: physics compiles slowly.
    repeats = -(-config.demonstration_episodes // config.lanes)
    for part in ("demonstration", "random"):
        pairs += [(last, best)] * repeats
        score = float(population.returns[-1, best]) if part == "demonstration" else None
        metas += [_meta(domain.env, part, best, last, score)] * repeats
    is_random = np.array([m["split"] == "random" for m in metas])
    # Actions as the policy draws them: a mean shows too little of how to recover.
    rolled = histories.roll_out(
        env,
        or_random(env, population.policy(is_greedy=False)),
        (histories.pick(population.params, pairs), is_random),
        task,
        config.lanes,
        max(config.steps, domain.horizon),
        keys.derive(seed, f"collect/{domain.env}"),
    )
    shards = histories.shards_of(rolled, metas)
    measured = {
        name: float(np.mean(_returns(shards, part)))
        for name, part in (("random", "random"), ("expert", "demonstration"))
    }
    card = {
        "agents": parts,
        "reference": measured,
        "population": {k: population.card[k] for k in ("algorithm", "sha256", "command", "date")},
        "returns": _histograms({p: _returns(shards, p) for p in (*parts, "offline")}),
        "transitions": {
            part: sum(s.trajectory.reward.size for s in shards if s.meta["split"] == part) for part in parts
        },
    }
    return shards, card


def stand_in(domain: Any) -> RobotData:
    """Noise of the same shapes, where shapes alone are asked for."""
    env, task = make(domain.env, domain.horizon)
    noise = [collection.stand_in(env, domain.horizon)]
    episodes = [jax.tree.map(lambda x: x[:, :1], noise[0])] * domain.demonstrations
    return RobotData(env, task, noise, noise, episodes, noise, Reference(0.0, 1.0))


def load(place: Path, domain: Any, tier: str, reference: dict[str, float]) -> RobotData:
    """Read one domain of a store written by `collect`."""
    env, task = make(domain.env, domain.horizon)
    shards = store.read(place, lambda meta: meta["env"] == domain.env)
    count = 1 + max(s.meta["snapshot"] for s in shards)
    wanted = snapshots_of(tier, count)

    def of(part: str, snapshots: Sequence[int] = wanted) -> list[Trajectory]:
        return [s.trajectory for s in shards if s.meta["split"] == part and s.meta["snapshot"] in snapshots]

    episodes = [e for t in of("demonstration") for e in histories.first_episodes(t)]
    history = of("offline", range(count))
    return RobotData(env, task, of("train"), of("validation"), episodes, history, Reference(**reference))


def or_random(env: Any, policy: Policy) -> Policy:
    """A policy of `(params, is_random)`: uniform actions where `is_random`."""

    def act(params, carry, obs, is_first, key):
        own, is_random = params
        key_policy, key_random = jax.random.split(key)
        action, _, carry = policy.act(own, carry, obs, is_first, key_policy)
        action_keys = jax.random.split(key_random, obs.shape[0])
        uniform = jax.vmap(lambda k: sample_action(k, env.action_spec))(action_keys)
        return jnp.where(is_random, uniform, action), (), carry

    return Policy(policy.init, act)


def flat(trajectories: Sequence[Trajectory]) -> tuple[np.ndarray, np.ndarray]:
    """Observations `[N, n]` and actions `[N, m]` of all steps."""
    return tuple(
        np.concatenate([x.reshape(-1, x.shape[-1]) for x in (getattr(t, name) for t in trajectories)])
        for name in ("obs", "action")
    )


def _meta(env: str, part: str, agent: int, snapshot: int, score: float | None) -> dict[str, Any]:
    return {"env": env, "split": part, "agent": agent, "snapshot": snapshot, "score": score}


def _returns(shards: Sequence[Shard], part: str) -> list[float]:
    """Returns of the finished episodes of one part, each lane's first."""
    return [
        float(e.reward.sum())
        for s in shards
        if s.meta["split"] == part
        for e in histories.first_episodes(s.trajectory)
    ]


def _histograms(values: dict[str, list[float]]) -> dict[str, dict[str, list[float]]]:
    """Counts of every part in the same bins."""
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=HISTOGRAM_BINS)
    shown = [round(float(e), 3) for e in edges]
    return {
        part: {"counts": np.histogram(found, edges)[0].tolist(), "edges": shown}
        for part, found in values.items()
    }


def steps_of(episodes: Sequence[Trajectory], size: int) -> dict[str, np.ndarray]:
    """Steps of demonstrations padded to `size`: obs `[size, n]`, action `[size, m]`, a count."""
    obs, action = flat(episodes)
    pad = size - len(obs)
    return {
        "obs": np.pad(obs, ((0, pad), (0, 0))).astype(np.float32),
        "action": np.pad(action, ((0, pad), (0, 0))).astype(np.float32),
        "num_real": np.int32(len(obs)),
    }
