"""Zero-shot prediction: a pretrained model asked for actions, next states and actions between.

Errors are mean absolute errors in the tokenizer's warped space, which spans [-1, 1] for every
component. What knows nothing copies the last value of the same scalar.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxagent.agents.pretraining import Objective, predict_hidden, predict_next
from jaxagent.data.sampler import Batch
from jaxagent.nn.sequence_model import SequenceModel
from jaxagent.objectives import masking
from jaxagent.objectives.sequence import expected_unit, weighted_mean
from jaxagent.tokens.layout import Layout


def errors(
    model: SequenceModel, objective: Objective, params: Any, layout: Layout, batch: Batch
) -> dict[str, jax.Array]:
    """Errors `[]` of the last step's queries, each of one value given all before (and after, "inverse").

    "action": the last action given the past and the last state. "forward": the last state given
    what came before. "inverse": the action before the last state, given both states; only where the
    model looks ahead. A causal component model sees the components before a scalar, of the same
    state too, so its errors are of one scalar at a time, as in pretraining. Raises ValueError for
    categories, between which there is no distance.
    """
    if layout.domain.widest:
        raise ValueError(
            f"zero-shot errors of domain {layout.domain.index}: got categories, expected reals, which "
            "have distances; compare losses."
        )
    run = _causal if objective.is_causal else _masked
    predicted = jax.jit(lambda p, b: run(model, p, layout, b))(params, batch)
    return predicted | _copied(layout, batch)


def _causal(model: SequenceModel, params: Any, layout: Layout, batch: Batch) -> dict[str, jax.Array]:
    predicted, _, _ = predict_next(model, params, layout, batch)
    error = jnp.abs(expected_unit(predicted, model.tokens.values) - batch.unit)
    return _of_last(error, layout, batch)


def _masked(model: SequenceModel, params: Any, layout: Layout, batch: Batch) -> dict[str, jax.Array]:
    batch_size, num_steps, _ = batch.unit.shape
    kinds = layout.kinds()
    time = jnp.arange(num_steps)[:, None]
    last, is_action = time == num_steps - 1, (kinds == masking.ACTION)[None]
    queries = {"action": last & is_action, "forward": last, "inverse": (time == num_steps - 2) & is_action}
    size = layout.num_tokens
    result = {}
    for name, hidden in queries.items():
        everywhere = jnp.broadcast_to(hidden[None], (batch_size, num_steps, size))
        attention = masking.full(num_steps, size)
        predicted = predict_hidden(model, params, layout, batch, everywhere, attention)
        error = jnp.abs(expected_unit(predicted, model.tokens.values) - batch.unit)
        part = _of_last(error, layout, batch)
        step = -2 if name == "inverse" else -1
        result[name] = _mean(error, layout, batch, step, "action") if step == -2 else part[name]
    return result


def _copied(layout: Layout, batch: Batch) -> dict[str, jax.Array]:
    """Errors of copying the value one step before."""
    before = jnp.pad(batch.unit, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    copied = _of_last(jnp.abs(before - batch.unit), layout, batch)
    return {f"copied_{name}": value for name, value in copied.items()}


def _of_last(error: jax.Array, layout: Layout, batch: Batch) -> dict[str, jax.Array]:
    return {
        "action": _mean(error, layout, batch, -1, "action"),
        "forward": _mean(error, layout, batch, -1, "obs"),
    }


def _mean(error: jax.Array, layout: Layout, batch: Batch, step: int, kind: str) -> jax.Array:
    """Mean of `error [B, K, P]` over one step's states or actions, where the window is whole."""
    n = layout.domain.obs_size
    part = error[:, step, n:] if kind == "action" else error[:, step, :n]
    whole = jnp.broadcast_to(batch.is_real[:, -1:], part.shape)
    return weighted_mean(part, whole)
