"""PQN: Q-learning from many lanes at once, without replay and target network, with or without memory."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.agents import actions, recollection
from jaxagent.agents.recollection import Recall, Seen, Spec
from jaxagent.config import MemoryConfig, PQNConfig, require_whole_lanes
from jaxagent.nn.distributions import Categorical
from jaxagent.nn.mlp import MLP
from jaxagent.objectives.returns import q_lambda
from jaxagent.types import Agent, Policy, Trajectory, unmasked


class PQNParams(NamedTuple):
    """Parameters of action values."""

    memory: Any  # () without memory
    network: Any  # on its features


class PQNCarry(NamedTuple):
    """What the agent carries from step to step."""

    recollection: Any  # leaves [B, ...]; () without memory
    # The clock of exploration. It is of the lane and not of the update, which acting does not know,
    # and a part of the state that is saved: a run that is resumed explores as if it had gone on.
    num_steps: jax.Array  # [B] int32: env steps of the lane so far, over all its episodes


class PQNBatch(NamedTuple):
    """Items for the loss, `[...]`: env steps, or with a memory segments `[..., T]` of lanes."""

    obs: jax.Array  # [..., n]
    action: jax.Array  # [...] int32
    target: jax.Array  # [...] of the action's value
    is_known: jax.Array  # [...] bool: there is a target
    legal: Any = ()  # [..., A] bool, or () where nothing is forbidden
    is_first: Any = ()  # [..., T] bool with a memory
    carry: Any = ()  # with a memory: of each segment's beginning, leaves [...] without T


class Critic(NamedTuple):
    """Values of all actions, over what is remembered of the episode."""

    recall: Recall
    network: MLP

    def init(self, key: jax.Array) -> PQNParams:
        """First parameters."""
        key_memory, key_network = jax.random.split(key)
        example = jnp.zeros((1, self.recall.size))
        return PQNParams(self.recall.init(key_memory), self.network.init(key_network, example))

    def read(self, params: PQNParams, features: jax.Array) -> Any:
        """Values `[..., A]` of features `[..., F]`."""
        return self.network.apply(params.network, features)

    def step(
        self, params: PQNParams, carry: Any, obs: jax.Array, is_first: jax.Array
    ) -> tuple[jax.Array, Any]:
        """Values `[B, A]` of `obs [B, n]`, and the carry that has yet to hear of the action."""
        features, carry = self.recall.step(params.memory, carry, obs, is_first)
        return self.read(params, features), carry

    def unroll(self, params: PQNParams, carry: Any, seen: Seen) -> jax.Array:
        """Values `[T, B, A]` over a segment; carries `()` are of any leading axes."""
        return self.read(params, self.recall.unroll(params.memory, carry, seen))

    def peek(self, params: PQNParams, carry: Any, seen: Seen, final_obs: jax.Array) -> Any:
        """Values `[T, B, A]` before and after each step, of which `final_obs [T, B, n]` is seen."""
        both = self.recall.peek(params.memory, carry, seen, final_obs)
        return tuple(self.read(params, features) for features in both)


def critic_of(
    obs_spec: Spec, action_spec: Spec, config: PQNConfig, memory: MemoryConfig | None = None
) -> Critic:
    """Values on any observations, or on a memory of them; raises ValueError unless actions are one category.

    Layer normalisation is what Q-learning without a target network stands on (Gallici et al. 2024,
    section 3): with it the values of what was not seen stay bounded.
    """
    num_actions = actions.num_categories("PQN", action_spec, "use PPO")
    sizes = (config.hidden_size, config.hidden_size, num_actions)
    network = MLP(sizes, activation=jax.nn.relu, is_normalized=True)
    if memory is None:
        return Critic(recollection.sight(obs_spec), network)
    return Critic(recollection.recall(memory, obs_spec, action_spec), network)


def pqn(critic: Critic, config: PQNConfig) -> Agent:
    """PQN (Gallici et al. 2024, algorithm 1) for one category of actions, on any observations.

    What it acts on may be `types.Masked`: illegal actions are then neither explored, nor chosen, nor
    bootstrapped from; where nothing is legal, the first is taken. For `loops.on_policy`.

    Differs: epsilon falls with the env steps of each lane, not with the updates; a time limit
    bootstraps; with a memory, targets are made once an update, not once a minibatch, and a segment
    is replayed from the carry with which it was acted, without steps of the one before to warm up.
    Raises ValueError for minibatches that would be no whole segments of a memory.
    """
    recall = critic.recall
    if recall.remembers:
        require_whole_lanes(config)

    def act(
        params: PQNParams, carry: PQNCarry, obs: Any, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array], PQNCarry]:
        obs, legal = unmasked(obs)
        values, kept = critic.step(params, carry.recollection, obs, is_first)
        action = explore(values, legal, epsilon_at(config, carry.num_steps), key)
        extras = {} if isinstance(legal, tuple) else {"legal": legal}
        extras |= {"is_first": is_first} if recall.remembers else {}
        return action, extras, PQNCarry(recall.acted(kept, action), carry.num_steps + 1)

    def targets(params: PQNParams, carry: PQNCarry, trajectory: Trajectory, average: Any) -> PQNBatch:
        """Items `[s, n, ...]` of trajectories `[s, T, b]`."""
        del average
        of_shards = jax.vmap(partial(batch_of, critic, config), in_axes=(None, 0, 0))
        batch = of_shards(params, carry.recollection, trajectory)
        return recollection.as_items(batch, carry.recollection)

    def loss(params: PQNParams, batch: PQNBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
        batch = recollection.as_seen(batch)
        seen = Seen(batch.obs, batch.action, batch.legal, batch.is_first)
        values = taken(critic.unroll(params, batch.carry, seen), batch.action)
        error = jnp.where(batch.is_known, values - batch.target, 0.0)
        metrics = {"train/value": jnp.mean(values)}
        return 0.5 * jnp.mean(jnp.square(error)), metrics | actions.stuck(batch.legal)

    def init_carry(batch_size: int) -> PQNCarry:
        return PQNCarry(recall.init_carry(batch_size), jnp.zeros((batch_size,), jnp.int32))

    return Agent(critic.init, act, targets, loss, init_carry, recall.obs_size)


def greedy(critic: Critic) -> Policy:
    """The policy of the greatest values, for evaluation; the caller must normalise observations `[B, n]`."""

    def act(params, carry, obs, is_first, key):
        del key
        obs, legal = unmasked(obs)
        values, kept = critic.step(params, carry, obs, is_first)
        action = best(values, legal)
        return action, (), critic.recall.acted(kept, action)

    return Policy(critic.recall.init_carry, act)


def epsilon_at(config: PQNConfig, num_steps: jax.Array) -> jax.Array:
    """The share of actions `[B]` drawn uniformly after `num_steps [B]` env steps of each lane."""
    done = jnp.minimum(num_steps.astype(jnp.float32) / config.decay_steps, 1.0)
    return config.epsilon + (config.final_epsilon - config.epsilon) * done


def explore(values: jax.Array, legal: Any, epsilon: jax.Array, key: jax.Array) -> jax.Array:
    """Actions int32 `[B]`: the best of `values [B, A]`, and with probability `epsilon [B]` a uniform draw."""
    key_which, key_action = jax.random.split(key)
    other = Categorical(actions.mask_illegal(jnp.zeros_like(values), legal)).sample(key_action)
    return jnp.where(jax.random.bernoulli(key_which, epsilon), other, best(values, legal))


def best(values: jax.Array, legal: Any) -> jax.Array:
    """The legal actions int32 `[...]` of the greatest values `[..., A]`."""
    return jnp.argmax(actions.mask_illegal(values, legal), axis=-1).astype(jnp.int32)


def greatest(values: jax.Array, legal: Any) -> jax.Array:
    """The greatest `[...]` of the values `[..., A]` of legal actions."""
    return jnp.max(actions.mask_illegal(values, legal), axis=-1)


def taken(values: jax.Array, action: jax.Array) -> jax.Array:
    """Values `[...]` of the actions `[...]` among all, `[..., A]`."""
    return jnp.take_along_axis(values, action[..., None], axis=-1)[..., 0]


def batch_of(
    critic: Critic, config: PQNConfig, params: PQNParams, carry: Any, trajectory: Trajectory
) -> PQNBatch:
    """The batch `[T, b]` of a trajectory `[T, b]` that began with a carry `[b]`; nothing has a gradient.

    Where actions are masked, what is legal after a truncation or behind the last step is not known.
    There the return ends before the step, with the value of where it was taken, and of the step
    itself nothing is learned.
    """
    t = trajectory
    seen = Seen(t.obs, t.action, t.extras.get("legal", ()), t.extras.get("is_first", ()))
    values, next_values = critic.peek(params, carry, seen, t.final_obs)
    reward, terminated, next_legal = t.reward, t.terminated, ()
    is_known = jnp.ones_like(terminated)
    if not isinstance(seen.legal, tuple):
        next_legal = jnp.concatenate([seen.legal[1:], seen.legal[-1:]])
        is_known = terminated | ~(t.truncated.at[-1].set(True))
        reward = jnp.where(is_known, reward, greatest(values, seen.legal))
        terminated = terminated | ~is_known
    target = q_lambda(
        reward,
        terminated,
        t.truncated,
        greatest(next_values, next_legal),
        discount=config.discount,
        trace=config.trace,
    )
    return PQNBatch(t.obs, t.action, target, is_known, seen.legal, seen.is_first)
