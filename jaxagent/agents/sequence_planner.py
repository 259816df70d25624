"""One agent of all parts: it acts by search in what its transformer predicts, and learns from reward.

The network is `predictive_actor`'s: tokens of states and actions, their memory, self-prediction. Its
transition is what Gumbel's search walks. In training it acts by its policy or by search, and its policy
learns by PPO or from what search made of it; the model learns from both alike.

A node of the search holds a state and no slice of the cache: see `benchmarks/planner.py`.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent import mcts
from jaxagent.agents import actions, recollection, sequence
from jaxagent.agents.actor_critic import standardise
from jaxagent.agents.planning import Decision, Plan, gumbel_search
from jaxagent.agents.predictive_actor import PredictiveActor, PredictiveParams, Window, followed
from jaxagent.agents.recollection import Seen
from jaxagent.config import SequencePlannerConfig, require_whole_lanes
from jaxagent.nn.distributions import Categorical
from jaxagent.objectives.policy import approximate_kl, clipped_value_loss, ppo_clip
from jaxagent.objectives.returns import gae
from jaxagent.types import Agent, Policy, Trajectory, unmasked


class PlannerBatch(NamedTuple):
    """Items of the loss: segments `[..., T]` of lanes."""

    obs: jax.Array
    raw_action: jax.Array
    log_prob: Any  # of the policy, where PPO teaches it, or ()
    advantage: jax.Array  # standardised
    value: jax.Array  # before the update
    target: jax.Array  # of the value
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    is_first: jax.Array
    legal: Any = ()  # [..., T, K]
    candidates: Any = ()  # [..., T, C, m] tokens of the actions that were searched; () for PPO
    weights: Any = ()  # [..., T, C]: the better policy
    carry: Any = ()  # of each segment's beginning, leaves [...]


def _as_predicted(state: jax.Array) -> jax.Array:
    return state


@dataclasses.dataclass(frozen=True)
class SequencePlanner:
    """The functions of the agent, and what they share; `agent` and `policy` are its doors."""

    predictive: PredictiveActor
    config: SequencePlannerConfig
    whole: Callable = lambda params: params  # what is learned -> all parameters
    # (key, init, *given) -> first parameters of what is learned, where `init(key)` makes all of them
    begin: Callable = lambda key, init: init(key)
    walked: Callable = _as_predicted  # states `[B, D]` before search steps them: a saboteur mixes lanes

    def __post_init__(self) -> None:
        """Raise ValueError for actions that cannot be searched among, or segments that are cut."""
        require_whole_lanes(self.config.ppo)
        if not self.is_enumerable and self.config.num_samples < 2:
            raise ValueError(
                f"SequencePlannerConfig.num_samples: got {self.config.num_samples} for actions "
                f"{self.predictive.actor.action_spec}, which are not one category and cannot be "
                "enumerated; expected at least 2, among which search chooses."
            )

    @property
    def is_enumerable(self) -> bool:
        """Whether actions are one category, all of which search considers."""
        return self.predictive.actor.domain.action_cardinality > 0

    @property
    def agent(self) -> Agent:
        """For `loops.on_policy`, shards in turn where it searches."""
        actor = self.predictive.actor
        return Agent(self.init, self.act, self.targets, self.loss, actor.init_carry, actor.obs_size)

    def init(self, key: jax.Array, *given: Any) -> Any:
        """First parameters of what is learned; `given` is what `begin` asks for."""
        return self.begin(key, self.predictive.init, *given)

    # --- search ------------------------------------------------------------------------------------

    def propose(
        self, params: PredictiveParams, key: jax.Array, state: jax.Array, legal: Any = ()
    ) -> tuple[jax.Array, mcts.Samples]:
        """Values `[B]` of states `[B, D]` and actions to search among, tokens `[B, C, m]`: all, or samples.

        Samples are the policy's own (Sampled MuZero, Hubert et al. 2021).
        """
        net = self.predictive
        value = net.actor.value_of(params, state)
        if self.is_enumerable:
            size, first = net.actor.domain.action_cardinality, net.actor.num_bins
            logits = net.choices(params, state, 0, legal).logits[:, first : first + size]
            tokens = jnp.broadcast_to(first + jnp.arange(size, dtype=jnp.int32), logits.shape)[..., None]
            is_out = jnp.zeros(logits.shape, bool) if isinstance(legal, tuple) else ~legal
            return value, mcts.Samples(tokens, jax.nn.log_softmax(logits), jnp.zeros(logits.shape), is_out)
        sample_keys = jax.random.split(key, self.config.num_samples)
        tokens = jax.vmap(lambda k: net.decode(params, state, k, legal)[0], out_axes=1)(sample_keys)
        equal = jnp.zeros(tokens.shape[:2])
        return value, mcts.merge_copies(mcts.Samples(tokens, equal, equal))

    def imagine(
        self, params: PredictiveParams, key: jax.Array, tokens: jax.Array, state: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Reward `[B]`, discount `[B]` and state after actions; only values tell that an episode ends."""
        del key
        dynamics = self.predictive.dynamics
        after = dynamics.step(params.dynamics, self.walked(state), tokens)[..., -1, :]
        reward = dynamics.reward(params.dynamics, after)
        return reward, jnp.full_like(reward, self.config.ppo.discount), after

    def search(
        self, params: PredictiveParams, key: jax.Array, state: jax.Array, legal: Any, plan: Plan
    ) -> tuple[jax.Array, Decision]:
        """The actions `[B, C, m]` that were searched among, and the decision."""
        key_propose, key_plan = jax.random.split(key)
        value, samples = self.propose(params, key_propose, state, legal)
        root, model = mcts.sampled_root(value, state, samples), mcts.sampled_model(self.imagine, self.propose)
        return samples.actions, plan(params, key_plan, root, model, samples.is_copy)

    # --- acting ------------------------------------------------------------------------------------

    def act(
        self, params: Any, carry: Any, obs: Any, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, dict[str, Any], Any]:
        """As `Agent.act`; what search made of the policy is an extra wherever it is learned from."""
        params, (obs, legal) = self.whole(params), unmasked(obs)
        key_decode, key_search = jax.random.split(key)
        state, carry = self.predictive.see(params, carry, obs, is_first)
        extras = {"is_first": is_first} | ({} if isinstance(legal, tuple) else {"legal": legal})
        if self.config.searches:
            plan = gumbel_search(self.config.search)
            candidates, decision = self.search(params, key_search, state, legal, plan)
            extras |= {"candidates": candidates, "weights": decision.weights}
        if self.config.acts_by == "search":
            tokens = mcts.chosen(candidates, decision.action)
        else:
            tokens, extras["log_prob"] = self.predictive.decode(params, state, key_decode, legal)
        taken, raw_action = self.action_of(tokens)
        return taken, extras | {"raw_action": raw_action}, sequence.acted(carry, tokens)

    def action_of(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The environment's actions and raw ones of tokens `[B, m]`."""
        raw_action = self.predictive.actor.action_of_tokens(tokens)
        return actions.to_env_action(raw_action, self.predictive.actor.action_spec), raw_action

    def policy(self, plan: Plan | None, tell: Callable = lambda decision: ()) -> Policy:
        """As it is evaluated: by `plan` over its own predictions; None: by the policy's modes.

        Where actions are sampled (`propose`), the samples are drawn whatever the plan. `tell` makes the
        extras of what the plan decided.
        """

        def act(params, carry, obs, is_first, key):
            params, (obs, legal), told = self.whole(params), unmasked(obs), ()
            state, carry = self.predictive.see(params, carry, obs, is_first)
            if plan is None:
                tokens, _ = self.predictive.decode(params, state, None, legal)
            else:
                candidates, decision = self.search(params, key, state, legal, plan)
                tokens, told = mcts.chosen(candidates, decision.action), tell(decision)
            return self.action_of(tokens)[0], told, sequence.acted(carry, tokens)

        return Policy(self.predictive.actor.init_carry, act)

    # --- learning ----------------------------------------------------------------------------------

    def targets(self, params: Any, carry: Any, trajectory: Trajectory, average: Callable) -> PlannerBatch:
        """Items `[s, b, T, ...]` of trajectories `[s, T, b]`; `average` means over all shards and devices."""
        t, extras, ppo = trajectory, trajectory.extras, self.config.ppo
        seen = Seen(t.obs, extras["raw_action"], extras.get("legal", ()), extras["is_first"])
        actor = self.predictive.actor
        carry = jax.vmap(actor.by_lane)(carry)
        of_shards = jax.vmap(partial(actor.values, self.whole(params)))
        values, values_after = of_shards(carry, seen, t.final_obs)
        estimate = partial(gae, discount=ppo.discount, trace=ppo.trace)
        advantage = jax.vmap(estimate)(t.reward, t.terminated, t.truncated, values, values_after)
        batch = PlannerBatch(
            obs=seen.obs,
            raw_action=seen.raw_action,
            log_prob=extras.get("log_prob", ()),
            advantage=standardise(advantage, average),
            value=values,
            target=values + advantage,
            reward=t.reward,
            terminated=t.terminated,
            truncated=t.truncated,
            is_first=seen.is_first,
            legal=seen.legal,
            candidates=extras.get("candidates", ()),
            weights=extras.get("weights", ()),
        )
        return recollection.as_items(batch, carry)

    def loss(self, params: Any, batch: PlannerBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Of policy and value where something was seen, and of what is predicted from there."""
        b, c, net, params = recollection.as_seen(batch), self.config, self.predictive, self.whole(params)
        window = net.read(params, b.carry, Seen(b.obs, b.raw_action, b.legal, b.is_first))
        unrolled = net.unroll(params, window, c.spr.num_steps)
        parts = net.parts(params, window.states, unrolled.heard[0], window.legal)
        value, target = net.actor.value_of(params, window.states), b.target.reshape(-1)
        clip = c.ppo.value_clip or jnp.inf
        known = followed(b.terminated, b.truncated, c.spr.num_steps)
        policy_loss, told = self.policy_loss(params, window, parts, b)
        losses = net.model_losses(params, window, unrolled, known, b.reward.reshape(-1), target, parts)
        losses |= {"value": jnp.mean(clipped_value_loss(value, b.value.reshape(-1), target, clip=clip))}
        entropy = jnp.mean(sum(d.entropy() for d in parts))
        of_model = losses["reward"] + losses["next_value"] + losses["next_policy"]
        total = policy_loss - c.ppo.entropy_weight * entropy + c.ppo.value_weight * losses["value"]
        total = total + c.model_weight * of_model + c.spr.weight * losses["spr"]
        named = {f"train/loss/{name}": x for name, x in (losses | {"policy": policy_loss}).items()}
        return total, named | told | {"train/entropy": entropy} | actions.stuck(b.legal)

    def policy_loss(
        self, params: PredictiveParams, window: Window, parts: list[Categorical], b: PlannerBatch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """PPO's surrogate, the cross-entropy of what search found, or their sum, `[]`; and what they tell."""
        total, told = jnp.zeros(()), {}
        if self.config.has_surrogate:
            log_prob = sum(d.log_prob(window.tokens[:, i]) for i, d in enumerate(parts))
            old, advantage = b.log_prob.reshape(-1), b.advantage.reshape(-1)
            total = total + jnp.mean(ppo_clip(log_prob, old, advantage, clip=self.config.ppo.clip))
            told["train/kl"] = jnp.mean(approximate_kl(log_prob, old))
        if self.config.searches:
            total = total + self.surprise(params, window, b)
            found = -jnp.sum(jax.scipy.special.xlogy(b.weights, b.weights), axis=-1)
            told["train/entropy/search"] = jnp.mean(found)
        return total, told

    def surprise(self, params: PredictiveParams, window: Window, b: PlannerBatch) -> jax.Array:
        """Cross-entropy `[]` of the policy under what search made of it, over what was searched among."""
        candidates = b.candidates.reshape(-1, *b.candidates.shape[2:])
        state, legal = window.states[:, None], window.legal
        state = jnp.broadcast_to(state, (*candidates.shape[:-1], state.shape[-1]))
        legal = legal if isinstance(legal, tuple) else legal[:, None]
        log_prob = self.predictive.log_prob(params, state, candidates, legal)
        weights = b.weights.reshape(log_prob.shape)
        return jnp.mean(-jnp.sum(jnp.where(weights > 0.0, weights * log_prob, 0.0), axis=-1))
