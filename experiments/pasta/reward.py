"""Reward on top of T(s): offline RL on a stored history, PPO online.

Offline: TD3+BC and IQL learn from the whole history of the demonstrating agent, which no model was
pretrained on (`robots`, split "offline"). Online: PPO learns the task from nothing but its
rewards, with T(s), frozen, in the place of the observation.
"""

import dataclasses
import itertools
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Component
from envs.wrappers.wrapper import show, wrap
from experiments.pasta import conditions, imitation, pretraining
from experiments.pasta.config import ArmConfig, Config, DomainConfig
from experiments.pasta.robots import RobotData
from jaxagent import keys
from jaxagent.agents.iql import iql
from jaxagent.agents.td3_bc import as_is, as_steps, td3_bc
from jaxagent.config import NUM_SHARDS
from jaxagent.data import normalize, replay
from jaxagent.study import agents, histories
from jaxagent.study.agents import stack, take
from jaxagent.study.study import Fit, Lanes
from jaxagent.train import loops, optimizer
from jaxagent.types import OfflineAgent, Policy

ALGORITHMS = {"td3_bc": td3_bc, "iql": iql}


class Input(NamedTuple):
    """What an arm's agent reads, ready to be used."""

    encoder: Any  # (params, obs [..., n]) -> features [..., F]
    size: int
    params: Any  # of the encoder, [seeds, ...]; () for raw observations
    moments: Any  # to standardise raw observations; () where the tokenizer does


def read_by(
    config: Config, domain: DomainConfig, arm: ArmConfig, data: dict[str, RobotData], folder: Path | None
) -> Input:
    """The input of an arm: T(s) or the raw observations."""
    robot, name = data[domain.name], domain.name
    if arm.method == "raw":
        return Input(as_is, len(robot.env.obs_spec), (), imitation.raw_moments(robot))
    reader = pretraining.reader_of(config, config.main, data)
    features, tokens = reader.features(name), reader.tokenizers[name]
    fresh = "" if arm.is_pretrained else f"reward/{name}/scratch"
    first = pretraining.networks(config, reader, folder, fresh)

    def encoder(params: Any, obs: jax.Array) -> jax.Array:
        return features(params, tokens.unit_of_obs(obs))

    return Input(encoder, reader.size(name), stack(first), ())


def fits_of(config: Config, domain: DomainConfig) -> list[Fit]:
    """Learning from rewards on top of T(s), where it is asked for."""
    fits, arms = [], config.all_arms
    for algorithm, arm in itertools.product(config.reward.offline, config.reward.arms):
        lanes = partial(_offline, config, domain, algorithm, arms[arm])
        fits.append(Fit(f"offline/{domain.name}/{algorithm}/{arm}", lanes))
    for arm in config.reward.online_arms:
        fits.append(Fit(f"online/{domain.name}/{arm}", partial(_online, config, domain, arms[arm])))
    return fits


# --- offline ----------------------------------------------------------------------------------


def _offline(
    config: Config, domain: DomainConfig, algorithm: str, arm: ArmConfig, folder: Path | None
) -> Lanes:
    """One arm's seeds as lanes; all arms of a seed draw the same transitions."""
    data = pretraining.load(config, folder)
    robot, settings = data[domain.name], getattr(config.reward, algorithm)
    read, purpose = read_by(config, domain, arm, data, folder), f"offline/{domain.name}"
    make, spec, ids = ALGORITHMS[algorithm], robot.env.action_spec, tuple(config.adapt.seeds)
    is_frozen = arm.method in ("probe", "raw")
    agent: OfflineAgent = make(read.size, spec, settings, encoder=read.encoder, is_frozen=is_frozen)
    sample = partial(replay.sample, batch_size=settings.batch_size // NUM_SHARDS)
    first_key = keys.derive(config.seed, f"{purpose}/init")

    def begin(lane_keys: jax.Array, encoder: Any) -> tuple:
        return (jax.vmap(agent.init)(lane_keys, encoder),)

    def tell(params: Any) -> dict[str, Any]:
        policy, arena = _reading(agent.policy, read.moments), conditions.arena(config, domain, robot)
        return {"returns": arena.returns(policy, params).tolist()}

    return Lanes(
        loops.offline_rl(agent, sample, optimizer.plain_adam(settings.learning_rate), settings.tau),
        lambda: (keys.per_index(first_key, jnp.array(ids)), read.params),
        settings,
        keys.derive(config.seed, purpose),
        begin=begin,
        ids=ids,
        data=as_replay(robot, read.moments),
        keep=lambda learner: learner.params._replace(critics=()),
        units={"transitions": settings.batch_size},
        tell=tell,
    )


def as_replay(robot: RobotData, moments: Any) -> replay.Replay:
    """The offline history as a full replay; its observations are standardised where there are moments."""
    parts = [replay.flat(jax.device_get(as_steps(t, robot.env.action_spec))) for t in robot.offline]
    steps = jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x)), *parts)
    if moments:
        see = partial(normalize.apply, moments)
        steps = steps._replace(obs=see(steps.obs), final_obs=see(steps.final_obs))
    return replay.full(steps)


def _reading(policy: Policy, moments: Any) -> Policy:
    """A policy of observations of any shape, standardised where there are moments."""

    def act(params: Any, carry: Any, obs: jax.Array, is_first: jax.Array, key: jax.Array) -> tuple:
        obs = obs.reshape(obs.shape[0], -1)
        if moments:
            obs = normalize.apply(moments, obs)
        return policy.act(params, carry, obs, is_first, key)

    return Policy(policy.init, act)


# --- online -----------------------------------------------------------------------------------


def _online(config: Config, domain: DomainConfig, arm: ArmConfig, folder: Path | None) -> Lanes:
    """PPO from rewards alone; T(s) is the observation, frozen, or the observation is itself.

    One pretraining serves all seeds of PPO: the environment, which shows T(s), is one program.
    """
    data = pretraining.load(config, folder)
    robot, ppo, seeds = data[domain.name], config.reward.ppo, config.adapt.seeds
    env, task = robot.env, robot.task
    if arm.method != "raw":
        env, task = see_through(robot, read_by(config, domain, arm, data, folder))
    tasks = [task] * len(seeds)

    def tell(snapshots: Any) -> dict[str, Any]:
        policy = agents.as_policy(env, ppo, is_greedy=False)
        key = keys.derive(config.seed, f"online/{domain.name}")
        returns = histories.mean_returns(env, policy, snapshots, tasks, config.adapt.episodes, key)
        return {"returns": returns.tolist()}

    lanes = agents.population("", env, tasks, ppo, seeds.first).lanes(folder)
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
