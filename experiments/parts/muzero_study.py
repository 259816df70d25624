"""MuZero against PPO: training in lanes of seeds, snapshots played with and without search."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.vector import VectorEnv
from envs.wrappers import flat_observations
from experiments.configs.muzero import Config, TaskConfig
from experiments.parts import experts, pictures
from experiments.parts.cost import Cost
from jaxagent import keys
from jaxagent.agents import muzero, planning
from jaxagent.agents.muzero import MuZeroStep
from jaxagent.config import MuZeroConfig
from jaxagent.data import replay
from jaxagent.evaluate.episodes import play_lanes, record
from jaxagent.nn.latent_model import LatentModel
from jaxagent.nn.transformer import num_parameters
from jaxagent.train import loops, optimizer
from jaxagent.train.run import Work, stage_folder
from jaxagent.types import Policy, Trajectory

TRAINED = ("muzero", "no-consistency", "saboteur")  # models, beside PPO's networks


class Setting(NamedTuple):
    """One environment with what learns it."""

    config: TaskConfig
    env: Any
    task: Any
    model: LatentModel


def setting_of(config: TaskConfig) -> Setting:
    """Build environment and model."""
    env, task = envs.make(config.env)
    model = muzero.model_of(env.obs_shape, env.action_spec, config.muzero.model)
    return Setting(config, env, task, model)


def fit_of(setting: Setting, name: str) -> MuZeroConfig:
    """How a model of `TRAINED` is fitted."""
    fit = setting.config.muzero
    if name == "no-consistency":
        return dataclasses.replace(fit, consistency_weight=0.0)
    return fit


def of_another_lane(trajectory: Trajectory) -> MuZeroStep:
    """The saboteur's memory: every step is kept with the action of the lane beside it."""
    steps = muzero.as_steps(trajectory)
    return steps._replace(action=jnp.roll(steps.action, 1, axis=-1))


def algorithm_of(setting: Setting, name: str) -> experts.Algorithm:
    """Agent and loop of a model of `TRAINED`."""
    env, fit = setting.env, fit_of(setting, name)
    agent = muzero.muzero(env.obs_shape, env.action_spec, fit)
    loop = loops.replay(
        agent,
        VectorEnv(env),
        optimizer.decayed_adam(fit.learning_rate, fit.weight_decay, fit.max_gradient_norm),
        fit,
        explore=muzero.uniform(env.action_spec),
        as_steps=of_another_lane if name == "saboteur" else muzero.as_steps,
        slow=loops.moving_average(lambda params: params, fit.tau),
        memory=replay.windows(muzero.window(fit)),
        is_normalized=False,
        in_turn=True,
    )
    return experts.Algorithm(agent, loop, lambda x: x.params, fit.num_envs * fit.num_steps)


def train(config: Config, task: TaskConfig, name: str) -> Work:
    """One lane a seed; models of a seed begin alike and draw alike."""
    setting = setting_of(task)
    return experts.train_seeds(
        algorithm_of(setting, name),
        setting.task,
        task.muzero,
        experts.seeds_of(config),
        f"muzero/{task.name}",
        config.runtime.devices,
        in_turn=True,  # a search copies its trees under vmap
    )


def train_ppo(config: Config, task: TaskConfig) -> Work:
    """PPO agents, as many as seeds, of vectors."""
    env, params = flat_observations(*envs.make(task.env))
    tasks = [params] * config.num_seeds
    return experts.train(env, tasks, task.ppo, config.first_seed, config.runtime.devices)


def snapshots(config: Config, setting: Setting, name: str, folder: Path) -> Any:
    """Models `[snapshots, seeds, ...]`, the first untrained."""
    place = stage_folder(folder, f"train/{setting.config.name}/{name}")
    init, fit = setting.model.init, setting.config.muzero
    return experts.load_lanes(place, init, fit, config.num_seeds)


def player(setting: Setting, how: str) -> Policy:
    """A model as a policy without chance: "search", or "raw"."""
    fit = setting.config.muzero
    plan = {
        "search": planning.gumbel_search(fit.search, gumbel_scale=0.0),
        "raw": planning.no_search(is_greedy=True),
    }[how]
    return muzero.policy(setting.model, plan, fit)


def returns(
    setting: Setting, policy: Policy, params: Any, num_episodes: int, lane_keys: jax.Array
) -> np.ndarray:
    """Mean returns `[snapshots, seeds]`; a seed's episodes are the same for every arm."""
    run = partial(play_lanes, setting.env, policy, task=setting.task, num_episodes=num_episodes)
    return np.asarray(jax.jit(lambda p: jax.lax.map(lambda q: run(q, lane_keys=lane_keys), p))(params))


def evaluate(config: Config, setting: Setting, folder: Path) -> dict[str, Any]:
    """Curves of snapshots `[snapshots, seeds]` by arm, PPO's, and the means of the late ones."""
    name, fit = setting.config.name, setting.config.muzero
    evaluation = keys.derive(0, f"muzero/{name}/evaluate")
    lane_keys = keys.per_index(evaluation, jnp.array(experts.seeds_of(config)))
    play = partial(returns, setting, num_episodes=config.episodes, lane_keys=lane_keys)
    search, raw = player(setting, "search"), player(setting, "raw")
    per_chunk = fit.updates_per_chunk * fit.num_envs * fit.num_steps
    rows = experts.even_rows(fit.num_updates // fit.updates_per_chunk, config.num_snapshots + 1)
    steps = [fit.warmup_steps + per_chunk * int(row) for row in rows]
    kept = {n: snapshots(config, setting, n, folder) for n in TRAINED}
    chosen = {n: jax.tree.map(lambda x: x[rows], models) for n, models in kept.items()}
    played = {n: play(search, chosen[n]) for n in TRAINED} | {"raw": play(raw, chosen["muzero"])}
    curves = {n: {"steps": steps, "returns": x.tolist()} for n, x in played.items()}
    late = steps[-config.num_averaged], steps[-1]
    curves["ppo"] = _play_ppo(config, setting, folder, lane_keys)
    _paint(setting, search, jax.tree.map(lambda x: x[-1, 0], kept["muzero"]), folder, evaluation)
    return {
        "returns": {n: between(curve, *late) for n, curve in curves.items()}
        | {"untrained": curves["muzero"]["returns"][0]},
        "curves": curves,
        "ppo_final": curves["ppo"]["returns"][-1],
    }


def between(curve: dict[str, Any], first: float, last: float) -> list[float]:
    """Mean returns `[seeds]` of the snapshots after `first` to `last` env steps.

    One snapshot says little of a seed: policies of these agents come and go between them.
    """
    steps = np.array(curve["steps"])
    is_meant = (first <= steps) & (steps <= last)
    return np.array(curve["returns"])[is_meant].mean(0).tolist()


def _paint(setting: Setting, policy: Policy, model: Any, folder: Path, key: jax.Array) -> None:
    """An episode of the first seed's model, with search."""
    env, task = setting.env, setting.task
    show = jax.jit(lambda p, k: record(env, policy, p, task, k, env.max_steps))
    episode = jax.device_get(show(model, jax.random.fold_in(key, 1)))
    path = folder / "pictures" / f"muzero--{setting.config.name}.gif"
    pictures.write_episode(path, env, jax.device_get(task), episode, "muzero")


def _play_ppo(config: Config, setting: Setting, folder: Path, lane_keys: jax.Array) -> dict[str, Any]:
    """PPO's curve, as fine as MuZero's where both are compared."""
    task = setting.config
    env, params = flat_observations(setting.env, setting.task)
    place = stage_folder(folder, f"train/{task.name}/ppo")
    kept = experts.load_snapshots(place, env, task.ppo, config.num_seeds)
    policy = experts.as_policy(env, task.ppo, is_greedy=True)
    last = task.ppo.num_updates // task.ppo.updates_per_chunk
    early = np.arange(min(2 * (task.env_steps // task.ppo_chunk), last) + 1)
    rows = np.union1d(early, experts.even_rows(last, config.num_snapshots + 1))
    chosen = jax.tree.map(lambda x: x[rows], kept)
    flat = setting._replace(env=env, task=params)
    curve = returns(flat, policy, chosen, config.episodes, lane_keys)
    return {"steps": [task.ppo_chunk * int(row) for row in rows], "returns": curve.tolist()}


def steps_to(curve: dict[str, Any], anchor: float, never: float) -> list[float]:
    """Env steps `[seeds]` of the first snapshot that reaches a return; `never` where none does."""
    reached = np.array(curve["returns"]) >= anchor
    first = np.array(curve["steps"], float)[reached.argmax(0)]
    return np.where(reached.any(0), first, never).tolist()


def cost(config: Config, task: TaskConfig, name: str) -> Cost:
    """What training takes: the model once a simulation, and six times an unrolled state."""
    setting, fit = setting_of(task), task.muzero
    size = num_parameters(jax.eval_shape(setting.model.init, jax.random.key(0)))
    cells = int(np.prod(setting.env.obs_shape[:2])) if fit.model.trunk.channels else 1
    acted = task.env_steps * (fit.search.num_simulations + 1)
    states = fit.num_updates * fit.num_gradient_steps * fit.batch_size * (fit.unroll + 1)
    searched = states * fit.reanalyse * fit.search.num_simulations
    held = fit.capacity * (int(np.prod(setting.env.obs_shape)) + 8)
    flops = 2.0 * size * cells * (acted + searched + 6 * states) * config.num_seeds
    return Cost(f"train/{task.name}/{name}", size, flops, 4.0 * held * config.num_seeds, 0.03, 30.0)
