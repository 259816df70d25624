"""Rainbow with self-prediction and without: training in lanes of seeds, and how they play."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.vector import VectorEnv
from experiments.configs.spr import Config, TaskConfig
from experiments.parts import experts, pictures, spr_study
from experiments.parts.cost import Cost
from jaxagent import keys, library
from jaxagent.agents import rainbow
from jaxagent.config import RainbowConfig, to_dict
from jaxagent.data.prioritized import prioritized_windows
from jaxagent.evaluate.episodes import play_lanes, record
from jaxagent.nn.q_network import QNetwork
from jaxagent.nn.transformer import num_parameters
from jaxagent.train import loops, optimizer, parallel
from jaxagent.train.run import Work, stage_folder

AGENTS = ("rainbow + spr", "rainbow")


class Setting(NamedTuple):
    """One game and the network that learns it."""

    config: TaskConfig
    env: Any
    task: Any
    network: QNetwork


def setting_of(config: TaskConfig) -> Setting:
    """Build game and network."""
    env, task = envs.make(config.env)
    network = rainbow.network_of(env.obs_shape, env.action_spec, config.rainbow)
    return Setting(config, env, task, network)


def fit_of(config: TaskConfig, name: str) -> RainbowConfig:
    """How one of `AGENTS` is fitted; the twin has the same parameters, and no loss on them."""
    spr = config.rainbow.spr
    weight = spr.weight if name == "rainbow + spr" else 0.0
    return dataclasses.replace(config.rainbow, spr=dataclasses.replace(spr, weight=weight))


def rainbow_loop(env: Any, config: RainbowConfig) -> experts.Algorithm:
    """Agent and loop on one pure environment of boards."""
    agent = rainbow.rainbow(env.obs_shape, env.obs_dtype, env.action_spec, config)
    acts_by = acts_by_of(config)
    loop = loops.replay(
        agent,
        VectorEnv(env),
        optimizer_of(agent, config),
        config,
        explore=rainbow.uniform(env.action_spec),
        # Boards are 0 or 1: a byte a cell.
        as_steps=partial(rainbow.as_steps, dtype=jnp.bool_),
        slow=loops.SlowCopy(*rainbow.copying(config)),
        memory=prioritized_windows(config.window, config.priority_exponent),
        acts_by=acts_by,
        is_normalized=False,
    )
    env_steps = config.num_envs * config.num_steps
    return experts.Algorithm(agent, loop, acts_by, env_steps)  # what acts is what is evaluated


def optimizer_of(agent: Any, config: RainbowConfig) -> Any:
    """Adam, and resets where there are any."""
    optimiser = optimizer.rainbow_adam(config)
    if not config.num_resets:
        return optimiser
    shares, resets = optimizer.rainbow_shares(config), partial(rainbow.is_reset_after, config)
    return optimizer.with_resets(optimiser, agent.init, resets, shares)


def acts_by_of(config: RainbowConfig) -> Callable[[loops.Learner], Any]:
    """What acts, and is evaluated."""
    return _slow_network if config.acts_by_target else loops.params_of


def _slow_network(learner: loops.Learner) -> Any:
    """What SR-SPR and BBF act by."""
    return rainbow.followed(learner.target.q, learner.params)


def train(config: Config, task: TaskConfig, name: str) -> Work:
    """A lane a seed; agents of a seed begin alike and draw alike."""
    setting, fit = setting_of(task), fit_of(task, name)
    return experts.train_seeds(
        rainbow_loop(setting.env, fit),
        setting.task,
        fit,
        experts.seeds_of(config),
        f"rainbow/{task.name}",
        config.runtime.devices,
    )


def evaluate(config: Config, task: TaskConfig, folder: Path) -> dict[str, Any]:
    """Returns `[snapshots][seeds]` of both agents in the same episodes, and a film."""
    setting, fit = setting_of(task), task.rainbow
    key = keys.derive(0, f"rainbow/{task.name}/evaluate")
    lane_keys = keys.per_index(key, jnp.array(experts.seeds_of(config)))
    policy = rainbow.policy(setting.network, fit)
    numbers, data = {}, measured_data(config, setting)
    run = partial(
        play_lanes,
        setting.env,
        policy,
        task=setting.task,
        lane_keys=lane_keys,
        num_episodes=config.episodes,
        over=parallel.map_lanes,
    )
    every = jax.jit(partial(parallel.map_lanes, run))
    returns = {}
    for name in AGENTS:
        place = stage_folder(folder, f"train/{task.name}/{name}")
        kept = experts.load_lanes(place, setting.network.init, fit, config.num_seeds)
        returns[name] = np.asarray(every(kept)).tolist()
        numbers[name] = diagnoses(setting, kept, data)
        last = jax.tree.map(lambda x: x[-1, 0], kept)
        about = describe_policy(setting, fit_of(task, name), arm=name, task=task.name, seed=config.first_seed)
        library.save(folder, about, last)
        _paint(setting, name, policy, last, folder, jax.random.fold_in(key, 1))
    per_chunk = fit.updates_per_chunk * fit.num_envs * fit.num_steps
    count = fit.num_updates // fit.updates_per_chunk + 1
    steps = [fit.warmup_steps + i * per_chunk for i in range(count)]
    return {"steps": steps, "returns": returns, "diagnoses": numbers}


def describe_policy(
    setting: Any,
    fit: RainbowConfig,
    *,
    arm: str,
    task: str,
    seed: int,
    overrides: dict[str, Any] | None = None,
    is_stack: bool = False,
) -> library.ValueDescription:
    """What `library.load` needs to rebuild a policy; `setting` has `env` and `network`."""
    return library.ValueDescription(
        arm=arm,
        task=task,
        env=setting.env.name,
        overrides=overrides or {},
        seed=seed,
        obs_shape=list(setting.network.obs_shape),
        is_stack=is_stack,
        num_actions=setting.network.net.num_actions,
        config=to_dict(fit),
    )


def measured_data(config: Config, setting: Setting) -> spr_study.Measured:
    """States of random play, and what is true of them."""
    probe = dataclasses.replace(config.probe, env=setting.config.env)
    place = spr_study.Setting(setting.env, setting.task, probe)
    return spr_study.measured_play(place, lambda obs: obs)


def diagnoses(setting: Setting, kept: Any, data: spr_study.Measured) -> dict[str, Any]:
    """Numbers `[snapshots][seeds]` by name, of networks `[snapshots, seeds]`; probes: `[m]` more.

    They are of the head's hidden units, which are what self-prediction compares; the twin's
    predictor never learns, so that its predictions mean nothing.
    """
    network = setting.network

    def one(params: Any) -> dict[str, Any]:
        latent = network.encode(params, data.obs)
        hidden = network.project(params, latent)
        return spr_study.diagnosed(network, params, params, data, latent, hidden)

    every = jax.jit(lambda kept: jax.lax.map(lambda lanes: jax.lax.map(one, lanes), kept))
    return jax.tree.map(lambda x: x.tolist(), jax.device_get(every(kept)))


def _paint(setting: Setting, name: str, policy: Any, params: Any, folder: Path, key: jax.Array) -> None:
    """An episode of the first seed's agent."""
    env, task = setting.env, setting.task
    show = jax.jit(lambda p, k: record(env, policy, p, task, k, env.max_steps))
    path = folder / "pictures" / f"{name}--{setting.config.name}.gif"
    episode = jax.device_get(show(params, key))
    pictures.write_episode(path, env, jax.device_get(task), episode, name)


def cost(config: Config, task: TaskConfig, name: str) -> Cost:
    """What training takes: the network three times a fitted state; acting is little beside it.

    A convolution counts once a place of the board, a dense layer once.
    """
    setting, fit = setting_of(task), fit_of(task, name)
    shapes = jax.tree.leaves(jax.eval_shape(setting.network.init, jax.random.key(0)))
    places = int(np.prod(setting.env.obs_shape[:2]))
    products = sum(x.size * (places if x.ndim == 4 else 1) for x in shapes)
    states = fit.batch_size * (3 + (4 * fit.spr.num_steps if fit.spr.weight else 0))
    fitted = fit.total_gradient_steps * states * config.num_seeds
    held = config.num_seeds * fit.capacity * int(np.prod(setting.env.obs_shape))
    size = num_parameters(shapes)
    return Cost(f"train/{task.name}/{name}", size, 2.0 * products * fitted, held, 0.3, 60.0)
