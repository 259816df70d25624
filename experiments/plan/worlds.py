"""Learned worlds of a task, and every arm: which policy proposes, which world is searched, how long."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.types import sample_action
from experiments.plan.config import Config
from jaxagent import keys
from jaxagent.agents import planning, sequence, world_model
from jaxagent.agents.sequence import SequenceParams
from jaxagent.agents.world_model import ModelStep, WorldModel
from jaxagent.config import NUM_SHARDS, SearchConfig
from jaxagent.study import agents, collection, films
from jaxagent.study.corpus import Corpus
from jaxagent.study.study import Fit, Lanes
from jaxagent.train import loops, optimizer
from jaxagent.types import Policy, Trajectory, View, see_obs

WORLDS = ("learned", "saboteur")  # lanes of a world's fit, each with all seeds


class Task(NamedTuple):
    """One task: its environment, its policy and its learned world."""

    env: Any
    params: Any
    corpus: Corpus
    index: int  # of the task's domain
    world: WorldModel
    steps: ModelStep  # that the world learns from


def task_of(config: Config, index: int, folder: Path | None) -> Task:
    """Build everything of a task from the run's data."""
    corpus, data = collection.load(config.tasks, config.tokens, config.model, folder)
    env, params = envs.make(config.tasks[index].env)
    steps, plan = stored_steps(data["train"][index]), config.plan
    world = world_model.world_model(
        steps, env.action_spec, discount=plan.discount, hidden_size=config.world.hidden_size
    )
    return Task(env, params, corpus, index, world, steps)


def stored_steps(trajectories: Sequence[Trajectory]) -> ModelStep:
    """All steps `[N, ...]` of trajectories `[T, B, ...]`."""

    def joined(field: str) -> jax.Array:
        parts = (np.asarray(getattr(t, field)) for t in trajectories)
        return jnp.concatenate([x.reshape(-1, *x.shape[2:]) for x in parts])

    return ModelStep(*map(joined, ModelStep._fields))


def shuffled(steps: ModelStep, key: jax.Array) -> ModelStep:
    """The saboteur's data: actions of other steps."""
    order = jax.random.permutation(key, steps.reward.shape[0])
    return steps._replace(action=steps.action[order])


def fit_of(config: Config, index: int) -> Fit:
    """Lanes `[worlds x seeds]`: the learned world, and the saboteur's."""
    fit, name, seeds = config.world.fit, config.tasks[index].name, tuple(config.plan.seeds)

    def sample(data: tuple[Any, jax.Array], key: jax.Array) -> ModelStep:
        steps, world = data
        row = jax.random.randint(key, (fit.batch_size // NUM_SHARDS,), 0, steps.reward.shape[1])
        return jax.tree.map(lambda x: x[world, row], steps)

    def lanes(folder: Path | None) -> Lanes:
        task = task_of(config, index, folder)
        broken = shuffled(task.steps, keys.derive(config.seed, f"plan/{name}/shuffle"))
        init, count = jax.jit(task.world.init), len(WORLDS)
        first = [init(keys.derive(seed, f"plan/{name}/world")) for seed in seeds]
        which = jnp.repeat(jnp.arange(count), len(seeds), total_repeat_length=count * len(seeds))
        return Lanes(
            loops.slow_offline(task.world.loss, sample, optimizer.adamw(fit), config.world.tau),
            lambda: (agents.stack(first * count),),
            fit,
            keys.derive(0, f"plan/{name}/fit"),
            ids=seeds * count,
            data=(agents.stack([task.steps, broken]), which),
            data_axis=(None, 0),
            units={"steps": fit.batch_size},
        )

    return Fit(f"world/{name}", lanes)


def uniform(env: Any) -> Policy:
    """Draws actions of the whole space: proposals that know nothing."""

    def act(params: Any, carry: Any, obs: jax.Array, is_first: jax.Array, key: jax.Array) -> tuple:
        del params, is_first
        lane_keys = jax.random.split(key, obs.shape[0])
        return jax.vmap(lambda k: sample_action(k, env.action_spec))(lane_keys), (), carry

    return Policy(lambda batch_size: (), act)


class Arm(NamedTuple):
    """One way to act in a task."""

    about: str
    proposes: str = "pretrained"  # or "uniform"; or "mode", which is the pretrained policy's
    searched: str = ""  # "true", "learned" or "saboteur"; "": no search
    simulations: int = 0
    depth: int = 0  # of the search; 0: no limit
    is_filmed: bool = False


def arms(config: Config) -> dict[str, Arm]:
    """As they appear in tables."""
    result = {
        "policy": Arm("the pretrained policy as it is, with its memory; draws its actions", is_filmed=True),
        "mode": Arm("the same, its most likely or mean action", "mode"),
    }
    most = config.plan.simulations[-1]
    for count in config.plan.simulations:
        for world in ("true", "learned"):
            about = f"{count} simulations in the {world} world"
            is_filmed = (world, count) == ("learned", most)
            result[f"{world} {count}"] = Arm(about, "pretrained", world, count, is_filmed=is_filmed)
    about = f"{most} simulations in a world learned from shuffled actions"
    result["saboteur"] = Arm(about, "pretrained", "saboteur", most)
    about = "all samples tried once in the true world, judged by values: no tree"
    result["one step"] = Arm(about, "pretrained", "true", config.plan.num_samples, depth=1)
    about = f"{most} simulations in the true world over uniform proposals"
    result["no prior"] = Arm(about, "uniform", "true", most)
    return result


def policy_of(config: Config, task: Task, arm: Arm) -> Policy:
    """How an arm acts; with search its params are `(the proposals', the world's)`."""
    how = "mean" if arm.proposes == "mode" else "sample"
    base = sequence.policy(task.corpus.model, task.corpus.domains[task.index], how)
    if arm.proposes == "uniform":
        base = uniform(task.env)
    if not arm.searched:
        return base
    plan = SearchConfig(arm.simulations, config.plan.num_samples, arm.depth)
    step = task.world.step
    if arm.searched == "true":
        step = planning.true_step(task.env, discount=config.plan.discount)
    search = planning.gumbel_search(plan, gumbel_scale=0.0)
    return planning.sample_planner(base, step, task.world.value, search, num_samples=config.plan.num_samples)


def evaluate(
    config: Config, index: int, pretrain: Fit, world: Fit, folder: Path, place: Path
) -> dict[str, Any]:
    """Mean returns `[seeds]` of every arm, all in the same episodes."""
    del place
    task, seeds = task_of(config, index, folder), config.plan.seeds
    name, codec, count = config.tasks[index].name, task.corpus.codecs[index], len(seeds)
    room = agents.room(
        task.env, task.params, seeds, config.plan.episodes, keys.derive(0, f"plan/{name}/play")
    )
    network = jax.vmap(lambda p: SequenceParams(p, codec))(pretrain.load(folder, task.corpus.model.init))
    proposals = {"uniform": jnp.zeros((count,))}
    kept = world.load(folder, task.world.init)
    learned = {w: agents.take(kept, slice(i * count, (i + 1) * count)) for i, w in enumerate(WORLDS)}
    returns = {}
    for arm_name, arm in arms(config).items():
        policy, params = policy_of(config, task, arm), proposals.get(arm.proposes, network)
        see = View if arm.searched else see_obs
        if arm.searched:
            params = params, learned.get(arm.searched, learned["learned"])
        returns[arm_name] = room.returns(policy, params, see).tolist()
        if arm.is_filmed:
            first, key = agents.take(params, 0), keys.derive(0, f"plan/{name}/picture")
            films.write(folder, f"{arm_name}--{name}", task.env, policy, first, task.params, key, see=see)
    return {"returns": returns}
