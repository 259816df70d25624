"""Actor-critic agents: PPO with a tower for each, on vectors, on a memory's features or on latents."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.agents import actions, latent_heads, recollection
from jaxagent.agents.recollection import Seen, Spec
from jaxagent.config import LatentConfig, MemoryConfig, PPOConfig, QNetworkConfig, require_whole_lanes
from jaxagent.nn import distributions, stem
from jaxagent.nn.distributions import Categorical
from jaxagent.nn.latent_model import LatentModel
from jaxagent.nn.mlp import MLP
from jaxagent.nn.q_network import Encoder
from jaxagent.objectives.policy import approximate_kl, clipped_value_loss, ppo_clip
from jaxagent.objectives.returns import gae
from jaxagent.types import Agent, Anchor, Policy, Trajectory, no_carry, unmasked

ADVANTAGE_EPSILON = 1e-8
ACTOR_OUTPUT_SCALE = 0.01  # a nearly uniform first policy (Andrychowicz et al. 2021, section 3.2)


class ActorCriticParams(NamedTuple):
    """Parameters of separate towers for policy and value."""

    actor: Any  # of the policy's tower
    critic: Any  # of the value's tower
    log_std: Any  # [A] for continuous actions, () otherwise


class PPOBatch(NamedTuple):
    """Items for the PPO loss, `[...]`: env steps, or with a memory segments `[..., T]` of lanes."""

    obs: jax.Array  # [..., n], or as the judge reads them
    raw_action: jax.Array  # [...] int32 or [..., A], not clipped
    log_prob: jax.Array  # [...] of the raw action when it was drawn
    advantage: jax.Array  # [...] standardised
    value: jax.Array  # [...] before the update
    target: jax.Array  # [...] of the value
    legal: Any = ()  # [..., K] bool, or () where nothing is forbidden
    is_first: Any = ()  # [..., T] bool with a memory
    anchor: Any = ()  # parts [...] of the first policy's distributions, or () where it is forgotten
    anchor_weight: Any = ()  # [...] of the divergence from it
    carry: Any = ()  # with a memory: of each segment's beginning, leaves [...] without T


class Judgement(NamedTuple):
    """What a judge says of steps `[T, B]`."""

    log_prob: jax.Array  # [T, B] of the raw actions taken, nats
    entropy: jax.Array  # [T, B] of the policy, nats
    value: jax.Array  # [T, B]
    parts: distributions.Parts  # of the policy, [T, B, ...]


class Judge(NamedTuple):
    """The policy and the value of an actor-critic, over what it remembers of the episode.

    A judge without memory carries `()` and takes any leading axes for `[T, B]`.
    """

    init: Callable  # key -> params
    init_carry: Callable  # batch size -> carry
    # (params, carry, obs [B, ...], legal, is_first [B], key) -> raw action [B, ...], its log_prob
    # [B], carry; without a key the most likely action
    act: Callable
    # (params, carry, Seen) -> Judgement [T, B]; carries are those of `by_lane`
    judge: Callable
    # (params, carry, Seen, final_obs [T, B, ...]) -> values [T, B] before and after each step
    values: Callable
    by_lane: Callable = lambda carry: carry  # carry -> the same with lanes first in every leaf, [B, ...]
    obs_size: int = 0  # n of the vectors [..., n] that it reads; 0: its observations have another form

    @property
    def remembers(self) -> bool:
        """Whether there is a memory."""
        return recollection.has_memory(self.init_carry)


def reflex(init: Callable, distribution: Callable, value: Callable, obs_size: int = 0) -> Judge:
    """A judge without memory, of `distribution(params, obs, legal)` and `value(params, obs)`."""

    def act(params, carry, obs, legal, is_first, key):
        del is_first
        return *take(distribution(params, obs, legal), key), carry

    def judge(params, carry, seen):
        del carry
        dist = distribution(params, seen.obs, seen.legal)
        return judgement(dist, seen, value(params, seen.obs))

    def values(params, carry, seen, final_obs):
        del carry
        return value(params, seen.obs), value(params, final_obs)

    return Judge(init, no_carry, act, judge, values, obs_size=obs_size)


def judgement(distribution: Any, seen: Seen, value: jax.Array) -> Judgement:
    """The judgement `[T, B]` of a policy's distributions and of values."""
    log_prob, entropy = distribution.log_prob(seen.raw_action), distribution.entropy()
    return Judgement(log_prob, entropy, value, distribution.parts)


def take(distribution: Any, key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """An event of a distribution, and its log-probability `[...]`: a draw, or without a key the mode."""
    event = distribution.mode() if key is None else distribution.sample(key)
    return event, distribution.log_prob(event)


def towers(obs_spec: Spec, action_spec: Spec, config: PPOConfig) -> Judge:
    """A judge of separate networks on obs `[..., n]`, for any actions (`agents.actions.distribution`)."""
    network = Towers(action_spec, config)

    def init(key: jax.Array) -> ActorCriticParams:
        return network.init(key, stem.num_features(obs_spec))

    def distribution(params: ActorCriticParams, obs: jax.Array, legal: Any) -> Any:
        return network.distribution(params, stem.features(obs_spec, obs), legal)

    def value(params: ActorCriticParams, obs: jax.Array) -> jax.Array:
        return network.value(params, stem.features(obs_spec, obs))

    return reflex(init, distribution, value, len(obs_spec))


class Towers(NamedTuple):
    """An actor and a critic side by side, on features `[..., F]`."""

    action_spec: Spec
    config: PPOConfig

    @property
    def actor(self) -> MLP:
        """The network of the policy."""
        hidden = (self.config.hidden_size, self.config.hidden_size)
        return MLP((*hidden, actions.num_outputs(self.action_spec)), output_scale=ACTOR_OUTPUT_SCALE)

    @property
    def critic(self) -> MLP:
        """The network of the value."""
        return MLP((self.config.hidden_size, self.config.hidden_size, 1))

    def init(self, key: jax.Array, num_features: int) -> ActorCriticParams:
        """First parameters."""
        key_actor, key_critic = jax.random.split(key)
        example = jnp.zeros((1, num_features))
        num_reals = sum(c.kind == "real" for c in self.action_spec)
        log_std = jnp.full((num_reals,), self.config.initial_log_std, jnp.float32)
        return ActorCriticParams(
            actor=self.actor.init(key_actor, example),
            critic=self.critic.init(key_critic, example),
            log_std=log_std if num_reals else (),
        )

    def distribution(self, params: ActorCriticParams, features: jax.Array, legal: Any) -> Any:
        """The distribution `[...]` of raw actions."""
        outputs = self.actor.apply(params.actor, features)
        return actions.distribution(self.action_spec, outputs, params.log_std, legal)

    def value(self, params: ActorCriticParams, features: jax.Array) -> jax.Array:
        """Values `[...]`."""
        return self.critic.apply(params.critic, features)[..., 0]


class SeeingParams(NamedTuple):
    """Parameters of towers on pictures, each with eyes of its own."""

    actor_eyes: Any
    critic_eyes: Any
    towers: ActorCriticParams  # on what the eyes see


def seeing(
    obs_shape: tuple[int, ...], action_spec: Spec, config: PPOConfig, encoder: Literal["board", "nature"]
) -> Judge:
    """A judge of separate convolutional networks on pictures `[..., H, W, C]`, for any actions.

    Integers are pixels, 255 the brightest. "board": Young and Tian 2019; "nature": Mnih et al. 2015.
    """
    eyes, network = Encoder(QNetworkConfig(encoder)), Towers(action_spec, config)

    def seen(params: Any, obs: jax.Array) -> jax.Array:
        lead = obs.shape[: obs.ndim - len(obs_shape)]
        return eyes.apply(params, obs.reshape(-1, *obs_shape)).reshape(*lead, -1)

    def init(key: jax.Array) -> SeeingParams:
        key_actor, key_critic, key_towers = jax.random.split(key, 3)
        blank = jnp.zeros((1, *obs_shape))
        actor_eyes, critic_eyes = eyes.init(key_actor, blank), eyes.init(key_critic, blank)
        towers = network.init(key_towers, seen(actor_eyes, blank).shape[-1])
        return SeeingParams(actor_eyes, critic_eyes, towers)

    def distribution(params: SeeingParams, obs: jax.Array, legal: Any) -> Any:
        return network.distribution(params.towers, seen(params.actor_eyes, obs), legal)

    def value(params: SeeingParams, obs: jax.Array) -> jax.Array:
        return network.value(params.towers, seen(params.critic_eyes, obs))

    return reflex(init, distribution, value)


def on_latents(model: LatentModel, config: LatentConfig) -> Judge:
    """A judge of the heads of a latent model on one encoder, so that what trains it helps both."""

    def judge(params: Any, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        lead = obs.shape[: obs.ndim - len(model.obs_shape)]
        logits, values = latent_heads.evaluate(model, config, params, obs.reshape(-1, *model.obs_shape))
        return logits.reshape(*lead, -1), values.reshape(lead)

    return reflex(
        model.init,
        lambda params, obs, legal: Categorical(actions.mask_illegal(judge(params, obs)[0], legal)),
        lambda params, obs: judge(params, obs)[1],
    )


def within(judge: Judge, init: Callable, whole: Callable) -> Judge:
    """`judge` with parameters `whole(params)`, of which only `init(key) -> params` are learned."""

    def act(params, *args):
        return judge.act(whole(params), *args)

    def read(params, carry, seen):
        return judge.judge(whole(params), carry, seen)

    def values(params, *args):
        return judge.values(whole(params), *args)

    return judge._replace(init=init, act=act, judge=read, values=values)


class MemoryParams(NamedTuple):
    """Parameters of a judge with a memory."""

    memory: Any
    towers: ActorCriticParams  # on the memory's features


def remembering(config: MemoryConfig, obs_spec: Spec, action_spec: Spec, ppo_config: PPOConfig) -> Judge:
    """A judge of towers on the features of a memory (`recollection.recall`)."""
    recall, network = recollection.recall(config, obs_spec, action_spec), Towers(action_spec, ppo_config)

    def init(key: jax.Array) -> MemoryParams:
        key_memory, key_towers = jax.random.split(key)
        return MemoryParams(recall.init(key_memory), network.init(key_towers, recall.size))

    def act(params, carry, obs, legal, is_first, key):
        features, carry = recall.step(params.memory, carry, obs, is_first)
        raw_action, log_prob = take(network.distribution(params.towers, features, legal), key)
        return raw_action, log_prob, recall.acted(carry, raw_action)

    def judge(params, carry, seen):
        features = recall.unroll(params.memory, carry, seen)
        dist = network.distribution(params.towers, features, seen.legal)
        return judgement(dist, seen, network.value(params.towers, features))

    def values(params, carry, seen, final_obs):
        both = recall.peek(params.memory, carry, seen, final_obs)
        return tuple(network.value(params.towers, features) for features in both)

    return Judge(init, recall.init_carry, act, judge, values, obs_size=recall.obs_size)


def ppo(
    obs_spec: Spec,
    action_spec: Spec,
    config: PPOConfig,
    *,
    surrogate: Callable = ppo_clip,
    judge: Judge | None = None,
) -> Agent:
    """PPO (Schulman et al. 2017) for any observations and actions; `judge` is `towers` unless given.

    The environment gets continuous actions clipped to the box, the loss sees them unclipped. What it
    acts on may be `types.Masked`: illegal categories are then never taken. With `anchor_weight` the
    loss adds that much, decaying, of the divergence of its policy from the first one (VPT, Baker et
    al. 2022, appendix G.1).

    Differs: of an action of several components the divergence is of each, given those before it as
    they were taken. The first policy reads each segment from an empty memory, as what it remembers
    would be another network's. Raises ValueError for minibatches that cut segments of a memory.
    """
    judge = judge or towers(obs_spec, action_spec, config)
    if judge.remembers:
        require_whole_lanes(config)

    def act(params, carry, obs, is_first, key):
        obs, legal = unmasked(obs)
        raw_action, log_prob, carry = judge.act(params, carry, obs, legal, is_first, key)
        extras = {"raw_action": raw_action, "log_prob": log_prob}
        extras |= {} if isinstance(legal, tuple) else {"legal": legal}
        extras |= {"is_first": is_first} if judge.remembers else {}
        return actions.to_env_action(raw_action, action_spec), extras, carry

    def targets(
        params: Any, carry: Any, trajectory: Trajectory, average: Callable, *anchor: Anchor
    ) -> PPOBatch:
        """Items `[s, n, ...]` of trajectories `[s, T, b]`; `average` means over all shards on all devices."""
        extras = trajectory.extras
        seen = Seen(trajectory.obs, extras["raw_action"], extras.get("legal", ()), extras.get("is_first", ()))

        over_shards = _over_shards if judge.remembers else _as_is
        carry = jax.vmap(judge.by_lane)(carry) if judge.remembers else ()
        values, next_values = over_shards(judge.values)(params, carry, seen, trajectory.final_obs)
        estimate = partial(gae, discount=config.discount, trace=config.trace)
        advantage = jax.vmap(estimate)(
            trajectory.reward, trajectory.terminated, trajectory.truncated, values, next_values
        )
        batch = PPOBatch(
            obs=seen.obs,
            raw_action=seen.raw_action,
            log_prob=extras["log_prob"],
            advantage=standardise(advantage, average),
            value=values,
            target=values + advantage,
            legal=seen.legal,
            is_first=seen.is_first,
        )
        for first in anchor:
            parts = over_shards(partial(_anew, judge))(first.params, seen)
            weight = config.anchor_weight * config.anchor_decay ** first.num_updates.astype(jnp.float32)
            batch = batch._replace(anchor=parts, anchor_weight=jnp.full_like(values, weight))
        return recollection.as_items(batch, carry)

    def loss(params: Any, batch: PPOBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
        batch = recollection.as_seen(batch)
        seen = Seen(batch.obs, batch.raw_action, batch.legal, batch.is_first)
        log_prob, entropies, values, parts = judge.judge(params, batch.carry, seen)
        policy_loss = jnp.mean(surrogate(log_prob, batch.log_prob, batch.advantage, clip=config.clip))
        value_loss = jnp.mean(
            clipped_value_loss(values, batch.value, batch.target, clip=config.value_clip or math.inf)
        )
        entropy = jnp.mean(entropies)
        total = policy_loss + config.value_weight * value_loss - config.entropy_weight * entropy
        metrics = {
            "train/loss/policy": policy_loss,
            "train/loss/value": value_loss,
            "train/entropy": entropy,
            "train/kl": jnp.mean(approximate_kl(log_prob, batch.log_prob)),
        }
        if batch.anchor:
            divergence = distributions.kl(batch.anchor, parts)
            total = total + jnp.mean(batch.anchor_weight * divergence)
            metrics["train/divergence"] = jnp.mean(divergence)
        return total, metrics | actions.stuck(batch.legal)

    functions = judge.init, act, targets, loss, judge.init_carry
    return Agent(*functions, judge.obs_size, has_anchor=config.anchor_weight > 0.0)


def greedy(judge: Judge, action_spec: Spec) -> Policy:
    """A policy by the mode of a judge's, for evaluation; the caller must normalise observations `[B, n]`."""

    def act(params, carry, obs, is_first, key):
        del key
        obs, legal = unmasked(obs)
        mode, _, carry = judge.act(params, carry, obs, legal, is_first, None)
        return actions.to_env_action(mode, action_spec), (), carry

    return Policy(judge.init_carry, act)


def _anew(judge: Judge, params: Any, seen: Seen) -> distributions.Parts:
    """What a policy says of a segment that it reads from an empty memory."""
    carry = ()
    if judge.remembers:
        carry = judge.by_lane(judge.init_carry(seen.is_first.shape[1]))
        seen = seen._replace(is_first=seen.is_first.at[0].set(True))
    return distributions.full(judge.judge(params, carry, seen).parts)


def _over_shards(fn: Callable) -> Callable:
    return lambda params, *of_shards: jax.vmap(partial(fn, params))(*of_shards)


def _as_is(fn: Callable) -> Callable:
    return fn


def standardise(advantage: jax.Array, average: Callable) -> jax.Array:
    """Advantages `[s, T, b]` to mean 0 and variance 1 over all shards."""
    moments = jax.vmap(lambda x: (jnp.mean(x), jnp.mean(jnp.square(x))))(advantage)
    mean, mean_square = average(moments)
    variance = jnp.maximum(mean_square - jnp.square(mean), 0.0)
    return (advantage - mean) / (jnp.sqrt(variance) + ADVANTAGE_EPSILON)
