"""Learned worlds of a task, and every arm: which policy proposes, which world is searched, how long."""

import itertools
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from experiments.plan.config import Config
from jaxagent import keys
from jaxagent.agents import planning, sequence, world_model
from jaxagent.agents.sequence import Rule, SequenceParams
from jaxagent.agents.world_model import ModelStep, WorldModel
from jaxagent.config import NUM_SHARDS, SearchConfig
from jaxagent.study import agents, collection, films
from jaxagent.study.corpus import Corpus
from jaxagent.study.study import Fit, Lanes
from jaxagent.train import loops, optimizer
from jaxagent.types import Policy, View, see_obs

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
    steps, size = world_model.stored_steps(data["train"][index]), config.world.hidden_size
    world = world_model.world_model(steps, env.action_spec, discount=config.plan.discount, hidden_size=size)
    return Task(env, params, corpus, index, world, steps)


def fit_of(config: Config, index: int) -> Fit:
    """Lanes `[worlds x seeds]`: the learned world, and the saboteur's."""
    fit, name, seeds = config.world.fit, config.tasks[index].name, tuple(config.plan.seeds)

    def sample(data: tuple[Any, jax.Array], key: jax.Array) -> ModelStep:
        steps, world = data
        row = jax.random.randint(key, (fit.batch_size // NUM_SHARDS,), 0, steps.reward.shape[1])
        return jax.tree.map(lambda x: x[world, row], steps)

    def lanes(folder: Path | None) -> Lanes:
        task = task_of(config, index, folder)
        steps, key = task.steps, keys.derive(config.seed, f"plan/{name}/shuffle")
        broken = steps._replace(action=jax.random.permutation(key, steps.action))  # the saboteur's
        init, count = jax.jit(task.world.init), len(WORLDS)
        first = [init(keys.derive(seed, f"plan/{name}/world")) for seed in seeds]
        slow = loops.averaged(config.world.tau)
        return Lanes(
            loops.supervised(task.world.loss, sample, optimizer.adamw(fit), slow=slow),
            lambda: (agents.stack(first * count),),
            fit,
            keys.derive(0, f"plan/{name}/fit"),
            ids=seeds * count,
            data=(agents.stack([steps, broken]), np.repeat(np.arange(count, dtype=np.int32), len(seeds))),
            data_axis=(None, 0),
            units={"steps": fit.batch_size},
        )

    return Fit(f"world/{name}", lanes)


class Arm(NamedTuple):
    """One way to act in a task."""

    about: str
    searched: str = ""  # "true", "learned" or "saboteur"; "": no search
    simulations: int = 0
    depth: int = 0  # of the search; 0: no limit
    proposes: Rule | Literal["uniform"] = "sample"  # rule of the pretrained policy; or chance
    is_filmed: bool = False


def arms(config: Config) -> dict[str, Arm]:
    """As they appear in tables."""
    most, samples = config.plan.simulations[-1], config.plan.num_samples
    result = {
        "policy": Arm("the pretrained policy as it is, with its memory; draws its actions", is_filmed=True),
        "mode": Arm("the same, its most likely or mean action", proposes="mean"),
    }
    for count, world in itertools.product(config.plan.simulations, ("true", "learned")):
        about, is_filmed = f"{count} simulations in the {world} world", (world, count) == ("learned", most)
        result[f"{world} {count}"] = Arm(about, world, count, is_filmed=is_filmed)
    tried = "all samples tried once in the true world, judged by values: no tree"
    about = f"{most} simulations in the true world over uniform proposals"
    return result | {
        "saboteur": Arm(f"{most} simulations in a world learned from shuffled actions", "saboteur", most),
        "one step": Arm(tried, "true", samples, depth=1),
        "no prior": Arm(about, "true", most, proposes="uniform"),
    }


def policy_of(config: Config, task: Task, arm: Arm) -> Policy:
    """How an arm acts; with search its params are `(the proposals', the world's)`."""
    plan, base = config.plan, agents.uniform_policy(task.env)
    if arm.proposes != "uniform":
        base = sequence.policy(task.corpus.model, task.corpus.domains[task.index], arm.proposes)
    if not arm.searched:
        return base
    step = planning.true_step(task.env, discount=plan.discount) if arm.searched == "true" else task.world.step
    value_range = plan.value_range * task.world.value_unit
    sizes = SearchConfig(arm.simulations, plan.num_samples, arm.depth, value_range)
    search = planning.gumbel_search(sizes, gumbel_scale=0.0)
    return planning.sample_planner(base, step, task.world.value, search, num_samples=plan.num_samples)


def evaluate(config: Config, index: int, model: Fit, world: Fit, folder: Path, place: Path) -> dict[str, Any]:
    """Mean returns `[seeds]` of every arm, all in the same episodes, and films."""
    del place
    task, name, seeds = task_of(config, index, folder), config.tasks[index].name, config.plan.seeds
    key_play, key_film = (keys.derive(0, f"plan/{name}/{what}") for what in ("play", "picture"))
    arena = agents.arena(task.env, task.params, seeds, config.plan.episodes, key_play)
    networks, kept = model.load(folder, task.corpus.model.init), world.load(folder, task.world.init)
    pretrained = jax.vmap(lambda network: SequenceParams(network, task.corpus.codecs[index]))(networks)
    lanes = {of: slice(i * len(seeds), (i + 1) * len(seeds)) for i, of in enumerate(WORLDS)}
    returns = {}
    for arm_name, arm in arms(config).items():
        policy, see = policy_of(config, task, arm), View if arm.searched else see_obs
        params = jnp.zeros((len(seeds),)) if arm.proposes == "uniform" else pretrained
        if arm.searched:  # with the true world, values are the learned one's
            params = params, agents.take(kept, lanes.get(arm.searched, lanes["learned"]))
        returns[arm_name] = arena.returns(policy, params, see).tolist()
        if arm.is_filmed:
            title, first = f"{arm_name}--{name}", agents.take(params, 0)
            films.write(folder, title, task.env, policy, first, task.params, key_film, see=see)
    return {"returns": returns}
