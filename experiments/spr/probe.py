"""Self-prediction from random play: its data, its arms, and what their latents know."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import envs
from envs.vector import VectorEnv, broadcast_params
from envs.wrappers import exogenous_noise
from envs.wrappers.wrapper import innermost
from experiments.spr.config import TRUTHS, Config, ProbeConfig
from jaxagent import keys
from jaxagent.agents import actions
from jaxagent.agents import self_prediction as spr
from jaxagent.config import NUM_SHARDS
from jaxagent.data import augment, normalize, replay
from jaxagent.data.rollout import ActorState, rollout
from jaxagent.evaluate import collapse
from jaxagent.nn.latent_model import LatentModel, latent_model
from jaxagent.nn.mlp import MLP
from jaxagent.nn.q_network import QNetwork
from jaxagent.study.agents import take
from jaxagent.study.study import Fit, Lanes
from jaxagent.train import loops, optimizer
from jaxagent.types import Trajectory, View


class Way(NamedTuple):
    """How an arm learns."""

    is_short: bool = False  # over one step
    has_tokens: bool = False
    target_learns: bool = False
    has_predictor: bool = True
    has_transition: bool = True
    restores: bool = False  # an autoencoder: nothing of the above counts


WAYS = {
    "spr": Way(),
    "one step": Way(is_short=True),
    "tokens": Way(has_tokens=True),
    "autoencoder": Way(restores=True),
    "target learns": Way(target_learns=True),
    "no predictor": Way(has_predictor=False),
    "no transition": Way(has_predictor=False, has_transition=False),
}


def ways_of(config: Config) -> dict[str, Way]:
    """Those that a configuration trains."""
    return {arm: way for arm, way in WAYS.items() if arm in config.arms}


class Windows(NamedTuple):
    """Standardised steps `[T, B, ...]`, of which stretches are drawn."""

    obs: jax.Array
    action: jax.Array
    done: jax.Array  # bool


class Measured(NamedTuple):
    """N states of other episodes, with what came a step later in the same one."""

    obs: jax.Array  # [N, ...] standardised
    action: jax.Array  # [N]
    later: jax.Array  # [N, ...]
    truth: jax.Array  # [N, m] of the true state


class Game(NamedTuple):
    """A game, and what of it is learned and measured."""

    env: Any
    task: Any
    config: ProbeConfig


def game_of(config: ProbeConfig) -> Game:
    """Build the game of a probe."""
    return Game(*noisy(*envs.make(config.env), config.noise), config)


def noisy(env: Any, task: Any, noise: float) -> tuple[Any, Any]:
    """A game whose every cell has noise, or as it is."""
    return exogenous_noise(env, task, noise) if noise else (env, task)


def model_of(game: Game, way: Way) -> LatentModel:
    """An arm's network; a mutant uses a part of it."""
    config = game.config.tokens if way.has_tokens else game.config.model
    return latent_model(config, game.env.obs_shape, game.env.action_spec[0].cardinality)


def parts_of(game: Game, way: Way) -> spr.Parts:
    """What an arm learns by: mutants predict nothing, or do not even move."""
    parts = spr.latent_parts(model_of(game, way))
    if not way.has_predictor:
        parts = parts._replace(predict=lambda params, projection: projection)
    if not way.has_transition:
        parts = parts._replace(step=lambda params, latent, action: latent)
    return parts


def random_play(game: Game, purpose: str, num_steps: int) -> Trajectory:
    """Uniform actions `[T, B, ...]`; extras are the true state's numbers `[T, B, m]`."""
    vector, size = VectorEnv(game.env), game.config.num_envs
    uniform, fields = actions.uniform(game.env.action_spec), TRUTHS[game.config.env].values()

    def act(carry: Any, view: View, is_first: jax.Array, key: jax.Array) -> tuple:
        action, _, carry = uniform(carry, view.obs, is_first, key)
        truth = [getattr(innermost(view.state), field).astype(jnp.float32) for field in fields]
        return action, jnp.stack(truth, axis=-1), carry

    @jax.jit
    def play(key: jax.Array) -> Trajectory:
        key_reset, key_run = jax.random.split(key)
        first = vector.reset(key_reset, broadcast_params(game.task, size))
        actor = ActorState(first, (), jnp.ones((size,), bool))
        return rollout(vector, act, key_run, actor, num_steps, View)[1]

    return play(keys.derive(0, f"spr/{purpose}"))


def data_of(game: Game) -> tuple[Windows, normalize.Moments]:
    """Random play to learn from, and by what it is standardised."""
    return standardised(random_play(game, "train", game.config.env_steps // game.config.num_envs))


def standardised(played: Trajectory) -> tuple[Windows, normalize.Moments]:
    """Each cell by its own moments, and these: what never changes must not fill the latent."""
    mean, variance = normalize.batch_moments(played.obs[None], lambda x: x[0])
    moments = normalize.Moments(jnp.float32(played.reward.size), mean, variance)
    done = played.terminated | played.truncated
    return Windows(normalize.apply(moments, played.obs), played.action, done), moments


def measured_play(game: Game, see: Callable = lambda obs: obs, count: int = 0) -> Measured:
    """States of random play that nothing learns from, as many as are measured; `see` as in `measured_of`."""
    count = count or game.config.measured
    # Breakout's random episodes are ten steps long: a third more than is needed.
    steps = -(-4 * count // (3 * game.config.num_envs))
    return measured_of(random_play(game, "test", steps), see, count)


def measured_of(trajectory: Trajectory, see: Callable, count: int) -> Measured:
    """As many states as there are, at most `count`, whose next is of the same episode.

    `see(obs)` is what the network is given.
    """
    done = (trajectory.terminated | trajectory.truncated).reshape(-1)
    order = jax.random.permutation(keys.derive(0, "spr/order"), done.shape[0])
    # In order of time: probes are fitted on earlier episodes than they are scored on.
    rows = jnp.sort(order[~done[order]][:count])
    picked = take(replay.flat(trajectory), rows)
    return Measured(see(picked.obs), picked.action, see(picked.final_obs), picked.extras)


def init_of(game: Game, way: Way) -> Callable[[jax.Array], Any]:
    """First parameters of an arm: the network's, and a decoder's where it restores boards."""
    model = model_of(game, way)
    if not way.restores:
        return model.init
    latent = jnp.zeros((1, game.config.model.trunk.width))

    def init(key: jax.Array) -> Any:
        key_model, key_decoder = jax.random.split(key)
        decoder = decoder_of(game).init(key_decoder, latent)["params"]
        return {"params": model.init(key_model)["params"] | {"decoder": decoder}}

    return init


def decoder_of(game: Game) -> MLP:
    """From latents to boards, as deep as the encoder."""
    return MLP((game.config.model.trunk.width, math.prod(game.env.obs_shape)), jax.nn.relu)


def lanes(config: Config, way: Way, folder: Path | None) -> Lanes:
    """A lane a seed; arms of a seed begin alike and draw alike, from the same data for all.

    Kept are the parameters and their slow copy.
    """
    del folder
    game, probe, fit = game_of(config.probe), config.probe, config.probe.fit
    num_steps = 1 if way.is_short else probe.num_steps

    def sample(data: Windows, key: jax.Array) -> Windows:
        key_draw, key_shift = jax.random.split(key)
        size = fit.batch_size // NUM_SHARDS
        drawn = replay.sample_windows(replay.full(data), key_draw, size, num_steps + 1)
        return drawn._replace(obs=moved(drawn.obs, key_shift, probe.shift))

    parts = parts_of(game, way)
    loss_of = partial(restoring_loss, game) if way.restores else partial(loss, parts, way.target_learns)
    adamw = optimizer.adamw_by_part(fit, {"predictor": probe.predictor_rate})
    return Lanes(
        loops.supervised(loss_of, sample, adamw, slow=loops.averaged(probe.tau)),
        lambda: (jnp.stack([keys.derive(seed, "spr/init") for seed in config.seeds]),),
        fit,
        keys.derive(0, "spr/fit"),
        begin=lambda lane_keys: (jax.vmap(init_of(game, way))(lane_keys),),
        ids=config.seeds,
        data=data_of(game)[0],
        keep=lambda learner: (learner.params, learner.target.params),
        history=True,
        units={"windows": fit.batch_size},
    )


def moved(obs: jax.Array, key: jax.Array, reach: int) -> jax.Array:
    """Boards `[T, b, H, W, C]`, each moved by up to `reach` cells by a draw of its own."""
    if not reach:
        return obs
    return augment.shift(obs.reshape(-1, *obs.shape[2:]), key, reach).reshape(obs.shape)


def loss(
    parts: spr.Parts, target_learns: bool, params: Any, batch: Windows, data: Any, slow: loops.Slow
) -> tuple[jax.Array, dict]:
    """Mean self-predictive loss of windows `[K + 1, b, ...]`; the mutant's target has a gradient."""
    del data
    target = params if target_learns else slow.params
    later = spr.projections(parts, target, batch.obs[1:], has_gradient=target_learns)
    latent, is_same = parts.encode(params, batch.obs[0]), spr.same_episode(batch.done[:-1])
    return jnp.mean(spr.prediction_loss(parts, params, latent, batch.action[:-1], later, is_same)), {}


def restoring_loss(
    game: Game, params: Any, batch: Windows, data: Any, slow: loops.Slow
) -> tuple[jax.Array, dict]:
    """Mean squared error of boards that are restored from their latents, of all steps of windows."""
    del data, slow
    obs = batch.obs.reshape(-1, *game.env.obs_shape)
    latent = model_of(game, WAYS["autoencoder"]).encode(params, obs)
    restored = decoder_of(game).apply({"params": params["params"]["decoder"]}, latent)
    return jnp.mean(jnp.square(restored - obs.reshape(obs.shape[0], -1))), {}


def measure(config: Config, way: Way, fit: Fit, folder: Path, place: Path) -> dict[str, Any]:
    """What is measured of an arm's snapshots, by name: `[snapshots][seeds]`; probes `[m]` more.

    "judged" are probes of more states, of the first and the last snapshot.
    """
    del place
    game = game_of(config.probe)
    parts, init = parts_of(game, way), init_of(game, way)
    see = partial(normalize.apply, data_of(game)[1])
    data, more = measured_play(game, see), measured_play(game, see, game.config.judged)
    kept = fit.load(folder, lambda key: (init(key), init(key)))

    def judge(params: Any, slow: Any) -> jax.Array:
        del slow
        latent = mean_of_tokens(params, parts.encode(params, more.obs))
        return collapse.best_linear_probe(latent, more.truth)

    judged = by_snapshot(judge, jax.tree.map(lambda x: x[[0, -1]], kept), jax.vmap)
    return by_snapshot(partial(diagnosis, parts, data, mean_of_tokens), kept, jax.vmap) | {"judged": judged}


def measure_raw(config: Config, folder: Path, place: Path) -> dict[str, Any]:
    """R^2 `[m]` of linear probes of the board itself, which has no seeds."""
    del folder, place
    game = game_of(config.probe)
    data = measured_play(game, partial(normalize.apply, data_of(game)[1]), game.config.judged)
    flat = data.obs.reshape(data.obs.shape[0], -1)
    return {"judged": collapse.best_linear_probe(flat, data.truth).tolist()}


def mean_of_tokens(params: Any, latent: jax.Array) -> jax.Array:
    """Latents `[N, d]`, or the mean of their tokens `[N, m, d]`, as heads read them."""
    del params
    return jnp.mean(latent, axis=1) if latent.ndim == 3 else latent


def by_snapshot(one: Callable, networks: tuple, over: Callable) -> dict[str, Any]:
    """Numbers `one(*networks)` of leaves `[snapshots, seeds, ...]`, for JSON; `over` maps the seeds."""
    every = jax.jit(lambda networks: jax.lax.map(lambda lanes: over(one)(*lanes), networks))
    return jax.tree.map(lambda x: x.tolist(), jax.device_get(every(networks)))


def diagnosis(
    parts: spr.Parts | QNetwork, data: Measured, read: Callable, params: Any, slow: Any = None
) -> dict[str, Any]:
    """Numbers of one network's latents and predictions, and R^2 `[m]` of linear probes.

    Of latents `read(params, latent) [N, d]` is looked at; predicted is what `slow` projects, or itself.
    """
    slow = params if slow is None else slow
    latent = parts.encode(params, data.obs)
    summary = read(params, latent)

    def predicted(action: jax.Array) -> jax.Array:
        return spr.predictions(parts, params, latent, action[None])[0]

    now, later = (spr.projections(parts, slow, obs[None])[0] for obs in (data.obs, data.later))
    of_own, of_others = predicted(data.action), predicted(jnp.roll(data.action, 1))
    numbers = collapse.diagnose(summary, now, of_own, of_others, later)
    return numbers._asdict() | {"probes": collapse.linear_probe(summary, data.truth)}
