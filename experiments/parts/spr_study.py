"""Self-prediction from random play: data, arms in lanes of seeds, and what their latents know."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import envs
from envs.vector import VectorEnv, broadcast_params
from experiments.configs.spr import TRUTHS, Config, ProbeConfig
from experiments.parts import experts
from experiments.parts.cost import Cost
from jaxagent import keys
from jaxagent.agents import rainbow
from jaxagent.agents import self_prediction as spr
from jaxagent.agents.self_prediction import Parts
from jaxagent.config import NUM_SHARDS
from jaxagent.data import normalize, replay, tree_file
from jaxagent.data.normalize import Moments
from jaxagent.data.rollout import ActorState, rollout
from jaxagent.evaluate import collapse
from jaxagent.nn.latent_model import LatentModel, latent_model
from jaxagent.nn.token_trunk import cut
from jaxagent.nn.transformer import num_parameters
from jaxagent.train import history, loops, optimizer, parallel
from jaxagent.train.run import Work, read_done, stage_folder
from jaxagent.types import Trajectory, View

TRAINED = ("spr", "one step", "tokens", "target learns", "no predictor", "no transition")


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


class Setting(NamedTuple):
    """The game with the networks that learn from it."""

    env: Any
    task: Any
    config: ProbeConfig


def setting_of(config: Config) -> Setting:
    """Build the game of the probe."""
    return Setting(*envs.make(config.probe.env), config.probe)


def model_of(setting: Setting, arm: str) -> LatentModel:
    """An arm's network; a mutant uses a part of it."""
    config = setting.config.tokens if arm == "tokens" else setting.config.model
    num_actions = setting.env.action_spec[0].cardinality
    return latent_model(config, setting.env.obs_shape, num_actions)


def parts_of(setting: Setting, arm: str) -> Parts:
    """What an arm learns by: mutants predict nothing, or do not even move."""
    parts = spr.latent_parts(model_of(setting, arm))
    if arm in ("no predictor", "no transition"):
        parts = parts._replace(predict=lambda params, projection: projection)
    if arm == "no transition":
        parts = parts._replace(step=lambda params, latent, action: latent)
    return parts


def random_play(setting: Setting, purpose: str, num_steps: int) -> Trajectory:
    """Uniform actions `[T, B, ...]`; extras are the true state's numbers `[T, B, m]`."""
    vector, size = VectorEnv(setting.env), setting.config.num_envs
    uniform, fields = rainbow.uniform(setting.env.action_spec), TRUTHS[setting.config.env].values()

    def act(carry: Any, view: View, is_first: jax.Array, key: jax.Array) -> tuple:
        action, _, carry = uniform(carry, view.obs, is_first, key)
        truth = [getattr(view.state, field).astype(jnp.float32) for field in fields]
        return action, jnp.stack(truth, axis=-1), carry

    @jax.jit
    def play(key: jax.Array) -> Trajectory:
        key_reset, key_run = jax.random.split(key)
        first = vector.reset(key_reset, broadcast_params(setting.task, size))
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


def data_of(setting: Setting) -> tuple[Windows, Moments]:
    """Random play to learn from, and by what it is standardised."""
    config = setting.config
    played = random_play(setting, "train", config.env_steps // config.num_envs)
    moments = moments_of(played)
    return windows_of(played, moments), moments


def measured_data(setting: Setting) -> Measured:
    """Of other episodes, standardised as what is learned from."""
    _, moments = data_of(setting)
    return measured_play(setting, partial(normalize.apply, moments))


def measured_play(setting: Setting, see: Callable) -> Measured:
    """States of random play that nothing learns from; `see` as in `measured_of`."""
    config = setting.config
    # Breakout's random episodes are ten steps long: a third more than is needed.
    steps = -(-4 * config.measured // (3 * config.num_envs))
    return measured_of(random_play(setting, "test", steps), see, config.measured)


def train(config: Config, arm: str) -> Work:
    """A lane a seed; arms of a seed begin alike and draw alike, from the same data for all."""
    setting, seeds = setting_of(config), experts.seeds_of(config)
    probe, parts = setting.config, parts_of(setting, arm)
    fit, num_steps = probe.fit, 1 if arm == "one step" else probe.num_steps
    data, _ = data_of(setting)

    def sample(data: Windows, key: jax.Array) -> Windows:
        ring = replay.Replay(data, jnp.int32(data.done.shape[0]))
        return replay.sample_windows(ring, key, fit.batch_size // NUM_SHARDS, num_steps + 1)

    def loss(params: Any, batch: Windows, slow: Any, count: jax.Array) -> tuple[jax.Array, dict]:
        del count
        learns = arm == "target learns"
        target = params if learns else slow
        later = spr.projections(parts, target, batch.obs[1:], has_gradient=learns)
        is_same = spr.same_episode(batch.done[:-1])
        latent = parts.encode(params, batch.obs[0])
        losses = spr.prediction_loss(parts, params, latent, batch.action[:-1], later, is_same)
        return jnp.mean(losses), {}

    loop = loops.lanes(
        loops.slow_offline(
            loss, sample, optimizer.adamw_by_part(fit, {"predictor": probe.predictor_rate}), probe.tau
        ),
        None,
        jnp.array(seeds),
    )
    num_chunks = fit.num_updates // fit.updates_per_chunk
    chunk = parallel.chunked(loop, fit.updates_per_chunk, config.runtime.devices, data)
    key = keys.derive(0, "spr/fit")

    def first(lane_keys: jax.Array) -> Any:
        params = jax.vmap(model_of(setting, arm).init)(lane_keys)
        return history.first_state(parallel.first_state(*loop.init(params)), _select, num_chunks)

    def init() -> Any:
        return jax.jit(first)(jnp.stack([keys.derive(s, "spr/init") for s in seeds]))

    def finish(state: Any, place: Path) -> dict[str, Any]:
        tree_file.save(place / experts.SNAPSHOTS, state.learner.snapshots)
        size = num_parameters(state.learner.learner.params) // config.num_seeds
        return {"parameters": size, "updates": fit.num_updates, "env_steps": probe.env_steps}

    return Work(
        finish=finish,
        init=init,
        chunk=history.remembering(lambda state: chunk(state, key), _select, fit.updates_per_chunk),
        num_chunks=num_chunks,
        updates_per_chunk=fit.updates_per_chunk,
        units_per_update={"windows": fit.batch_size * config.num_seeds},
    )


def _select(learner: Any) -> tuple[Any, Any]:
    """What is measured: the parameters and their slow copy."""
    return learner.params, learner.target.params


def measure(setting: Setting, arm: str, params: Any, slow: Any, data: Measured) -> dict[str, Any]:
    """The diagnosis of one network, and R^2 `[m]` of linear probes on its latent.

    Of the latent's tokens the mean is read, as heads read it.
    """
    parts = parts_of(setting, arm)
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


def evaluate(config: Config, arm: str, folder: Path) -> dict[str, Any]:
    """What is measured of an arm's snapshots, by name: `[snapshots][seeds]`; probes `[m]` more."""
    setting, init = setting_of(config), model_of(setting_of(config), arm).init
    kept = experts.load_lanes(
        stage_folder(folder, f"probe/{arm}"),
        lambda key: (init(key), init(key)),
        setting.config.fit,
        config.num_seeds,
    )
    run = jax.vmap(partial(measure, setting, arm, data=measured_data(setting)))
    found = jax.jit(lambda lanes: jax.lax.map(lambda x: run(*x), lanes))(kept)
    return jax.tree.map(lambda x: x.tolist(), jax.device_get(found))


def measured(config: Config, folder: Path) -> dict[str, Any]:
    """What `evaluate` found of all arms, and after how many updates."""
    fit = config.probe.fit
    count = fit.num_updates // fit.updates_per_chunk + 1
    arms = {arm: read_done(folder, f"measure/{arm}")["summary"] for arm in TRAINED}
    return {"updates": [i * fit.updates_per_chunk for i in range(count)], "arms": arms}


def cost(config: Config, arm: str) -> Cost:
    """What training takes: the model once a predicted step, forward and backward."""
    setting = setting_of(config)
    size = num_parameters(jax.eval_shape(model_of(setting, arm).init, jax.random.key(0)))
    fit = setting.config.fit
    states = fit.num_updates * fit.batch_size * (setting.config.num_steps + 1) * config.num_seeds
    tokens = 1
    if arm == "tokens":
        obs = jax.ShapeDtypeStruct((1, *setting.env.obs_shape), jnp.float32)
        cells = jax.eval_shape(partial(cut, patch=setting.config.tokens.trunk.patch), obs)
        tokens = cells.shape[1]
    return Cost(f"probe/{arm}", size, 6.0 * size * states * tokens, 0.0, 0.1, 10.0)
