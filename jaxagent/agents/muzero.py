"""Gumbel MuZero: search in a model that is learned for what search reads of it.

With a consistency weight the latent is also held to what the encoder makes of the next
observation, which is EfficientZero's addition and the self-predictive loss of SPR.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.types import Component
from jaxagent import mcts
from jaxagent.agents import self_prediction
from jaxagent.agents.actions import num_categories
from jaxagent.agents.latent_heads import categorical_loss, evaluate, read, to_scalar
from jaxagent.agents.planning import Decision, Plan, gumbel_search
from jaxagent.config import LatentConfig, MuZeroConfig
from jaxagent.nn.gradients import scale_gradient
from jaxagent.nn.latent_model import LatentModel, latent_model
from jaxagent.objectives.policy import cross_entropy
from jaxagent.objectives.returns import n_step_returns
from jaxagent.objectives.sequence import weighted_mean
from jaxagent.types import Agent, Policy, Trajectory

TRANSITION_GRADIENT = 0.5  # that passes from one unrolled step to the one before (appendix G)


class MuZeroStep(NamedTuple):
    """Env steps as the replay keeps them."""

    obs: jax.Array  # [..., n]
    action: jax.Array  # [...] int32
    reward: jax.Array  # [...]
    terminated: jax.Array  # [...] bool
    truncated: jax.Array  # [...] bool
    weights: jax.Array  # [..., A]: the policy that search found


class MuZeroBatch(NamedTuple):
    """Windows of `K` model steps, time first: leaves `[K + 1, b, ...]` where not said."""

    obs: jax.Array
    action: jax.Array  # [K, b]
    reward: jax.Array  # [K, b]; 0 after the end
    value: jax.Array  # targets; 0 after the end
    weights: jax.Array  # [K + 1, b, A]
    is_alive: jax.Array  # bool: the state exists
    is_known: jax.Array  # bool: the state exists, or nothing follows a termination


def muzero(obs_shape: tuple[int, ...], action_spec: tuple[Component, ...], config: MuZeroConfig) -> Agent:
    """Gumbel MuZero (Danihelka et al. 2022; Schrittwieser et al. 2020) for one category of actions.

    `targets` reads windows of `window(config)` steps. Value targets bootstrap from the slow copy's
    values, computed anew for every minibatch; a share of the windows is searched anew too.

    Differs: windows are drawn uniformly, not by priority; the slow copy is a moving average; layer
    normalisation; `config.consistency_weight` 0 leaves EfficientZero's loss out, whose targets are
    the online encoder's, without gradient. No value prefix.
    Raises ValueError for actions that are not one category.
    """
    model = model_of(obs_shape, action_spec, config.model)
    plan = gumbel_search(config.search)

    def act(
        params: Any, carry: Any, obs: jax.Array, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array], Any]:
        del is_first
        decision = decide(model, plan, config, params, obs, key)
        return decision.action, {"weights": decision.weights}, carry

    def targets(params: Any, slow: Any, steps: MuZeroStep, key: jax.Array) -> MuZeroBatch:
        del params
        weights = _reanalysed(model, plan, config, slow, steps, key)
        _, value = _over_time(partial(evaluate, model, config.model, slow), steps.obs)
        returns = n_step_returns(
            steps.reward,
            steps.terminated,
            steps.truncated,
            value,
            discount=config.discount,
            num_steps=config.num_td_steps,
        )
        return make_batch(config.unroll, steps, returns, weights)

    def loss(params: Any, batch: MuZeroBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
        losses = unrolled_losses(model, config, params, batch)
        total = (
            losses["policy"]
            + config.value_weight * losses["value"]
            + config.reward_weight * losses["reward"]
            + config.consistency_weight * losses["consistency"]
        )
        return total, {f"train/loss/{name}": value for name, value in losses.items()}

    return Agent(model.init, act, targets, loss)


def model_of(
    obs_shape: tuple[int, ...], action_spec: tuple[Component, ...], config: LatentConfig
) -> LatentModel:
    """The latent model of an environment with one category of actions."""
    otherwise = "for others search over samples (`mcts.sampled_model`)"
    return latent_model(config, obs_shape, num_categories("MuZero", action_spec, otherwise))


def window(config: MuZeroConfig) -> int:
    """Steps that `targets` reads: each unrolled state needs its own rewards and bootstrap."""
    return config.unroll + 1 + config.num_td_steps


def as_steps(trajectory: Trajectory) -> MuZeroStep:
    """The steps `[T, B, ...]` that the replay keeps of a trajectory of this agent."""
    return trajectory.fields_of(MuZeroStep)


def policy(model: LatentModel, plan: Plan, config: MuZeroConfig) -> Policy:
    """The agent as a policy of its parameters; `planning.no_search` acts by the network alone."""

    def act(
        params: Any, carry: Any, obs: jax.Array, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any, Any]:
        del is_first
        return decide(model, plan, config, params, obs, key).action, (), carry

    return Policy(lambda batch_size: (), act)


def decide(
    model: LatentModel, plan: Plan, config: MuZeroConfig, params: Any, obs: jax.Array, key: jax.Array
) -> Decision:
    """Plan in the learned model from observations `[B, ...]`: a decision for each."""
    latent = model.encode(params, obs)
    logits, value = read(model, config.model, params, latent)
    root = mcts.RootFnOutput(prior_logits=logits, value=value, embedding=latent)
    recurrent_fn = learned_model(model, config.model, discount=config.discount)
    return plan(params, key, root, recurrent_fn, None)


def learned_model(model: LatentModel, config: LatentConfig, *, discount: float) -> mcts.RecurrentFn:
    """The latent model as a `recurrent_fn` on latents `[B, ...]`; only values tell that an episode ends."""

    def step(
        params: Any, key: jax.Array, action: jax.Array, latent: jax.Array
    ) -> tuple[mcts.RecurrentFnOutput, jax.Array]:
        del key
        latent, reward = model.step(params, latent, action)
        logits, value = read(model, config, params, latent)
        output = mcts.RecurrentFnOutput(
            reward=to_scalar(config, reward),
            discount=jnp.full(value.shape, discount, value.dtype),
            prior_logits=logits,
            value=value,
        )
        return output, latent

    return step


def make_batch(unroll: int, steps: MuZeroStep, returns: jax.Array, weights: jax.Array) -> MuZeroBatch:
    """The batch of windows `[L, b, ...]`, with `returns [>= K + 1, b]` and `weights [>= K + 1, b, A]`.

    After a termination a state is worth 0 and its rewards are 0, whatever is done (MuZero's
    absorbing states); after a truncation nothing is known.
    """
    count = unroll + 1
    cut = steps.truncated & ~steps.terminated
    goes_on = jnp.cumprod(~(steps.terminated | cut)[:unroll], axis=0, dtype=jnp.int32)
    uncut = jnp.cumprod(~cut[:unroll] | (_before(goes_on) == 0), axis=0, dtype=jnp.int32)
    always = jnp.ones_like(goes_on[:1])
    is_alive = jnp.concatenate([always, goes_on]) > 0
    return MuZeroBatch(
        obs=steps.obs[:count],
        action=steps.action[:unroll],
        reward=jnp.where(is_alive[:-1], steps.reward[:unroll], 0.0),
        value=jnp.where(is_alive, returns[:count], 0.0),
        weights=weights[:count],
        is_alive=is_alive,
        is_known=jnp.concatenate([always, uncut]) > 0,
    )


def _before(alive: jax.Array) -> jax.Array:
    """The values `[K, b]` one step earlier; those before the first are 1."""
    return jnp.concatenate([jnp.ones_like(alive[:1]), alive[:-1]])


def unrolled_losses(
    model: LatentModel, config: MuZeroConfig, params: Any, batch: MuZeroBatch
) -> dict[str, jax.Array]:
    """The four losses of K steps in the model, `[]` each: means over steps and windows.

    The gradient of each step's latent is halved on the way back. Differs from appendix G: losses
    are means over all K + 1 states rather than one full and K of weight 1 / K.
    """

    def step(latent: jax.Array, action: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        latent, reward = model.step(params, latent, action)
        return scale_gradient(latent, TRANSITION_GRADIENT), (latent, reward)

    first = model.encode(params, batch.obs[0])
    _, (later, reward) = jax.lax.scan(step, first, batch.action)
    latents = jnp.concatenate([first[None], later])
    logits, value = _over_time(partial(model.judge, params), latents)
    alive, known = (x.astype(jnp.float32) for x in (batch.is_alive, batch.is_known))
    consistency = jnp.zeros(())
    if config.consistency_weight > 0.0:
        distance = _consistency(model, params, later, batch.obs[1:])
        consistency = weighted_mean(distance, alive[1:])
    return {
        "policy": weighted_mean(cross_entropy(logits, batch.weights), alive),
        "value": weighted_mean(categorical_loss(config.model, value, batch.value), known),
        "reward": weighted_mean(categorical_loss(config.model, reward, batch.reward), known[:-1]),
        "consistency": consistency,
    }


def _consistency(model: LatentModel, params: Any, latent: jax.Array, obs: jax.Array) -> jax.Array:
    """`1 - cos` `[K, b]` of predicted projections and those of the true next observations."""

    def predict(latent: jax.Array) -> jax.Array:
        return model.predict(params, model.project(params, latent))

    truth = self_prediction.projections(self_prediction.latent_parts(model), params, obs)
    return self_prediction.distances(_over_time(predict, latent), truth)


def _reanalysed(
    model: LatentModel, plan: Plan, config: MuZeroConfig, slow: Any, steps: MuZeroStep, key: jax.Array
) -> jax.Array:
    """Policy targets `[L, b, A]`, of which the first windows are searched anew (Reanalyze)."""
    count = config.unroll + 1
    fresh = round(config.reanalyse * steps.reward.shape[1])
    if not fresh:
        return steps.weights
    obs = steps.obs[:count, :fresh]
    decision = decide(model, plan, config, slow, obs.reshape(-1, *obs.shape[2:]), key)
    weights = decision.weights.reshape(count, fresh, -1)
    return steps.weights.at[:count, :fresh].set(weights)


def _over_time(fn: Callable, x: jax.Array) -> Any:
    """`fn` of a batch, on leaves `[T, b, ...]`, in one call."""
    out = fn(x.reshape(-1, *x.shape[2:]))
    return jax.tree.map(lambda y: y.reshape(*x.shape[:2], *y.shape[1:]), out)
