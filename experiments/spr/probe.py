"""Self-prediction from random play: its data, its arms, and what their latents know."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import envs
from envs.vector import VectorEnv, broadcast_params
from experiments.spr.config import TRUTHS, Config, ProbeConfig
from jaxagent import keys
from jaxagent.agents import rainbow
from jaxagent.agents import self_prediction as spr
from jaxagent.agents.self_prediction import Parts
from jaxagent.config import NUM_SHARDS
from jaxagent.data import normalize, replay
from jaxagent.data.normalize import Moments
from jaxagent.data.rollout import ActorState, rollout
from jaxagent.evaluate import collapse
from jaxagent.nn.latent_model import LatentModel, latent_model
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


WAYS = {
    "spr": Way(),
    "one step": Way(is_short=True),
    "tokens": Way(has_tokens=True),
    "target learns": Way(target_learns=True),
    "no predictor": Way(has_predictor=False),
    "no transition": Way(has_predictor=False, has_transition=False),
}


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
    """The game with the networks that learn from it."""

    env: Any
    task: Any
    config: ProbeConfig


def game_of(config: Config) -> Game:
    """Build the game of the probe."""
    return Game(*envs.make(config.probe.env), config.probe)


def model_of(game: Game, way: Way) -> LatentModel:
    """An arm's network; a mutant uses a part of it."""
    config = game.config.tokens if way.has_tokens else game.config.model
    return latent_model(config, game.env.obs_shape, game.env.action_spec[0].cardinality)


def parts_of(game: Game, way: Way) -> Parts:
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
    uniform, fields = rainbow.uniform(game.env.action_spec), TRUTHS[game.config.env].values()

    def act(carry: Any, view: View, is_first: jax.Array, key: jax.Array) -> tuple:
        action, _, carry = uniform(carry, view.obs, is_first, key)
        truth = [getattr(view.state, field).astype(jnp.float32) for field in fields]
        return action, jnp.stack(truth, axis=-1), carry

    @jax.jit
    def play(key: jax.Array) -> Trajectory:
        key_reset, key_run = jax.random.split(key)
        first = vector.reset(key_reset, broadcast_params(game.task, size))
        actor = ActorState(first, (), jnp.ones((size,), bool))
        return rollout(vector, act, key_run, actor, num_steps, View)[1]

    return play(keys.derive(0, f"spr/{purpose}"))


def moments_of(trajectory: Trajectory) -> Moments:
    """Of the observations, a cell each: what never changes must not fill the latent."""
    mean, variance = normalize.batch_moments(trajectory.obs[None], lambda x: x[0])
    return Moments(jnp.float32(trajectory.reward.size), mean, variance)


def windows_of(trajectory: Trajectory, moments: Moments) -> Windows:
    """What is learned from."""
    done = trajectory.terminated | trajectory.truncated
    return Windows(normalize.apply(moments, trajectory.obs), trajectory.action, done)


def measured_of(trajectory: Trajectory, see: Callable, count: int) -> Measured:
    """As many states as there are, at most `count`, whose next is of the same episode.

    `see(obs)` is what the network is given.
    """
    done = (trajectory.terminated | trajectory.truncated).reshape(-1)
    order = jax.random.permutation(keys.derive(0, "spr/order"), done.shape[0])
    # In order of time: probes are fitted on earlier episodes than they are scored on.
    rows = jnp.sort(order[~done[order]][:count])

    def pick(x: jax.Array) -> jax.Array:
        return x.reshape(-1, *x.shape[2:])[rows]

    obs, later = (see(pick(x)) for x in (trajectory.obs, trajectory.final_obs))
    return Measured(obs, pick(trajectory.action), later, pick(trajectory.extras))


def data_of(game: Game) -> tuple[Windows, Moments]:
    """Random play to learn from, and by what it is standardised."""
    played = random_play(game, "train", game.config.env_steps // game.config.num_envs)
    moments = moments_of(played)
    return windows_of(played, moments), moments


def measured_data(game: Game) -> Measured:
    """Of other episodes, standardised as what is learned from."""
    _, moments = data_of(game)
    return measured_play(game, partial(normalize.apply, moments))


def measured_play(game: Game, see: Callable) -> Measured:
    """States of random play that nothing learns from; `see` as in `measured_of`."""
    config = game.config
    # Breakout's random episodes are ten steps long: a third more than is needed.
    steps = -(-4 * config.measured // (3 * config.num_envs))
    return measured_of(random_play(game, "test", steps), see, config.measured)


def fit_of(config: Config, arm: str) -> Fit:
    """A lane a seed; arms of a seed begin alike and draw alike, from the same data for all.

    Kept are the parameters and their slow copy.
    """
    return Fit(f"probe/{arm}", lambda folder: _lanes(config, WAYS[arm]))


def _lanes(config: Config, way: Way) -> Lanes:
    game = game_of(config)
    probe, parts = game.config, parts_of(game, way)
    fit, num_steps = probe.fit, 1 if way.is_short else probe.num_steps
    data, _ = data_of(game)

    def sample(data: Windows, key: jax.Array) -> Windows:
        ring = replay.Replay(data, jnp.int32(data.done.shape[0]))
        return replay.sample_windows(ring, key, fit.batch_size // NUM_SHARDS, num_steps + 1)

    def loss(params: Any, batch: Windows, slow: Any, count: jax.Array) -> tuple[jax.Array, dict]:
        del count
        target = params if way.target_learns else slow
        later = spr.projections(parts, target, batch.obs[1:], has_gradient=way.target_learns)
        is_same = spr.same_episode(batch.done[:-1])
        latent = parts.encode(params, batch.obs[0])
        losses = spr.prediction_loss(parts, params, latent, batch.action[:-1], later, is_same)
        return jnp.mean(losses), {}

    adamw = optimizer.adamw_by_part(fit, {"predictor": probe.predictor_rate})
    return Lanes(
        loops.slow_offline(loss, sample, adamw, probe.tau),
        lambda: (jnp.stack([keys.derive(seed, "spr/init") for seed in config.seeds]),),
        fit,
        keys.derive(0, "spr/fit"),
        begin=lambda lane_keys: (jax.vmap(model_of(game, way).init)(lane_keys),),
        ids=config.seeds,
        data=data,
        keep=lambda learner: (learner.params, learner.target.params),
        history=True,
        units={"windows": fit.batch_size},
    )


def measure(config: Config, arm: str, fit: Fit, folder: Path, place: Path) -> dict[str, Any]:
    """What is measured of an arm's snapshots, by name: `[snapshots][seeds]`; probes `[m]` more."""
    del place
    game, way = game_of(config), WAYS[arm]
    init = model_of(game, way).init
    kept = fit.load(folder, lambda key: (init(key), init(key)))
    run = jax.vmap(partial(measure_one, game, way, data=measured_data(game)))
    found = jax.jit(lambda lanes: jax.lax.map(lambda x: run(*x), lanes))(kept)
    return jax.tree.map(lambda x: x.tolist(), jax.device_get(found))


def measure_one(game: Game, way: Way, params: Any, slow: Any, data: Measured) -> dict[str, Any]:
    """The diagnosis of one network, and R^2 `[m]` of linear probes on its latent.

    Of the latent's tokens the mean is read, as heads read it.
    """
    parts = parts_of(game, way)
    latent = parts.encode(params, data.obs)
    summary = jnp.mean(latent, axis=1) if latent.ndim == 3 else latent
    return diagnosed(parts, params, slow, data, latent, summary)


def diagnosed(
    parts: Any, params: Any, slow: Any, data: Measured, latent: jax.Array, summary: jax.Array
) -> dict[str, Any]:
    """Numbers of `latent`, of which `summary [N, d]` is what is looked at, and of predictions."""

    def predicted(action: jax.Array) -> jax.Array:
        return spr.predictions(parts, params, latent, action[None])[0]

    def projected(obs: jax.Array) -> jax.Array:
        return spr.projections(parts, slow, obs[None])[0]

    found = collapse.diagnose(
        summary,
        projected(data.obs),
        predicted(data.action),
        predicted(jnp.roll(data.action, 1)),
        projected(data.later),
    )
    return found._asdict() | {"probes": collapse.linear_probe(summary, data.truth)}
