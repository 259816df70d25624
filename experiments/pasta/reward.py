"""Reward on top of T(s): offline RL on a stored history, PPO online.

Offline: TD3+BC and IQL learn from the whole history of the demonstrating agent, which no model was
pretrained on (`robots`, split "offline"). Online: PPO learns the task from nothing but its
rewards, with T(s), frozen, in the place of the observation.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Component
from envs.wrappers.wrapper import show, wrap
from experiments.pasta import conditions, imitation, pretraining
from experiments.pasta.config import Config, DomainConfig
from experiments.pasta.robots import RobotData
from jaxagent import keys
from jaxagent.agents.iql import iql
from jaxagent.agents.td3_bc import as_is, as_steps, td3_bc
from jaxagent.config import NUM_SHARDS
from jaxagent.data import normalize, replay
from jaxagent.data.replay import Replay
from jaxagent.evaluate.episodes import play_lanes
from jaxagent.study import agents, histories
from jaxagent.study.agents import stack, take
from jaxagent.study.study import Fit, Lanes
from jaxagent.train import optimizer
from jaxagent.train.offline_loop import offline_rl
from jaxagent.types import OfflineAgent, Policy

ALGORITHMS = {"td3_bc": td3_bc, "iql": iql}


class Arm(NamedTuple):
    """What an agent reads."""

    about: str
    has_features: bool = True  # T(s), or else raw observations
    is_pretrained: bool = True
    is_frozen: bool = False


ARMS = {
    "full": Arm("T(s) of the pretrained model, tuned by the critics"),
    "probe": Arm("T(s) of the pretrained model, frozen", is_frozen=True),
    "scratch": Arm("T(s) of the same network, first parameters random", is_pretrained=False),
    "mlp": Arm("raw observations", has_features=False, is_pretrained=False, is_frozen=True),
}


class Input(NamedTuple):
    """What an arm's agent reads, ready to be used."""

    encoder: Any  # (params, obs [..., n]) -> features [..., F]
    size: int
    params: Any  # of the encoder, [seeds, ...]; () for raw observations
    moments: Any  # to standardise raw observations; () where the tokenizer does


def read_by(
    config: Config, domain: DomainConfig, arm: Arm, data: dict[str, RobotData], folder: Path | None
) -> Input:
    """The input of an arm: T(s) or the raw observations."""
    robot, seeds = data[domain.name], config.adapt.seeds
    if not arm.has_features:
        return Input(as_is, len(robot.env.obs_spec), (), imitation.raw_moments(robot))
    reader = pretraining.reader_of(config, config.main, data)
    features = pretraining.features_of(config, reader, domain.name)
    tokens = reader.tokenizer(domain.name)
    if arm.is_pretrained:
        first = pretraining.pretrained(config, reader, folder, config.main.name)
    else:
        init = jax.jit(reader.model.init)
        first = [init(keys.derive(seed, f"reward/{domain.name}/scratch")) for seed in seeds]

    def encoder(params: Any, obs: jax.Array) -> jax.Array:
        return features(params, tokens.unit_of_obs(obs))

    return Input(encoder, pretraining.feature_size(config, reader, domain.name), stack(first), ())


def fits_of(config: Config, domain: DomainConfig) -> list[Fit]:
    """Learning from rewards on top of T(s), where it is asked for."""
    offline = [
        Fit(
            f"offline/{domain.name}/{algorithm}/{arm}",
            partial(_offline, config, domain, algorithm, ARMS[arm]),
        )
        for algorithm in config.reward.offline
        for arm in config.reward.arms
    ]
    online = [
        Fit(f"online/{domain.name}/{arm}", partial(_online, config, domain, ARMS[arm]))
        for arm in config.reward.online_arms
    ]
    return offline + online


# --- offline ----------------------------------------------------------------------------------


def _offline(config: Config, domain: DomainConfig, algorithm: str, arm: Arm, folder: Path | None) -> Lanes:
    """One arm's seeds as lanes; all arms of a seed draw the same transitions."""
    data = pretraining.load(config, folder)
    robot, settings = data[domain.name], getattr(config.reward, algorithm)
    read, purpose = read_by(config, domain, arm, data, folder), f"offline/{domain.name}"
    make = ALGORITHMS[algorithm]
    spec = robot.env.action_spec
    agent: OfflineAgent = make(read.size, spec, settings, encoder=read.encoder, is_frozen=arm.is_frozen)
    sample = partial(replay.sample, batch_size=settings.batch_size // NUM_SHARDS)
    ids = jnp.array(tuple(config.adapt.seeds))
    first_key = keys.derive(config.seed, f"{purpose}/init")

    def begin(lane_keys: jax.Array, encoder: Any, moments: Any) -> tuple:
        init = jax.vmap(agent.init)
        return init(lane_keys, encoder) if arm.has_features else init(lane_keys), moments

    def inputs() -> tuple:
        moments = jax.tree.map(
            lambda x: jnp.broadcast_to(jnp.asarray(x), (len(ids), *jnp.shape(x))), read.moments
        )
        return keys.per_index(first_key, ids), read.params, moments

    def tell(params: Any) -> dict[str, Any]:
        return {"returns": _play(config, domain, robot, agent.policy, params, read.moments)}

    return Lanes(
        offline_rl(agent, sample, optimizer.plain_adam(settings.learning_rate), settings.tau),
        inputs,
        settings,
        keys.derive(config.seed, purpose),
        begin=begin,
        ids=tuple(config.adapt.seeds),
        data=as_replay(robot),
        keep=lambda learner: learner.params._replace(critics=()),
        units={"transitions": settings.batch_size},
        tell=tell,
    )


def as_replay(data: RobotData) -> Replay:
    """The offline history as a full replay."""
    steps = [
        jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), as_steps(t, data.env.action_spec))
        for t in data.offline
    ]
    whole = jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x)), *steps)
    count = jax.tree.leaves(whole)[0].shape[0]
    return Replay(whole, jnp.asarray(count, jnp.int32))


def _play(
    config: Config, domain: DomainConfig, robot: RobotData, policy: Policy, params: Any, moments: Any
) -> list[float]:
    """Mean returns `[seeds]` on the first states that imitation meets too."""

    def act(params: Any, carry: Any, obs: jax.Array, is_first: jax.Array, key: jax.Array) -> tuple:
        obs = obs.reshape(obs.shape[0], -1)
        if not isinstance(moments, tuple) or moments:
            obs = normalize.apply(moments, obs)
        return policy.act(params, carry, obs, is_first, key)

    acting = Policy(policy.init, act)
    run = jax.jit(lambda p, k: play_lanes(robot.env, acting, p, robot.task, k, config.adapt.episodes))
    return np.asarray(run(params, conditions.seed_keys(config, domain))).tolist()


# --- online -----------------------------------------------------------------------------------


def _online(config: Config, domain: DomainConfig, arm: Arm, folder: Path | None) -> Lanes:
    """PPO from rewards alone; T(s) is the observation, frozen, or the observation is itself.

    One pretraining serves all seeds of PPO: the environment, which shows T(s), is one program.
    """
    data = pretraining.load(config, folder)
    robot = data[domain.name]
    env, task = robot.env, robot.task
    if arm.has_features:
        env, task = see_through(robot, read_by(config, domain, arm, data, folder))
    tasks, ppo = [task] * len(config.adapt.seeds), config.reward.ppo

    def tell(snapshots: Any) -> dict[str, Any]:
        policy, key = (
            agents.as_policy(env, ppo, is_greedy=False),
            keys.derive(config.seed, f"online/{domain.name}"),
        )
        found = histories.mean_returns(env, policy, snapshots, tasks, config.adapt.episodes, key)
        return {"returns": found.tolist()}

    lanes = agents.population("", env, tasks, ppo, config.adapt.seeds.first).lanes(folder)
    return dataclasses.replace(lanes, tell=tell)


def see_through(robot: RobotData, read: Input) -> tuple[Any, Any]:
    """The environment whose observation is T(s) of the first pretraining."""
    params = jax.tree.map(jnp.asarray, take(read.params, 0))

    def seen(nothing: Any, obs: jax.Array) -> jax.Array:
        del nothing
        return read.encoder(params, obs.reshape(-1))

    spec = tuple(Component(f"feature[{i}]", "real") for i in range(read.size))
    shape = {"obs_spec": spec, "obs_shape": (read.size,), "obs_dtype": np.float32}
    return wrap(robot.env, robot.task, (), "T(s)", **show(seen), **shape)
