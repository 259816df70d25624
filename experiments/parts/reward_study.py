"""Reward on top of T(s): offline RL on a stored history, PPO online; part of the PASTA study.

Offline: TD3+BC and IQL learn from the whole history of the demonstrating agent, which no model was
pretrained on (`robot_data`, split "offline"). Online: PPO learns the task from nothing but its
rewards, with T(s), frozen, in the place of the observation.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Component
from envs.wrappers.wrapper import show, wrap
from experiments.configs.pasta import Config, DomainConfig
from experiments.parts import conditions, experts, imitation, pasta_study
from experiments.parts.experts import stack
from experiments.parts.robot_data import RobotData
from jaxagent import keys
from jaxagent.agents.iql import iql
from jaxagent.agents.td3_bc import as_is, as_steps, td3_bc
from jaxagent.data import normalize, replay, tree_file
from jaxagent.data.replay import Replay
from jaxagent.evaluate.episodes import play_lanes
from jaxagent.train import loops, optimizer, parallel
from jaxagent.train.offline_loop import offline_rl
from jaxagent.train.run import Work
from jaxagent.types import OfflineAgent, Policy

POLICY = "policy.npz"
ALGORITHMS = {"td3_bc": td3_bc, "iql": iql}
# What an agent reads and whether it is pretrained and learns: (description, pretrained, frozen).
ARMS = {
    "full": ("T(s) of the pretrained model, tuned by the critics", True, False),
    "probe": ("T(s) of the pretrained model, frozen", True, True),
    "scratch": ("T(s) of the same network, first parameters random", False, False),
    "mlp": ("raw observations", False, True),
}


class Input(NamedTuple):
    """What an arm's agent reads."""

    encoder: Any  # (params, obs [..., n]) -> features [..., F]
    size: int
    params: Any  # of the encoder, [seeds, ...]; () for raw observations
    moments: Any  # to standardise raw observations; () where the tokenizer does


def read_by(
    config: Config, domain: DomainConfig, arm: str, data: dict[str, RobotData], folder: Path
) -> Input:
    """The input of an arm: T(s) or the raw observations."""
    own = data[domain.name]
    if arm == "mlp":
        return Input(as_is, len(own.env.obs_spec), (), imitation.raw_moments(own))
    study = pasta_study.study_of(config, config.main, data)
    features = pasta_study.features_of(config, study, domain.name)
    tokens = study.tokenizer(domain.name)
    is_pretrained = ARMS[arm][1]

    def first(seed: int) -> Any:
        if is_pretrained:
            return pasta_study.pretrained(config, study, folder, config.main.name, seed)
        return jax.jit(study.model.init)(keys.derive(seed, f"reward/{domain.name}/scratch"))

    def encoder(params: Any, obs: jax.Array) -> jax.Array:
        return features(params, tokens.unit_of_obs(obs))

    size = pasta_study.feature_size(config, study, domain.name)
    return Input(encoder, size, stack([first(s) for s in pasta_study.seeds(config)]), ())


# --- offline ----------------------------------------------------------------------------------


def agent_of(config: Config, domain: DomainConfig, algorithm: str, arm: str, read: Input, env: Any):
    """The offline agent of an arm."""
    del domain
    settings = getattr(config.reward, algorithm)
    return ALGORITHMS[algorithm](
        read.size, env.action_spec, settings, encoder=read.encoder, is_frozen=ARMS[arm][2]
    )


def learn_offline(config: Config, domain: DomainConfig, algorithm: str, arm: str, folder: Path) -> Work:
    """One arm's seeds as lanes; all arms of a seed draw the same transitions."""
    data = pasta_study.load(config, folder)
    own, settings = data[domain.name], getattr(config.reward, algorithm)
    read = read_by(config, domain, arm, data, folder)
    agent: OfflineAgent = agent_of(config, domain, algorithm, arm, read, own.env)
    sample = partial(replay.sample, batch_size=settings.batch_size // 4)
    adam = optimizer.plain_adam(settings.learning_rate)
    ids = jnp.array(pasta_study.seeds(config))
    loop = loops.lanes(offline_rl(agent, sample, adam, settings.tau), lane_ids=ids)
    stored = as_replay(own)
    chunk = parallel.chunked(loop, settings.updates_per_chunk, config.runtime.devices, stored)
    key = keys.derive(config.seed, f"offline/{domain.name}")

    def first() -> Any:
        lane_keys = keys.per_index(keys.derive(config.seed, f"offline/{domain.name}/init"), ids)
        if isinstance(read.params, tuple):
            params = jax.vmap(agent.init)(lane_keys)
        else:
            params = jax.vmap(agent.init)(lane_keys, read.params)
        moments = jax.tree.map(
            lambda x: jnp.broadcast_to(jnp.asarray(x), (len(ids), *jnp.shape(x))), read.moments
        )
        return parallel.first_state(*loop.init(params, moments))

    def finish(state: Any, place: Path) -> dict[str, Any]:
        params = state.learner.params
        tree_file.save(place / POLICY, (params.actor, params.encoder))
        kept = params._replace(critics=())
        found = _play(config, domain, own, agent.policy, kept, read.moments)
        return {"returns": found}

    return Work(
        finish=finish,
        init=jax.jit(first),
        chunk=lambda state: chunk(state, key),
        num_chunks=settings.num_updates // settings.updates_per_chunk,
        updates_per_chunk=settings.updates_per_chunk,
        units_per_update={"transitions": settings.batch_size * config.adapt.num_seeds},
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
    config: Config, domain: DomainConfig, own: RobotData, policy: Policy, params: Any, moments: Any
) -> list[float]:
    """Mean returns `[seeds]` on the first states that imitation meets too."""

    def act(params, carry, obs, is_first, key):
        obs = obs.reshape(obs.shape[0], -1)
        if not isinstance(moments, tuple) or moments:
            obs = normalize.apply(moments, obs)
        return policy.act(params, carry, obs, is_first, key)

    run = jax.jit(
        lambda p, k: play_lanes(own.env, Policy(policy.init, act), p, own.task, k, config.adapt.episodes)
    )
    return np.asarray(run(params, conditions.seed_keys(config, domain))).tolist()


# --- online -----------------------------------------------------------------------------------


def learn_online(config: Config, domain: DomainConfig, arm: str, folder: Path) -> Work:
    """PPO from rewards alone; T(s) is the observation, frozen, or the observation is itself.

    One pretraining serves all seeds of PPO: the environment, which shows T(s), is one program.
    """
    data = pasta_study.load(config, folder)
    own = data[domain.name]
    read = read_by(config, domain, arm, data, folder)
    env, task = own.env, own.task
    if arm != "mlp":
        env, task = see_through(own, read)
    tasks = [task] * config.adapt.num_seeds
    work = experts.train(env, tasks, config.reward.ppo, config.adapt.first_seed, config.runtime.devices)

    def finish(state: Any, place: Path) -> dict[str, Any]:
        work.finish(state, place)
        snapshots = state.learner.snapshots
        policy = experts.as_policy(env, config.reward.ppo, is_greedy=False)
        found = experts.mean_returns(
            env,
            policy,
            snapshots,
            tasks,
            config.adapt.episodes,
            keys.derive(config.seed, f"online/{domain.name}"),
        )
        return {"returns": found.tolist()}

    return work._replace(finish=finish)


def see_through(own: RobotData, read: Input) -> tuple[Any, Any]:
    """The environment whose observation is T(s) of the first pretraining."""
    params = jax.tree.map(lambda x: jnp.asarray(x[0]), read.params)

    def seen(nothing: Any, obs: jax.Array) -> jax.Array:
        del nothing
        return read.encoder(params, obs.reshape(-1))

    spec = tuple(Component(f"feature[{i}]", "real") for i in range(read.size))
    return wrap(
        own.env,
        own.task,
        (),
        "T(s)",
        **show(seen),
        obs_spec=spec,
        obs_shape=(read.size,),
        obs_dtype=np.float32,
    )
