"""SPR on Atari: seeds in the lanes of one emulator, and the games they play at the end."""

import dataclasses
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.adapters import ale
from envs.pictures import caption
from experiments.atari100k.config import Config
from jaxagent import keys, library
from jaxagent.agents import rainbow
from jaxagent.config import RainbowConfig
from jaxagent.data import frames
from jaxagent.evaluate import emulator
from jaxagent.nn.q_network import QNetwork
from jaxagent.report.render import write_gif
from jaxagent.study import value_agents
from jaxagent.study.agents import take
from jaxagent.study.study import Driven
from jaxagent.train import loops
from jaxagent.train.emulator_loop import EmulatorLoop
from jaxagent.types import RunState

DEPTH, *SIZE = ale.STACK
FILM_STEPS, FILM_STRIDE = 900, 3  # agent steps of a film, at most, and from frame to frame


class Game(NamedTuple):
    """One game and the network that learns it."""

    env: Any
    network: QNetwork
    fit: RainbowConfig


def fit_of(config: Config, agent: str) -> RainbowConfig:
    """How an arm is fitted; see `config.ARMS`."""
    fit, spr = config.rainbow, config.rainbow.spr
    if agent == "rainbow":
        return dataclasses.replace(fit, spr=dataclasses.replace(spr, weight=0.0))
    if agent == "plain":
        spr, model = dataclasses.replace(spr, tau=0.01), dataclasses.replace(fit.model, dropout=0.5)
        return dataclasses.replace(fit, is_augmented=False, spr=spr, model=model)
    return fit


def game_of(config: Config, name: str, agent: str, **options: Any) -> Game:
    """Build game and network."""
    env, _ = envs.make(f"ale/{name}", **options)
    fit = fit_of(config, agent)
    return Game(env, rainbow.network_of((*SIZE, DEPTH), env.action_spec, fit), fit)


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
        counted = np.asarray(state.learner.target.num_updates).tolist()  # by seed
        return {
            "agent_steps": fit.num_updates,
            "updates": max(counted),
            "updates_by_seed": counted,
            "emulator_steps": int(state.shards.count),  # of every lane; those that began games too
        }

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
    env, _, fit = game_of(config, name, agent)
    purpose = f"atari100k/{name}"
    learner = rainbow.rainbow((*SIZE, DEPTH), env.obs_dtype, env.action_spec, fit)
    return EmulatorLoop(
        learner,
        env.vector(len(config.seeds)),
        value_agents.optimizer_of(learner, fit),
        fit,
        memory=rainbow.memory_of_frames(fit, DEPTH),
        explore=rainbow.uniform(env.action_spec),
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
    found = {}
    for agent, fit in fits.items():
        game = game_of(config, name, agent, episodic_life=False)
        params = fit.load(folder, game.network.init)
        found[agent] = play_games(config, game, name, params).tolist()
        about = value_agents.describe(
            game.env,
            game.network,
            game.fit,
            arm=agent,
            task=name,
            seed=config.seeds.first,
            overrides={"episodic_life": False},
            is_stack=True,
        )
        library.save(folder, about, take(params, 0))
        film(config, game, name, params, folder / "pictures" / f"{agent}--{name}.gif")
    return {"returns": found}


def play_games(config: Config, game: Game, name: str, params: Any) -> np.ndarray:
    """Returns `[seeds, episodes]` of policies `params`, leaves `[seeds, ...]`."""
    key_games, key_act = jax.random.split(keys.derive(0, f"atari100k/{name}/evaluate"))
    each = partial(ale.lane_seeds, num_lanes=config.eval_lanes)
    starts = jnp.concatenate([each(lane_key) for lane_key in keys.per_index(key_games, seeds(config))])
    act = acting(config, game, params, key_act)
    count, num_seeds = config.episodes // config.eval_lanes, len(config.seeds)
    returns = emulator.returns(game.env.vector(num_seeds * config.eval_lanes), act, starts, count)
    return returns.T.reshape(num_seeds, config.eval_lanes * count)


def acting(config: Config, game: Game, params: Any, key: jax.Array) -> Callable:
    """`act(obs [N E, ...], count)` of N policies with E lanes each, as `emulator.play` takes it."""
    policy = rainbow.policy(game.network, game.fit)
    params = jax.tree.map(jnp.asarray, params)
    num_seeds = jax.tree.leaves(params)[0].shape[0]
    lane_ids = seeds(config)[:num_seeds]

    @jax.jit
    def act(params: Any, obs: jax.Array, count: jax.Array) -> jax.Array:
        lanes = frames.channels_last(obs).reshape(num_seeds, -1, *SIZE, DEPTH)
        lane_keys = keys.per_index(jax.random.fold_in(key, count), lane_ids)
        is_first = jnp.zeros(lanes.shape[1:2], bool)
        actions = jax.vmap(lambda p, o, k: policy.act(p, (), o, is_first, k)[0])
        return actions(params, lanes, lane_keys).reshape(-1)

    return partial(act, params)


def film(config: Config, game: Game, name: str, params: Any, path: Path) -> None:
    """The first seed's first game, or its beginning."""
    key_game, key_act = jax.random.split(keys.derive(0, f"atari100k/{name}/film"))
    act = acting(config, game, take(params, slice(1)), key_act)
    played = emulator.play(game.env.vector(1), act, ale.lane_seeds(key_game, 1))
    pictures, total = [], 0.0
    for step, (state, transition) in enumerate(islice(played, FILM_STEPS)):
        total += float(transition.reward[0])
        is_over = bool(transition.terminated[0] | transition.truncated[0])
        if step % FILM_STRIDE == 0 or is_over:
            lane = jax.tree.map(lambda x: np.asarray(x)[0], state)
            pictures.append(caption(game.env.render(lane, None), f"step {step + 1}  return {total:.0f}"))
        if is_over:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gif(path, pictures, fps=20)
