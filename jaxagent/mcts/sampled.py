"""Search over K sampled actions a node: continuous actions, large joint spaces, text.

Sampled MuZero (Hubert et al. 2021): a node's edges are samples of a proposal, and priors are the
policy's probability over the proposal's, so that the search stands for one over all actions. Any
policy of this package then works on indices of samples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.mcts.base import Params, RecurrentFn, RecurrentFnOutput, RootFnOutput


class Samples(NamedTuple):
    """K actions at a state of every lane, and how likely they were."""

    actions: Any  # leaves [B, K, ...]
    log_policy: jax.Array  # [B, K] log-density or log-probability under the policy
    log_proposal: jax.Array  # [B, K] the same under what they were drawn from
    # [B, K] bool: the same action comes before, see `merge_copies`. `None`: all count.
    is_copy: jax.Array | None = None


class Sampled(NamedTuple):
    """Embedding of a node with its own actions."""

    state: Any  # leaves [B, ...]
    actions: Any  # leaves [B, K, ...]


def merge_copies(samples: Samples) -> Samples:
    """Let the first of equal actions stand for all: the copies' weight is added to its own.

    With few discrete actions most samples are copies, and a search that cannot tell them apart
    spends its simulations on the same edge several times. `is_copy` has to reach the search as
    `invalid_actions`; `sampled_model` sees to it below the root.
    """
    leaves = [x.reshape(*x.shape[:2], -1) for x in jax.tree.leaves(samples.actions)]
    equal = [jnp.all(x[:, :, None] == x[:, None], axis=-1) for x in leaves]
    is_same = jnp.all(jnp.stack(equal), axis=0)  # [B, K, K]
    first = jnp.argmax(is_same, axis=-1)  # [B, K]: who stands for the sample
    stands_for = first[:, None, :] == jnp.arange(first.shape[1])[None, :, None]
    each = jnp.where(stands_for, corrected_logits(samples)[:, None], -jnp.inf)
    is_copy = ~jnp.any(stands_for, axis=-1)
    total = jnp.where(is_copy, 0.0, jax.nn.logsumexp(each, axis=-1))
    return Samples(samples.actions, total, jnp.zeros_like(total), is_copy)


def corrected_logits(samples: Samples) -> jax.Array:
    """Prior logits `[B, K]`: the policy over the proposal (ibid., eq. 5; sampled counts are 1/K).

    Flat where samples are the policy's own; a sample drawn twice counts twice.
    """
    return samples.log_policy - samples.log_proposal


def sampled_root(value: jax.Array, state: Any, samples: Samples) -> RootFnOutput:
    """The root of a search over `samples` at `state`, worth `value [B]`."""
    return RootFnOutput(
        prior_logits=corrected_logits(samples), value=value, embedding=Sampled(state, samples.actions)
    )


def sampled_model(
    step_fn: Callable[..., tuple[jax.Array, jax.Array, Any]],
    propose: Callable[..., tuple[jax.Array, Samples]],
) -> RecurrentFn:
    """A `recurrent_fn` over indices of samples.

    `step_fn(params, key, action, state) -> reward [B], discount [B], state` with actions as
    proposed, leaves `[B, ...]`; `propose(params, key, state) -> value [B], Samples`, of as many
    samples as the root has.
    """

    def model(
        params: Params, key: jax.Array, index: jax.Array, node: Sampled
    ) -> tuple[RecurrentFnOutput, Sampled]:
        key_step, key_propose = jax.random.split(key)
        action = chosen(node.actions, index)
        reward, discount, state = step_fn(params, key_step, action, node.state)
        value, samples = propose(params, key_propose, state)
        step = RecurrentFnOutput(
            reward=reward,
            discount=discount,
            value=value,
            prior_logits=corrected_logits(samples),
            invalid_actions=samples.is_copy,
        )
        return step, Sampled(state, samples.actions)

    return model


def chosen(actions: Any, index: jax.Array) -> Any:
    """The actions, leaves `[B, ...]`, of `index [B]` among samples `[B, K, ...]`."""
    return jax.tree.map(lambda x: x[jnp.arange(x.shape[0]), index], actions)
