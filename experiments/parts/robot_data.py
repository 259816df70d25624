"""Trajectories of frozen populations: histories for pretraining, demonstrations, references, card.

Agents are split: the best one demonstrates, the next validates, the others train. Tiers are
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
from envs.vector import broadcast_params
from experiments.parts import experts, policies
from jaxagent import keys
from jaxagent.data import store
from jaxagent.data.store import Shard
from jaxagent.evaluate.episodes import play
from jaxagent.types import Policy, Trajectory

HISTOGRAM_BINS = 10


class RobotData(NamedTuple):
    """What one domain offers."""

    env: Any
    task: Any  # nominal dynamics, the study's horizon
    train: list[Trajectory]
    validation: list[Trajectory]
    demonstrations: list[Trajectory]  # episodes [T, 1, ...]
    reference: Reference  # returns of random actions and of the demonstrator, at this horizon


def split(returns: np.ndarray) -> dict[str, list[int]]:
    """Agents of each part, by their last returns; `returns [snapshots, agents]`."""
    order = np.argsort(-returns[-1], kind="stable").tolist()
    return {"demonstration": order[:1], "validation": order[1:2], "train": sorted(order[2:])}


def snapshots_of(tier: str, count: int) -> list[int]:
    """Snapshots of a history of `count` that a tier holds."""
    return {
        "expert": [count - 1],
        "mixed": [count // 2, count - 1],
        "replay": list(range(count)),
    }[tier]


def make(env_id: str, horizon: int, **overrides: float) -> tuple[Any, Any]:
    """An environment whose episodes end after `horizon` steps, and its task."""
    return envs.make(env_id, max_steps=horizon, **overrides)


def collect(domain: Any, config: Any, seed: int) -> tuple[list[Shard], dict[str, Any]]:
    """Shards of one domain and its card."""
    population = policies.load(domain.env)
    env, task = make(domain.env, domain.horizon)
    parts = split(population.returns)
    count = len(population.returns)

    def key(purpose: str) -> jax.Array:
        return keys.derive(seed, f"collect/{domain.env}/{purpose}")

    pairs, metas = [], []
    for part in ("train", "validation"):
        for agent in parts[part]:
            for snapshot in snapshots_of("replay", count):
                pairs.append((snapshot, agent))
                score = float(population.returns[snapshot, agent])
                metas.append(_meta(domain.env, part, agent, snapshot, score))
    rolled = experts.roll_out(
        env, population.policy(is_greedy=False), experts.take(population.params, pairs), task,
        config.lanes, config.steps, key("history"),
    )  # fmt: skip
    shards = experts.shards_of(rolled, metas)
    best = parts["demonstration"][0]
    expert = experts.take(population.params, [(count - 1, best)])
    # Actions as the policy draws them: a mean shows too little of how to recover.
    shown = experts.roll_out(
        env, population.policy(is_greedy=False), expert, task,
        config.demonstration_episodes, domain.horizon, key("demonstration"),
    )  # fmt: skip
    score = float(population.returns[-1, best])
    meta = [_meta(domain.env, "demonstration", best, count - 1, score)]
    shards += experts.shards_of(shown, meta)
    one = jax.tree.map(lambda x: x[0], expert)
    measured = {
        name: float(np.mean(returns(env, task, policy, params, config.reference_episodes, key(name))))
        for name, policy, params in (
            ("random", random_policy(env), ()),
            ("expert", population.policy(is_greedy=False), one),
        )
    }
    card = {
        "agents": parts,
        "reference": measured,
        "population": {k: population.card[k] for k in ("algorithm", "sha256", "command", "date")},
        "returns": {part: _histogram(shards, part) for part in parts},
        "transitions": {
            part: sum(s.trajectory.reward.size for s in shards if s.meta["split"] == part)
            for part in parts
        },
    }
    return shards, card


def load(place: Path, domain: Any, tier: str, reference: dict[str, float]) -> RobotData:
    """Read one domain of a store written by `collect`."""
    env, task = make(domain.env, domain.horizon)
    shards = store.read(place, lambda meta: meta["env"] == domain.env)
    count = 1 + max(s.meta["snapshot"] for s in shards)
    wanted = snapshots_of(tier, count)

    def of(part: str) -> list[Trajectory]:
        return [
            s.trajectory for s in shards
            if s.meta["split"] == part and s.meta["snapshot"] in wanted
        ]  # fmt: skip

    episodes = experts.first_episodes(of("demonstration")[0])
    return RobotData(
        env, task, of("train"), of("validation"), episodes, Reference(**reference)
    )


def returns(
    env: Any, task: Any, policy: Policy, params: Any, episodes: int, key: jax.Array
) -> np.ndarray:
    """Returns `[episodes]` of one policy."""
    lanes = broadcast_params(task, episodes)
    run = jax.jit(lambda p: play(env, policy, p, lanes, key, env.max_steps).returns)
    return np.asarray(run(params))


def random_policy(env: Any) -> Policy:
    """Uniform actions."""

    def act(params, carry, obs, is_first, key):
        del params, is_first
        action_keys = jax.random.split(key, obs.shape[0])
        return jax.vmap(lambda k: sample_action(k, env.action_spec))(action_keys), (), carry

    return Policy(lambda batch_size: (), act)


def flat(trajectories: Sequence[Trajectory]) -> tuple[np.ndarray, np.ndarray]:
    """Observations `[N, n]` and actions `[N, m]` of all steps."""
    return tuple(
        np.concatenate([x.reshape(-1, x.shape[-1]) for x in (getattr(t, name) for t in trajectories)])
        for name in ("obs", "action")
    )


def _meta(env: str, part: str, agent: int, snapshot: int, score: float) -> dict[str, Any]:
    return {"env": env, "split": part, "agent": agent, "snapshot": snapshot, "score": score}


def _histogram(shards: Sequence[Shard], part: str) -> dict[str, list[float]]:
    """Returns of the finished episodes of one part."""
    values = [
        float(e.reward.sum())
        for s in shards
        if s.meta["split"] == part
        for e in experts.first_episodes(s.trajectory)
    ]
    counts, edges = np.histogram(values, bins=HISTOGRAM_BINS) if values else ([], [])
    return {"counts": [int(c) for c in counts], "edges": [round(float(e), 3) for e in edges]}


def steps_of(episodes: Sequence[Trajectory], size: int) -> dict[str, np.ndarray]:
    """Steps of demonstrations, padded to `size`: obs `[size, n]`, action `[size, m]`, their number."""
    obs, action = flat(episodes)
    pad = size - len(obs)
    return {
        "obs": np.pad(obs, ((0, pad), (0, 0))).astype(np.float32),
        "action": np.pad(action, ((0, pad), (0, 0))).astype(np.float32),
        "num_real": np.int32(len(obs)),
    }


def as_device(tree: Any) -> Any:
    """Numpy leaves as arrays of the device."""
    return jax.tree.map(jnp.asarray, tree)
