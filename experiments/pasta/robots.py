"""Trajectories of frozen populations: histories for pretraining, demonstrations, references, card.

Agents are split: the best one demonstrates (and leaves its history to offline RL), the next
validates, the others train. Tiers are selections of a history's snapshots: "expert" the last,
"mixed" the last and the middle one, "replay" all of them.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import envs
from envs.returns import Reference
from envs.wrappers import sensor_failure
from experiments.pasta.config import CollectConfig, DomainConfig, Tier
from jaxagent import keys
from jaxagent.agents import window
from jaxagent.config import require
from jaxagent.data import replay, store
from jaxagent.data.store import Shard
from jaxagent.report import figure
from jaxagent.study import agents, collection, frozen, histories
from jaxagent.study.agents import take
from jaxagent.types import Trajectory

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


def snapshots_of(tier: Tier, count: int) -> list[int]:
    """Snapshots of a history of `count` that a tier holds."""
    return {"expert": [count - 1], "mixed": [count // 2, count - 1], "replay": list(range(count))}[tier]


def make(domain: DomainConfig) -> tuple[Any, Any]:
    """The robot as policies see it, whose episodes end at the domain's horizon, and its nominal task.

    Raises ValueError for sensors that it does not have.
    """
    env, task = envs.make(domain.env, max_steps=domain.horizon)
    _require_sensors(domain, "kept", len(env.obs_spec))
    _require_sensors(domain, "sensors", len(domain.kept or env.obs_spec))
    if not domain.kept:
        return env, task
    left_out = set(range(len(env.obs_spec))) - {*domain.kept}
    return sensor_failure(env, task, sorted(left_out), "drop")


def _require_sensors(domain: DomainConfig, field: str, count: int) -> None:
    chosen, expected = getattr(domain, field), f"rising numbers from 0 to {count - 1}"
    is_legal = list(chosen) == sorted({*chosen} & {*range(count)})
    require(is_legal, f"DomainConfig.{field} of {domain.name}", chosen, expected, "see the robot's obs_spec")


def seen(domain: DomainConfig, trajectory: Trajectory) -> Trajectory:
    """A trajectory of the whole robot with the sensors that policies see."""
    if not domain.kept:
        return trajectory
    kept = np.array(domain.kept)
    return trajectory._replace(obs=trajectory.obs[..., kept], final_obs=trajectory.final_obs[..., kept])


def collect(domain: DomainConfig, config: CollectConfig, seed: int) -> tuple[list[Shard], dict[str, Any]]:
    """Shards of one domain and its card."""
    population = frozen.load(domain.env, POLICIES)
    env, task = envs.make(domain.env, max_steps=domain.horizon)
    parts, count = split(population.returns), len(population.returns)
    best = parts["demonstration"][0]
    remembered = {"train": parts["train"], "validation": parts["validation"], "offline": [best]}
    played = [(part, s, a) for part, agents in remembered.items() for a in agents for s in range(count)]
    # Demonstrations and random actions are lanes of the same program: physics compiles slowly.
    repeats = -(-config.demonstration_episodes // config.lanes)
    played += [(part, count - 1, best) for part in ("demonstration", "random") for _ in range(repeats)]
    metas = []
    for part, snapshot, agent in played:
        score = None if part == "random" else float(population.returns[snapshot, agent])
        source = {"agent": agent, "snapshot": snapshot, "score": score}
        metas.append({"domain": domain.name, "env": domain.env, "split": part, **source})
    is_random = np.array([part == "random" for part, _, _ in played])
    # Actions as the policy draws them: a mean shows too little of how to recover.
    policy = agents.or_random(env, population.policy(is_greedy=False))
    params = histories.pick(population.params, [(snapshot, agent) for _, snapshot, agent in played])
    steps, key = max(config.steps, domain.horizon), keys.derive(seed, f"collect/{domain.name}")
    rolled = histories.roll_out(env, policy, (params, is_random), task, config.lanes, steps, key)
    shards = histories.shards_of(seen(domain, rolled), metas)
    returns = {part: _returns(shards, part) for part in (*parts, "offline")}
    random, expert = (float(np.mean(_returns(shards, part))) for part in ("random", "demonstration"))
    card = {
        "agents": parts,
        "reference": {"random": random, "expert": expert},
        "population": {k: population.card[k] for k in ("algorithm", "sha256", "command", "date")},
        "returns": figure.histograms(returns),
        "transitions": {part: sum(t.reward.size for t in _of(shards, part)) for part in parts},
    }
    return shards, card


def stand_in(domain: DomainConfig) -> RobotData:
    """Noise of the same shapes, where shapes alone are asked for."""
    env, task = make(domain)
    noise = [collection.stand_in(env, domain.horizon)]
    episodes = [take(noise[0], slice(None), slice(1))] * domain.num_episodes
    return RobotData(env, task, noise, noise, episodes, noise, Reference(0.0, 1.0))


def load(place: Path, domain: DomainConfig, tier: Tier, reference: dict[str, float]) -> RobotData:
    """Read one domain of a store written by `collect`."""
    shards = store.read(place, lambda meta: meta["domain"] == domain.name)
    count = 1 + max(s.meta["snapshot"] for s in shards)
    kept = [s for s in shards if s.meta["snapshot"] in snapshots_of(tier, count)]
    episodes = [e for t in _of(kept, "demonstration") for e in histories.first_episodes(t)]
    parts = _of(kept, "train"), _of(kept, "validation"), episodes, _of(shards, "offline")
    return RobotData(*make(domain), *parts, Reference(**reference))


def flat(trajectories: Sequence[Trajectory]) -> tuple[np.ndarray, np.ndarray]:
    """Observations `[N, n]` and actions `[N, m]` of all steps."""
    steps = [replay.flat((t.obs, t.action)) for t in trajectories]
    return np.concatenate([obs for obs, _ in steps]), np.concatenate([action for _, action in steps])


def _of(shards: Sequence[Shard], part: str) -> list[Trajectory]:
    return [s.trajectory for s in shards if s.meta["split"] == part]


def _returns(shards: Sequence[Shard], part: str) -> list[float]:
    """Returns of the finished episodes of one part, each lane's first."""
    return [float(e.reward.sum()) for t in _of(shards, part) for e in histories.first_episodes(t)]


def steps_of(episodes: Sequence[Trajectory], domain: DomainConfig, begin: float) -> dict[str, Any]:
    """Steps of demonstrations, padded: windows `[N, K, ...]`, action `[N, m]`, and how many are real.

    Of the last episode a share is kept where `domain.demonstrations` is no whole number: the stretch that
    `begin`, a share in [0, 1), begins.
    """
    size, windows, actions = domain.num_steps, [], []
    for episode in episodes:
        obs, action = flat([episode])
        windows.append(window.of_episode(obs, action, domain.history + 1))
        actions.append(action)
    count = domain.last(len(actions[-1]))
    first = math.floor(begin * (len(actions[-1]) - count + 1))
    windows[-1], actions[-1] = take((windows[-1], actions[-1]), slice(first, first + count))
    shown, action = jax.tree.map(lambda *x: np.concatenate(x), *windows), np.concatenate(actions)

    def padded(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, size - len(x)), *((0, 0),) * (x.ndim - 1)))

    real = {"num_real": np.int32(len(action))}
    return {"window": jax.tree.map(padded, shown), "action": padded(action.astype(np.float32))} | real
