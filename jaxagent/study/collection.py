"""Agents of a task and of a changed one: their early trajectories, and the best one's demonstrations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import envs
from envs.returns import reference, task_name
from envs.types import blank_action
from jaxagent import keys
from jaxagent.config import TokenConfig, TransformerConfig
from jaxagent.data import sampler, store
from jaxagent.data.sampler import Windows
from jaxagent.data.store import Shard
from jaxagent.evaluate import statistics
from jaxagent.study import agents, films, histories
from jaxagent.study import corpus as corpora
from jaxagent.study.config import CollectConfig, LearnedEnvConfig
from jaxagent.study.corpus import Corpus, corpus
from jaxagent.study.study import Fit, Lanes, Measure
from jaxagent.train.run import stage_folder
from jaxagent.types import Trajectory

STAGE = "collect"
SPLITS = ("train", "validation", "demonstration")
PRETRAINED = ("model", "saboteur")  # lanes of `pretraining`; and "renamed"


def agents_of(task: LearnedEnvConfig, sizes: CollectConfig, seed: int) -> Fit:
    """PPO agents: on the nominal task for pretraining, on the changed one for demonstrations."""
    env, nominal = envs.make(task.env)
    _, changed = envs.make(task.env, **task.overrides)
    tasks = [nominal] * sizes.num_nominal + [changed] * sizes.demonstrators
    return agents.population(f"agents/{task.name}", env, tasks, task.ppo, seed)


def watched(task: LearnedEnvConfig, fit: Fit, seed: int) -> Measure:
    """A film of the task's first agent as it learned to be, before anything else is made of it."""

    def watch(folder: Path, place: Path) -> dict[str, Any]:
        del place
        env, nominal = envs.make(task.env)
        policy = agents.as_policy(env, task.ppo, is_greedy=True)
        first, key = agents.take(fit.load(folder), -1, 0), keys.derive(seed, f"watch/{task.env}")
        films.write(folder, f"ppo--{task.name}", env, policy, first, nominal, key)
        return {}

    return Measure(f"watch/{task.name}", watch)


def collect(
    tasks: Sequence[LearnedEnvConfig],
    fits: Sequence[Fit],
    sizes: CollectConfig,
    seed: int,
    folder: Path,
    place: Path,
) -> dict[str, Any]:
    """Write the store of all tasks to `place`; returns a card for each."""
    shards, cards = [], {}
    for task, fit in zip(tasks, fits, strict=True):
        new, cards[task.name] = _of_task(task, sizes, seed, fit.load(folder))
        shards += new
    store.write(place / "store", shards, within=folder)
    return cards


def _of_task(
    task: LearnedEnvConfig, sizes: CollectConfig, seed: int, snapshots: Any
) -> tuple[list[Shard], dict[str, Any]]:
    """Shards of one environment and their card: early trajectories by split, demonstrations."""
    env, nominal = envs.make(task.env)
    _, changed = envs.make(task.env, **task.overrides)

    def key(purpose: str) -> jax.Array:
        return keys.derive(seed, f"collect/{task.env}/{purpose}")

    sampled = agents.as_policy(env, task.ppo, is_greedy=False)
    every = [nominal] * sizes.num_nominal + [changed] * sizes.demonstrators
    returns = histories.mean_returns(
        env, sampled, snapshots, every, sizes.evaluation_episodes, key("evaluate")
    )
    low, high = reference(task.env)
    scores = statistics.normalise(returns, low, high)
    splits = {"train": range(sizes.train_agents), "validation": range(sizes.train_agents, sizes.num_nominal)}
    pairs, metas = [], []
    for split, of_split in splits.items():
        chosen = histories.early(scores, of_split, sizes.max_return, sizes.checkpoints_per_agent)
        pairs += chosen
        metas += [_meta(task.env, {}, split, a, s, float(scores[s, a])) for s, a in chosen]
    kept = histories.pick(snapshots, pairs)
    early = histories.roll_out(env, sampled, kept, nominal, sizes.lanes, sizes.steps, key("early"))

    last = returns.shape[0] - 1
    best = sizes.num_nominal + int(np.argmax(returns[last, sizes.num_nominal :]))
    acting = agents.as_policy(env, task.ppo, is_greedy=not task.sampled_demonstrations)
    kept, count = histories.pick(snapshots, [(last, best)]), sizes.demonstration_episodes
    shown = histories.roll_out(env, acting, kept, changed, count, env.max_steps, key("demonstration"))
    episodes = histories.first_episodes(agents.take(shown, 0))
    mean = float(np.mean([e.reward.sum() for e in episodes]))
    low, high = reference(task.env, task.overrides)
    score = float(statistics.normalise(mean, low, high))
    metas += [_meta(task.env, task.overrides, "demonstration", best, last, score)]
    card = {
        split: {
            "agents": sorted({m["agent"] for m in metas if m["split"] == split}),
            "scores": [m["score"] for m in metas if m["split"] == split],
        }
        for split in SPLITS
    }
    return histories.shards_of(early, metas[:-1]) + histories.shards_of(shown, metas[-1:]), card


def _meta(
    env: str, overrides: dict[str, float], split: str, agent: int, snapshot: int, score: float
) -> dict[str, Any]:
    task, score = task_name(env, overrides), round(score, 4)
    return {"env": env, "task": task, "split": split, "agent": agent, "snapshot": snapshot, "score": score}


def load(
    tasks: Sequence[LearnedEnvConfig], tokens: TokenConfig, model: TransformerConfig, folder: Path | None
) -> tuple[Corpus, dict[str, list[list[Trajectory]]]]:
    """The corpus and, per split, a list of trajectories for each task; noise where there is no folder.

    Demonstrations are whole episodes `[T_i, 1, ...]`.
    """
    environments = [envs.make(task.env)[0] for task in tasks]
    if folder is None:
        noise = [[stand_in(env)] for env in environments]
        data = dict.fromkeys(SPLITS, noise)
        data["demonstration"] = [[agents.take(t, slice(None), slice(1))] * 100 for (t,) in noise]
    else:
        shards = store.read(stage_folder(folder, STAGE) / "store")
        data = {
            split: [
                [s.trajectory for s in shards if s.meta["env"] == t.env and s.meta["split"] == split]
                for t in tasks
            ]
            for split in SPLITS
        }
        data["demonstration"] = [histories.first_episodes(parts[0]) for parts in data["demonstration"]]
    return corpus(environments, data["train"], tokens, model), data


def stand_in(env: Any, num_steps: int = 64, num_lanes: int = 4) -> Trajectory:
    """Noise with the shapes of trajectories `[T, B, ...]`, where shapes alone are asked for."""
    rng, shape = np.random.default_rng(0), (num_steps, num_lanes)
    obs = rng.normal(size=(*shape, *env.obs_shape)).astype(np.float32)
    spec = env.action_spec
    if env.is_discrete:
        action = rng.integers(0, spec[0].cardinality, shape).astype(np.int32)
    else:
        low, high = [0.0 if c.cardinality else -1.0 for c in spec], [float(c.cardinality or 1) for c in spec]
        action = rng.uniform(low, high, (*shape, len(spec))).astype(blank_action(spec).dtype)
    reward, never = rng.normal(size=shape).astype(np.float32), np.zeros(shape, bool)
    return Trajectory(obs, action, reward, never, never, obs)


def pretraining(config: Any, folder: Path | None, lanes: Sequence[str] = PRETRAINED) -> Lanes:
    """One transformer on all nominal tasks, a lane; others are its saboteurs.

    "saboteur" sees shuffled steps (`sampler.shuffled`), "renamed" permuted values (`sampler.renamed`).
    `config` has the fields `tasks`, `tokens`, `model`, `pretrain` and `seed`.
    """
    of, data = load(config.tasks, config.tokens, config.model, folder)
    clean = [corpora.windows(of, i, t) for i, t in enumerate(data["train"])]
    held_out = [corpora.windows(of, i, t) for i, t in enumerate(data["validation"])]

    def seen(name: str, i: int) -> Windows:
        if name == "saboteur":
            return sampler.shuffled(clean[i], keys.derive(config.seed, f"shuffle/{i}"))
        if name == "renamed":
            key = keys.derive(config.seed, f"rename/{i}")
            return sampler.renamed(clean[i], key, of.domains[i].sizes, of.model.vocabulary.num_bins)
        return clean[i]

    stacked = [agents.stack([seen(name, i) for name in lanes]) for i in range(len(clean))]

    def tell(params: Any) -> dict[str, Any]:
        return {"validation": corpora.validation(of, clean, held_out, lanes, params)}

    return corpora.pretrain(of, stacked, [config.seed] * len(lanes), config.pretrain, data_axis=0, tell=tell)
