"""The action-state transformer with a model of what follows: one network to act, predict and search with.

A state is the transformer's vector `[D]` where an observation ends, over what its cache holds of the
episode. From there `nn.token_dynamics` hears an action token by token: the policy decodes by it, and the
heads read what it predicts. Losses hold predictions to what came (`model_losses`); self-prediction (SPR,
Schwarzer et al. 2021) is one of them.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.agents import sequence
from jaxagent.agents.recollection import Seen
from jaxagent.agents.self_prediction import ahead, distances
from jaxagent.agents.sequence_actor import SequenceActor
from jaxagent.nn.distributions import Categorical
from jaxagent.nn.short_scan import short_scan
from jaxagent.nn.token_dynamics import Dynamics
from jaxagent.objectives.sequence import weighted_mean


class PredictiveParams(NamedTuple):
    """Parameters of the one network."""

    network: Any  # of the transformer; of adapters beside it where these alone learn
    value: jax.Array  # [D + 1]: a linear layer on states, its bias last
    dynamics: Any


class Window(NamedTuple):
    """A segment as the network read it; `n = T b` steps, time first."""

    states: jax.Array  # [n, D]
    tokens: jax.Array  # [n, m] of the actions taken
    legal: Any  # [n, K] bool, or ()
    num_steps: int  # T


class Followed(NamedTuple):
    """What is known of the states `[K + 1, n]` at and after each step of a segment."""

    # float32: 1 where the state was seen, in the segment and the episode of the step
    is_alive: jax.Array
    is_known: jax.Array  # float32: also 1 after a termination, where nothing is worth anything


class Unrolled(NamedTuple):
    """Predictions from each of n states, of K steps and the state itself before them."""

    states: jax.Array  # [K + 1, n, D]
    heard: jax.Array  # [K + 1, n, m, D]: while the action taken there is heard


@dataclasses.dataclass(frozen=True)
class PredictiveActor:
    """The functions of the network in one domain. Parameters are whole (`SequencePlanner.whole`)."""

    actor: SequenceActor
    dynamics: Dynamics

    def init(self, key: jax.Array) -> PredictiveParams:
        """First parameters; the transformer's are those of the actor, pretrained or fresh."""
        key_actor, key_dynamics = jax.random.split(key)
        first = self.actor.init(key_actor)
        return PredictiveParams(first.network, first.value, self.dynamics.init(key_dynamics))

    def see(
        self, params: PredictiveParams, carry: Any, obs: jax.Array, is_first: jax.Array
    ) -> tuple[jax.Array, Any]:
        """States `[B, D]` of what is seen, and the memory before an action."""
        a, (shown, patch) = self.actor, self.actor.shown(obs)
        return sequence.see(a.model, a.domain, params.network, carry, shown, is_first, patch)

    def choices(self, params: PredictiveParams, state: jax.Array, i: int, legal: Any = ()) -> Categorical:
        """The policy `[...]` of component i of an action in states `[..., D]` that heard those before it."""
        return self.actor.choices(self.actor.model.read(params.network, None, state), i, legal)

    def decode(
        self, params: PredictiveParams, state: jax.Array, key: jax.Array | None, legal: Any = ()
    ) -> tuple[jax.Array, jax.Array]:
        """Tokens `[B, m]` of actions in states `[B, D]`, and their log-probability; without a key modes."""
        size, tokens, log_prob = self.actor.domain.action_size, [], jnp.zeros(state.shape[:-1])
        for i, k in enumerate([None] * size if key is None else jax.random.split(key, size)):
            dist = self.choices(params, state, i, legal)
            tokens.append(dist.mode() if k is None else dist.sample(k))
            log_prob = log_prob + dist.log_prob(tokens[-1])
            state = self.dynamics.hear(params.dynamics, state, tokens[-1], i)
        return jnp.stack(tokens, axis=-1), log_prob

    def parts(
        self, params: PredictiveParams, state: jax.Array, heard: jax.Array, legal: Any = ()
    ) -> list[Categorical]:
        """The policy `[...]` of every component, given those before it as `heard [..., m, D]` has them."""
        places = [state, *(heard[..., i, :] for i in range(self.actor.domain.action_size - 1))]
        return [self.choices(params, x, i, legal) for i, x in enumerate(places)]

    def log_prob(
        self, params: PredictiveParams, state: jax.Array, tokens: jax.Array, legal: Any = ()
    ) -> jax.Array:
        """Log-probability `[...]` of actions, tokens `[..., m]`, in states `[..., D]`."""
        parts = self.parts(params, state, self.dynamics.step(params.dynamics, state, tokens), legal)
        return sum((d.log_prob(tokens[..., i]) for i, d in enumerate(parts)), jnp.zeros(tokens.shape[:-1]))

    def read(self, params: PredictiveParams, carry: Any, seen: Seen) -> Window:
        """A segment `[T, b]` in one pass behind the cache with which it began."""
        a, num_steps = self.actor, seen.is_first.shape[0]
        states, _ = a.read_window(params, carry, a.window(carry, seen))
        states = a.of_steps(states, num_steps, a.domain.period - 1)
        tokens = a.tokens_of_action(seen.raw_action)
        legal = seen.legal if isinstance(seen.legal, tuple) else by_step(seen.legal)
        return Window(by_step(states), by_step(tokens), legal, num_steps)

    def unroll(self, params: PredictiveParams, window: Window, num_steps: int) -> Unrolled:
        """Predict `num_steps` (K) from every step of a window, under the actions that were taken."""

        def step(state: jax.Array, tokens: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            heard = self.dynamics.step(params.dynamics, state, tokens)
            return heard[..., -1, :], (state, heard)

        taken = after(window.tokens, num_steps, window.num_steps)
        return Unrolled(*short_scan(step, window.states, taken)[1])

    def model_losses(
        self,
        params: PredictiveParams,
        window: Window,
        unrolled: Unrolled,
        followed: Followed,
        reward: jax.Array,
        value: jax.Array,
        parts: list[Categorical],
    ) -> dict[str, jax.Array]:
        """Losses `[]` of what is predicted: reward, value, policy, and the state itself ("spr").

        `reward [n]` and `value [n]` are of the window's steps, the value a target; `parts` are the policy
        there. Policies and states of what was seen are targets without gradient. Half squared errors;
        divergences in nats, of an action the sum over its components; 2 - 2 cos of states.
        """
        count, total = unrolled.states.shape[0] - 1, window.num_steps
        later = unrolled.states[1:]
        is_alive, is_known = followed.is_alive[1:], followed.is_known[1:]
        # The reward of an action is known where the state before it is.
        told = self.dynamics.reward(params.dynamics, later)
        owed = followed.is_alive[:-1] * after(reward, count, total)[:-1]
        worth = is_alive * after(value, count, total)[1:]
        guessed = self.parts(params, later, unrolled.heard[1:])
        divergence = [
            Categorical(jax.lax.stop_gradient(after(p.logits, count, total)[1:])).kl(q)
            for p, q in zip(parts, guessed, strict=True)
        ]
        missed = jnp.square(self.actor.value_of(params, later) - worth)
        return {
            "reward": 0.5 * weighted_mean(jnp.square(told - owed), followed.is_known[:-1]),
            "next_value": 0.5 * weighted_mean(missed, is_known),
            "next_policy": weighted_mean(sum(divergence, jnp.zeros(is_alive.shape)), is_alive),
            "spr": self.state_loss(params, window, unrolled, followed),
        }

    def state_loss(
        self, params: PredictiveParams, window: Window, unrolled: Unrolled, followed: Followed
    ) -> jax.Array:
        """Mean `[]` of `2 - 2 cos` of projections of predicted states and of those that came (SPR, eq. 6).

        Those that came are the online network's, without gradient.
        """
        dynamics, count = self.dynamics, unrolled.states.shape[0] - 1
        true = jax.lax.stop_gradient(dynamics.project(params.dynamics, window.states))
        guess = dynamics.predict(params.dynamics, dynamics.project(params.dynamics, unrolled.states[1:]))
        distance = 2.0 * distances(guess, after(true, count, window.num_steps)[1:])
        return weighted_mean(distance, followed.is_alive[1:])


def after(x: jax.Array, count: int, length: int) -> jax.Array:
    """What came 0 to `count` steps after each of `n = T b`, `[count + 1, n, ...]`; 0 at the end."""
    by_time = x.reshape(1, length, -1, *x.shape[1:])
    shifted = ahead(by_time, count + 1)[0]
    return jnp.moveaxis(shifted, 2, 0).reshape(count + 1, *x.shape)


def followed(terminated: jax.Array, truncated: jax.Array, count: int) -> Followed:
    """What is known of `count` (K) steps from each step of a segment `[T, b]`."""
    length, goes_on = terminated.shape[0], ~(terminated | truncated)
    inside = after(by_step(jnp.ones_like(goes_on)), count, length)
    goes_on, ends = (after(by_step(x), count, length) for x in (goes_on, terminated))
    is_alive, is_over = [inside[0]], [jnp.zeros_like(inside[0])]
    for k in range(count):
        is_over.append(is_over[k] | is_alive[k] & ends[k])
        is_alive.append(is_alive[k] & goes_on[k] & inside[k + 1])
    alive, over = jnp.stack(is_alive), jnp.stack(is_over)
    return Followed(alive.astype(jnp.float32), (alive | over).astype(jnp.float32))


def by_step(x: jax.Array) -> jax.Array:
    """Steps `[T b, ...]` of a segment `[T, b, ...]`."""
    return x.reshape(-1, *x.shape[2:])
