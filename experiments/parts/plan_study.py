"""Planning with pretrained policies: learned worlds, and arms that differ in what search sees."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.types import sample_action
from experiments.configs.plan import Config
from experiments.parts import cloning_study, pictures, sequences
from experiments.parts.cost import Cost
from experiments.parts.experts import seeds_of, stack
from experiments.parts.sequences import Corpus
from jaxagent import keys
from jaxagent.agents import planning, sequence, world_model
from jaxagent.agents.sequence import SequenceParams
from jaxagent.agents.world_model import ModelStep, WorldModel
from jaxagent.config import NUM_SHARDS, SearchConfig
from jaxagent.data import tree_file
from jaxagent.evaluate.episodes import play_lanes, record
from jaxagent.nn.transformer import num_parameters
from jaxagent.train import loops, optimizer, parallel
from jaxagent.train.run import Work, stage_folder
from jaxagent.types import Policy, View, see_obs

WORLDS = ("learned", "saboteur")  # lanes of a world's fit, each with all seeds
PARAMS = "params.npz"


class Setting(NamedTuple):
    """One task: its environment, its policy and its learned world."""

    env: Any
    task: Any
    corpus: Corpus
    index: int  # of the task's domain
    world: WorldModel
    steps: ModelStep  # that the world learns from


def seeds(config: Config) -> tuple[int, ...]:
    """Of pretraining, worlds and episodes."""
    return seeds_of(config.plan)


def setting_of(config: Config, index: int, folder: Path) -> Setting:
    """Build everything of a task from the run's data."""
    corpus, data = cloning_study.load(config, folder)
    env, task = envs.make(config.tasks[index].env)
    steps = stored_steps(data["train"][index])
    world = world_model.world_model(
        steps, env.action_spec, discount=config.plan.discount, hidden_size=config.world.hidden_size
    )
    return Setting(env, task, corpus, index, world, steps)


def stored_steps(trajectories: list[Any]) -> ModelStep:
    """All steps `[N, ...]` of trajectories `[T, B, ...]`."""

    def joined(field: str) -> jax.Array:
        parts = (np.asarray(getattr(t, field)) for t in trajectories)
        return jnp.concatenate([x.reshape(-1, *x.shape[2:]) for x in parts])

    return ModelStep(*map(joined, ModelStep._fields))


def shuffled(steps: ModelStep, key: jax.Array) -> ModelStep:
    """The saboteur's data: actions of other steps."""
    order = jax.random.permutation(key, steps.reward.shape[0])
    return steps._replace(action=steps.action[order])


def fit_world(config: Config, index: int, folder: Path) -> Work:
    """Lanes `[worlds x seeds]`: the learned world, and the saboteur's."""
    setting, fit = setting_of(config, index, folder), config.world.fit
    name = config.tasks[index].name
    broken = shuffled(setting.steps, keys.derive(config.seed, f"plan/{name}/shuffle"))
    data = stack([setting.steps, broken])
    own, count = seeds(config), config.plan.num_seeds
    init = jax.jit(setting.world.init)
    first = stack([init(keys.derive(s, f"plan/{name}/world")) for s in own] * len(WORLDS))
    which = jnp.repeat(jnp.arange(len(WORLDS)), count, total_repeat_length=len(WORLDS) * count)

    def sample(data: tuple[Any, jax.Array], key: jax.Array) -> ModelStep:
        steps, world = data
        size = steps.reward.shape[1]
        row = jax.random.randint(key, (fit.batch_size // NUM_SHARDS,), 0, size)
        return jax.tree.map(lambda x: x[world, row], steps)

    loop = loops.lanes(
        loops.slow_offline(setting.world.loss, sample, optimizer.adamw(fit), config.world.tau),
        (None, 0),
        jnp.array(own * len(WORLDS)),
    )
    chunk = parallel.chunked(loop, fit.updates_per_chunk, config.runtime.devices, (data, which))
    key = keys.derive(0, f"plan/{name}/fit")

    def finish(state: Any, place: Path) -> dict[str, Any]:
        tree_file.save(place / PARAMS, state.learner.params)
        return {
            "parameters": num_parameters(state.learner.params) // len(which),
            "steps": int(setting.steps.reward.shape[0]),
        }

    return Work(
        finish=finish,
        init=lambda: jax.jit(lambda p: parallel.first_state(*loop.init(p)))(first),
        chunk=lambda state: chunk(state, key),
        num_chunks=fit.num_updates // fit.updates_per_chunk,
        updates_per_chunk=fit.updates_per_chunk,
        units_per_update={"steps": fit.batch_size * len(which)},
    )


def worlds(config: Config, setting: Setting, folder: Path) -> dict[str, Any]:
    """Parameters `[seeds, ...]` by world."""
    count, name = config.plan.num_seeds, config.tasks[setting.index].name
    template = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((len(WORLDS) * count, *x.shape), x.dtype),
        jax.eval_shape(setting.world.init, jax.random.key(0)),
    )
    lanes = tree_file.load(stage_folder(folder, f"world/{name}") / PARAMS, template)
    return {
        world: jax.tree.map(lambda x, i=i: x[i * count : (i + 1) * count], lanes)
        for i, world in enumerate(WORLDS)
    }


def pretrained(config: Config, corpus: Corpus, folder: Path) -> Any:
    """Networks `[seeds, ...]`."""
    template = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((config.plan.num_seeds, *x.shape), x.dtype),
        jax.eval_shape(corpus.model.init, jax.random.key(0)),
    )
    return sequences.load_params(stage_folder(folder, "pretrain"), template)


def uniform(env: Any) -> Policy:
    """Draws actions of the whole space: proposals that know nothing."""

    def act(params: Any, carry: Any, obs: jax.Array, is_first: jax.Array, key: jax.Array) -> tuple:
        del params, is_first
        lane_keys = jax.random.split(key, obs.shape[0])
        return jax.vmap(lambda k: sample_action(k, env.action_spec))(lane_keys), (), carry

    return Policy(lambda batch_size: (), act)


def planner(
    config: Config, setting: Setting, policy: Policy, model: str, sims: int, depth: int = 0
) -> Policy:
    """A policy with search in the "true" world or the "learned" one; depth 0: no limit."""
    plan = planning.gumbel_search(SearchConfig(sims, config.plan.num_samples, depth), gumbel_scale=0.0)
    step = setting.world.step
    if model == "true":
        step = planning.true_step(setting.env, discount=config.plan.discount)
    return planning.sample_planner(
        policy, step, setting.world.value, plan, num_samples=config.plan.num_samples
    )


def evaluate(config: Config, index: int, folder: Path) -> dict[str, Any]:
    """Mean returns `[seeds]` of every arm, all in the same episodes."""
    setting = setting_of(config, index, folder)
    corpus, name = setting.corpus, config.tasks[index].name
    base = sequence.policy(corpus.model, corpus.domains[index], "sample")
    networks, learned = pretrained(config, corpus, folder), worlds(config, setting, folder)
    codec = corpus.codecs[index]
    own = jax.vmap(lambda p: SequenceParams(p, codec))(networks)
    lane_keys = keys.per_index(keys.derive(0, f"plan/{name}/play"), jnp.array(seeds(config)))

    def play(policy: Policy, params: Any, see: Any = View) -> list[float]:
        episodes = config.plan.episodes
        run = jax.jit(partial(play_lanes, setting.env, policy, see=see, num_episodes=episodes))
        return np.asarray(run(params, setting.task, lane_keys)).tolist()

    most = config.plan.simulations[-1]
    greedy = sequence.policy(corpus.model, corpus.domains[index], "mean")
    returns = {"policy": play(base, own, see_obs), "mode": play(greedy, own, see_obs)}
    for sims in config.plan.simulations:
        for model in ("true", "learned"):
            policy = planner(config, setting, base, model, sims)
            returns[f"{model} {sims}"] = play(policy, (own, learned["learned"]))
    deepest = planner(config, setting, base, "learned", most)
    returns["saboteur"] = play(deepest, (own, learned["saboteur"]))
    one_step = planner(config, setting, base, "true", config.plan.num_samples, depth=1)
    returns["one step"] = play(one_step, (own, learned["learned"]))
    without = planner(config, setting, uniform(setting.env), "true", most)
    nothing = jnp.zeros((config.plan.num_seeds,))
    returns["no prior"] = play(without, (nothing, learned["learned"]))
    shown = {"policy": (base, own, see_obs)}
    shown[f"learned {most}"] = (deepest, (own, learned["learned"]), View)
    _paint(setting, shown, folder)
    return {"returns": returns}


def _paint(setting: Setting, arms: dict[str, tuple], folder: Path) -> None:
    """An episode of the first seed of each arm, from the same first state."""
    env, task, name = setting.env, setting.task, setting.env.name.split("/")[-1]
    for arm, (policy, params, see) in arms.items():
        own = jax.tree.map(lambda x: x[0], params)
        show = jax.jit(partial(record, env, policy, num_steps=env.max_steps, see=see))
        key = keys.derive(0, f"plan/{name}/picture")
        episode = jax.device_get(show(params=own, task=task, key=key))
        path = folder / "pictures" / f"{arm}--{name}.gif"
        pictures.write_episode(path, env, jax.device_get(task), episode, arm)


def costs(config: Config) -> list[Cost]:
    """Of every stage, for --dry-run."""
    rows = [Cost(f"agents/{t.name}", 0, 0.0, 0.0, 0.1, 30.0) for t in config.tasks]
    rows.append(Cost("collect", 0, 0.0, 0.0, 0.1, 30.0))
    rows.append(Cost("pretrain", 0, _pretraining_flops(config), 0.0, 0.3, 20.0))
    return rows + [Cost(f"evaluate/{t.name}", 0, 0.0, 0.0, 0.1, 90.0) for t in config.tasks]


def _pretraining_flops(config: Config) -> float:
    """Six a parameter and token; a transition has about eight tokens."""
    model, fit = config.model, config.pretrain
    size = 12 * model.num_layers * model.width**2
    tokens = fit.num_updates * fit.batch_size * model.context * 8 * len(config.tasks)
    return 6.0 * size * tokens * config.plan.num_seeds
