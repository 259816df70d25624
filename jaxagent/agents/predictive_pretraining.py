"""What a `PredictiveActor` learns of stored histories before any reward: next tokens, and its own states."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxagent.agents import pretraining
from jaxagent.agents.predictive_actor import PredictiveActor, PredictiveParams, Window, by_step, followed
from jaxagent.agents.recollection import Seen
from jaxagent.config import SPRConfig
from jaxagent.data.sampler import Batch
from jaxagent.objectives.sequence import weighted_mean
from jaxagent.tokens import component


def loss(
    net: PredictiveActor, spr: SPRConfig, params: PredictiveParams, batch: Batch
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss `[]` of stored windows `[b, K]`: of the next token, and with weight of states ahead (`spr`).

    Of an action's tokens those that the next-token loss does not reach are predicted where the policy
    decodes them: the later components, and all of them where observations are patches, which have no
    next token themselves. Reward and value are not learned.
    """
    is_patched = net.actor.patches is not None
    window, told = (_of_patches if is_patched else _of_tokens)(net, params, batch)
    first = 0 if is_patched else 1  # component that no token loss reached
    ends = ~jnp.pad(batch.is_real[:, 1:], ((0, 0), (0, 1))).swapaxes(0, 1)
    known = followed(jnp.zeros_like(ends), ends, spr.num_steps)
    unrolled = net.unroll(params, window, spr.num_steps)
    is_real = by_step(batch.is_real.swapaxes(0, 1))
    parts = net.parts(params, window.states, unrolled.heard[0])
    surprise = [-d.log_prob(window.tokens[:, i]) for i, d in enumerate(parts)][first:]
    told["decoded"] = weighted_mean(sum(surprise, jnp.zeros(is_real.shape)), is_real)
    of_states = net.state_loss(params, window, unrolled, known)
    total = sum(told.values()) + spr.weight * of_states
    return total, {f"train/loss/{name}": x for name, x in (told | {"spr": of_states}).items()}


def _of_tokens(
    net: PredictiveActor, params: PredictiveParams, batch: Batch
) -> tuple[Window, dict[str, jax.Array]]:
    """Windows of scalars, `unit [b, K, P]`, and the loss of all their tokens."""
    model, size = net.actor.model, net.actor.domain.obs_size
    (layout,) = model.layouts
    predicted, weight, states = pretraining.predict_next(model, params.network, layout, batch)
    states = states.reshape(*batch.unit.shape[:2], -1, states.shape[-1])[:, :, size - 1]
    tokens = component.tokens_of(layout.domain.sizes, net.actor.num_bins, batch.unit)[..., size:]
    states, tokens = (by_step(x.swapaxes(0, 1)) for x in (states, tokens))
    window = Window(states, tokens, (), batch.unit.shape[1])
    return window, {"token": pretraining.scored(layout, predicted, batch, weight)}


def _of_patches(
    net: PredictiveActor, params: PredictiveParams, batch: Batch
) -> tuple[Window, dict[str, Any]]:
    """Windows of boards, `obs [b, K, ...]`, and raw actions `unit [b, K, m]`, read as an episode is."""
    action, batch_size = batch.unit.swapaxes(0, 1), batch.unit.shape[0]
    if net.actor.domain.action_cardinality:
        action = action[..., 0].astype(jnp.int32)
    is_first = jnp.broadcast_to((jnp.arange(action.shape[0]) == 0)[:, None], action.shape[:2])
    carry = net.actor.by_lane(net.actor.init_carry(batch_size))
    return net.read(params, carry, Seen(batch.obs.swapaxes(0, 1), action, (), is_first)), {}
