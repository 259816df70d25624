"""SPR on Atari: seeds in the lanes of one emulator, and the games they play at the end."""

import dataclasses
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.adapters import ale
from envs.pictures import caption
from experiments.atari100k.config import Config
from jaxagent import keys
from jaxagent.agents import actions, rainbow
from jaxagent.config import RainbowConfig
from jaxagent.data import frames
from jaxagent.evaluate import emulator
from jaxagent.report.render import write_gif
from jaxagent.study import value_agents
from jaxagent.study.agents import take
from jaxagent.study.study import Driven
from jaxagent.study.value_agents import ValuePlayer
from jaxagent.train import loops
from jaxagent.train.emulator_loop import EmulatorLoop
from jaxagent.types import RunState

DEPTH, *SIZE = ale.STACK
WHOLE_GAMES = {"episodic_life": False}  # a lost life ends games in training alone
FILM_STEPS, FILM_STRIDE = 900, 3  # agent steps of a film, at most, and from frame to frame


def fit_of(config: Config, agent: str) -> RainbowConfig:
    """How an arm is fitted; see `config.ARMS`."""
    fit = config.rainbow
    if agent == "rainbow":
        return value_agents.without_prediction(fit)
    if agent == "plain":
        spr, model = dataclasses.replace(fit.spr, tau=0.01), dataclasses.replace(fit.model, dropout=0.5)
        return dataclasses.replace(fit, is_augmented=False, spr=spr, model=model)
    return fit


def player_of(config: Config, name: str, agent: str, **options: Any) -> ValuePlayer:
    """What plays a game; `options` are the environment's."""
    (env, _), fit = envs.make(f"ale/{name}", **options), fit_of(config, agent)
    return ValuePlayer(env, rainbow.network_of((*SIZE, DEPTH), env.action_spec, fit), fit)


def seeds(config: Config) -> jax.Array:
    """Of every agent, `[N]`."""
    return jnp.array(tuple(config.seeds))


def as_entry(state: ale.AtariState, action: jax.Array, transition: Any) -> rainbow.Step:
    """What the replay keeps of a step of every lane."""
    t, kept = transition, frames.newest(state.obs, state.time)
    return rainbow.Step(kept, action, t.reward, t.terminated, t.truncated, t.valid)


def fit_stage(config: Config, name: str, agent: str) -> Driven:
    """A lane a seed; arms of a seed begin alike, in the same games. What acts is kept."""
    fit = fit_of(config, agent)
    acts_by = value_agents.acts_by(fit)

    def tell(state: RunState) -> dict[str, Any]:
        by_seed = np.asarray(state.learner.target.num_updates).tolist()
        counts = {"agent_steps": fit.num_updates, "updates": max(by_seed), "updates_by_seed": by_seed}
        # Of every lane; those that began games too.
        return counts | {"emulator_steps": int(state.shards.count)}

    return Driven(
        f"train/{name}/{agent}",
        partial(loop_of, config, name, agent),
        fit,
        lambda state: acts_by(state.learner),
        {"env_steps": len(config.seeds)},
        tell,
    )


def loop_of(config: Config, name: str, agent: str) -> EmulatorLoop:
    """All seeds in the lanes of one emulator."""
    env, _, fit = player_of(config, name, agent)
    purpose = f"atari100k/{name}"
    learner = rainbow.rainbow((*SIZE, DEPTH), env.obs_dtype, env.action_spec, fit)
    return EmulatorLoop(
        learner,
        env.vector(len(config.seeds)),
        value_agents.optimizer_of(learner, fit),
        fit,
        memory=rainbow.memory_of_frames(fit, DEPTH),
        explore=actions.uniform(env.action_spec),
        slow=loops.SlowCopy(*rainbow.copying(fit)),
        as_entry=as_entry,
        see=lambda state: frames.channels_last(state.obs),
        seeds=ale.seeds_of(keys.derive(0, f"{purpose}/emulator"), seeds(config)),
        lane_ids=seeds(config),
        key=keys.derive(0, f"{purpose}/train"),
        acts_by=value_agents.acts_by(fit),
    )


def evaluate(config: Config, name: str, fits: dict[str, Driven], folder: Path, place: Path) -> dict[str, Any]:
    """Returns of whole games by agent and seed, all in games of the same emulator seeds."""
    del place
    returns = {}
    for agent, fit in fits.items():
        player = player_of(config, name, agent, **WHOLE_GAMES)
        params = fit.load(folder, player.network.init)
        returns[agent] = play_games(config, player, name, params).tolist()
        about = {"arm": agent, "task": name, "seed": config.seeds.first, "overrides": WHOLE_GAMES}
        player.save(folder, take(params, 0), **about)
        film(config, player, name, params, folder / "pictures" / f"{agent}--{name}.gif")
    return {"returns": returns}


def play_games(config: Config, player: ValuePlayer, name: str, params: Any) -> np.ndarray:
    """Returns `[seeds, episodes]` of policies `params`, leaves `[seeds, ...]`."""
    key_games, key_act = jax.random.split(keys.derive(0, f"atari100k/{name}/evaluate"))
    seed_keys = keys.per_index(key_games, seeds(config))
    starts = jnp.concatenate([ale.lane_seeds(seed_key, config.eval_lanes) for seed_key in seed_keys])
    act = acting(config, player, params, key_act)
    count, num_seeds = config.episodes // config.eval_lanes, len(config.seeds)
    returns = emulator.returns(player.env.vector(num_seeds * config.eval_lanes), act, starts, count)
    return returns.T.reshape(num_seeds, config.eval_lanes * count)


def acting(config: Config, player: ValuePlayer, params: Any, key: jax.Array) -> Callable:
    """`act(obs [N E, ...], count)` of N policies with E lanes each, as `emulator.play` takes it."""
    policy, params = player.policy, jax.tree.map(jnp.asarray, params)
    num_seeds = jax.tree.leaves(params)[0].shape[0]
    lane_ids = seeds(config)[:num_seeds]

    @jax.jit
    def act(params: Any, obs: jax.Array, count: jax.Array) -> jax.Array:
        lanes = frames.channels_last(obs).reshape(num_seeds, -1, *SIZE, DEPTH)
        lane_keys = keys.per_index(jax.random.fold_in(key, count), lane_ids)
        is_first = jnp.zeros(lanes.shape[1:2], bool)
        act_lanes = jax.vmap(lambda p, o, k: policy.act(p, (), o, is_first, k)[0])
        return act_lanes(params, lanes, lane_keys).reshape(-1)

    return partial(act, params)


def film(config: Config, player: ValuePlayer, name: str, params: Any, path: Path) -> None:
    """The first seed's first game, or its beginning."""
    key_game, key_act = jax.random.split(keys.derive(0, f"atari100k/{name}/film"))
    act = acting(config, player, take(params, slice(1)), key_act)
    played = emulator.play(player.env.vector(1), act, ale.lane_seeds(key_game, 1))
    pictures, total = [], 0.0
    for step, (state, transition) in enumerate(islice(played, FILM_STEPS)):
        total += float(transition.reward[0])
        is_over = bool(transition.terminated[0] | transition.truncated[0])
        if step % FILM_STRIDE == 0 or is_over:
            lane = jax.tree.map(lambda x: np.asarray(x)[0], state)
            pictures.append(caption(player.env.render(lane, None), f"step {step + 1}  return {total:.0f}"))
        if is_over:
            break
    write_gif(path, pictures, fps=20)
