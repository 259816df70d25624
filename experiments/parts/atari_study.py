"""SPR on Atari: seeds in the lanes of an emulator, and the games they play at the end."""

import dataclasses
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
from experiments.configs.atari100k import FRAME, Config
from experiments.parts import experts, rainbow_study
from experiments.parts.cost import Cost
from jaxagent import keys, library
from jaxagent.agents import rainbow
from jaxagent.config import RainbowConfig
from jaxagent.data import frames, tree_file
from jaxagent.evaluate import emulator
from jaxagent.nn.q_network import QNetwork
from jaxagent.nn.transformer import num_parameters
from jaxagent.report.render import write_gif
from jaxagent.train import loops
from jaxagent.train.emulator_loop import EmulatorLoop
from jaxagent.train.run import Work, stage_folder

PARAMS = "params.npz"
DEPTH, *SIZE = ale.STACK
FILM_STEPS, FILM_STRIDE = 900, 3  # agent steps of a film, at most, and from frame to frame


class Setting(NamedTuple):
    """One game and the network that learns it."""

    env: Any
    network: QNetwork
    fit: RainbowConfig


def fit_of(config: Config, agent: str) -> RainbowConfig:
    """How an arm is fitted; see `configs.atari100k.ARMS`."""
    fit, spr = config.rainbow, config.rainbow.spr
    if agent == "rainbow":
        return dataclasses.replace(fit, spr=dataclasses.replace(spr, weight=0.0))
    if agent == "plain":
        return dataclasses.replace(
            fit,
            is_augmented=False,
            spr=dataclasses.replace(spr, tau=0.01),
            model=dataclasses.replace(fit.model, dropout=0.5),
        )
    return fit


def setting_of(config: Config, game: str, agent: str, **options: Any) -> Setting:
    """Build game and network."""
    env, _ = envs.make(f"ale/{game}", **options)
    fit = fit_of(config, agent)
    return Setting(env, rainbow.network_of((*SIZE, DEPTH), env.action_spec, fit), fit)


def seeds(config: Config) -> jax.Array:
    """Of every agent, `[N]`."""
    return jnp.array(experts.seeds_of(config))


def as_entry(state: ale.AtariState, action: jax.Array, transition: Any) -> rainbow.Step:
    """What the replay keeps of a step of every lane."""
    t = transition
    kept = frames.newest(state.obs, state.time)
    return rainbow.Step(kept, action, t.reward, t.terminated, t.truncated, t.valid)


def train(config: Config, game: str, agent: str) -> Work:
    """A lane a seed; arms of a seed begin alike, in the same games."""
    env, _, fit = setting_of(config, game, agent)
    purpose = f"atari100k/{game}"
    agent_of_frames = rainbow.rainbow((*SIZE, DEPTH), env.obs_dtype, env.action_spec, fit)
    acts_by = rainbow_study.acts_by_of(fit)
    loop = EmulatorLoop(
        agent_of_frames,
        env.vector(config.num_seeds),
        rainbow_study.optimizer_of(agent_of_frames, fit),
        fit,
        memory=rainbow.memory_of_frames(fit, DEPTH),
        explore=rainbow.uniform(env.action_spec),
        slow=loops.SlowCopy(*rainbow.copying(fit)),
        as_entry=as_entry,
        see=lambda state: frames.channels_last(state.obs),
        seeds=ale.seeds_of(keys.derive(0, f"{purpose}/emulator"), seeds(config)),
        lane_ids=seeds(config),
        key=keys.derive(0, f"{purpose}/train"),
        acts_by=acts_by,
    )

    def finish(state: Any, place: Path) -> dict[str, Any]:
        tree_file.save(place / PARAMS, jax.device_get(acts_by(state.learner)))
        return {
            "agent_steps": fit.num_updates,
            "updates": np.asarray(state.learner.target.num_updates).tolist(),  # counted, by seed
            "emulator_steps": int(state.shards.count),  # of every lane; those that began games too
        }

    return Work(
        finish=finish,
        init=loop.init,
        chunk=loop.chunk,
        num_chunks=fit.num_updates // fit.updates_per_chunk,
        updates_per_chunk=fit.updates_per_chunk,
        units_per_update={"env_steps": config.num_seeds},
    )


def load(config: Config, setting: Setting, place: Path) -> Any:
    """Parameters of all seeds, leaves `[N, ...]`, as `train` left them in `place`."""
    one = jax.eval_shape(setting.network.init, jax.random.key(0))
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct((config.num_seeds, *x.shape), x.dtype), one)
    return tree_file.load(place / PARAMS, template)


def evaluate(config: Config, game: str, folder: Path) -> dict[str, Any]:
    """Mean return of whole games by agent and seed, all in games of the same emulator seeds."""
    found = {}
    for agent in config.agents:
        setting = setting_of(config, game, agent, episodic_life=False)
        params = load(config, setting, stage_folder(folder, f"train/{game}/{agent}"))
        found[agent] = play_games(config, setting, game, params).tolist()
        about = rainbow_study.describe_policy(
            setting,
            setting.fit,
            arm=agent,
            task=game,
            seed=config.first_seed,
            overrides={"episodic_life": False},
            is_stack=True,
        )
        library.save(folder, about, jax.tree.map(lambda x: x[0], params))
        film(config, setting, game, params, folder / "pictures" / f"{agent}--{game}.gif")
    return {"returns": found}


def play_games(config: Config, setting: Setting, game: str, params: Any) -> np.ndarray:
    """Returns `[seeds, episodes]` of policies `params`, leaves `[seeds, ...]`."""
    num_lanes = config.num_seeds * config.eval_lanes
    key_games, key_act = jax.random.split(keys.derive(0, f"atari100k/{game}/evaluate"))
    games = keys.per_index(key_games, seeds(config))
    each = partial(ale.lane_seeds, num_lanes=config.eval_lanes)
    starts = jnp.concatenate([each(lane_key) for lane_key in games])
    act = acting(config, setting, params, key_act)
    count = config.episodes // config.eval_lanes
    returns = emulator.returns(setting.env.vector(num_lanes), act, starts, count)
    return returns.T.reshape(config.num_seeds, config.eval_lanes * count)


def acting(config: Config, setting: Setting, params: Any, key: jax.Array) -> Any:
    """`act(obs [N E, ...], count)` of N policies with E lanes each, as `emulator.play` takes it."""
    policy = rainbow.policy(setting.network, setting.fit)
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


def film(config: Config, setting: Setting, game: str, params: Any, path: Path) -> None:
    """The first seed's first game, or its beginning."""
    key_game, key_act = jax.random.split(keys.derive(0, f"atari100k/{game}/film"))
    first = jax.tree.map(lambda x: x[:1], params)
    act = acting(config, setting, first, key_act)
    played = emulator.play(setting.env.vector(1), act, ale.lane_seeds(key_game, 1))
    pictures, total = [], 0.0
    for step, (state, transition) in enumerate(islice(played, FILM_STEPS)):
        total += float(transition.reward[0])
        is_over = bool(transition.terminated[0] | transition.truncated[0])
        if step % FILM_STRIDE == 0 or is_over:
            lane = jax.tree.map(lambda x: np.asarray(x)[0], state)
            picture = setting.env.render(lane, None)
            pictures.append(caption(picture, f"step {step + 1}  return {total:.0f}"))
        if is_over:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gif(path, pictures, fps=20)


def cost(config: Config, game: str, agent: str) -> Cost:
    """What training takes: the convolutions, several times a fitted step."""
    setting = setting_of(config, game, agent)
    fit = setting.fit
    size = num_parameters(jax.eval_shape(setting.network.init, jax.random.key(0)))
    images = fit.batch_size * (5 + (fit.spr.num_steps if fit.spr.weight else 0))
    per_image = 15e6 * fit.model.width**2 + 2.0 * size
    steps = fit.num_updates * fit.num_gradient_steps * config.num_seeds
    held = config.num_seeds * fit.capacity * FRAME
    return Cost(f"train/{game}/{agent}", size, per_image * images * steps, held, 0.2, 60.0)
