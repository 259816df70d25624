"""Pretraining objectives of the action-state model, at any granularity.

Each is a function `(model, params, slow, layout, batch, key, progress) -> loss [], metrics` of one
domain's windows, a `Batch`: `params` are `PretrainParams`, `slow` their moving average (read by
the latent objectives alone), `progress` in [0, 1] is the share of training done (read by SMART's
curriculum).
What is hidden comes from `objectives.masking`, the losses from `objectives.sequence` and
`objectives.latent`.

Differs, of all: hidden tokens are one learned vector in one trunk, where MTM and MaskDP have an
encoder of the kept tokens and a decoder; that hidden tokens are looked at by nobody else stays.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxagent.agents import representation
from jaxagent.config import TrunkConfig
from jaxagent.data.sampler import Batch
from jaxagent.nn import stem
from jaxagent.nn.dense import Dense
from jaxagent.nn.sequence_model import SequenceModel
from jaxagent.nn.token_trunk import TokenTransition
from jaxagent.objectives import masking
from jaxagent.objectives.latent import cosine_distance, squared_distance
from jaxagent.objectives.sequence import scalar_loss, weighted_mean
from jaxagent.tokens.layout import Layout
from kernels.attention.masks import Sight

BERT_RATE = 0.15


class PretrainParams(NamedTuple):
    """Parameters that pretraining learns."""

    model: Any  # of the sequence model
    latent: Any  # of the heads of latent objectives; {} for others


class Objective(NamedTuple):
    """A pretraining objective: its loss, how its representation is read, and its latent heads."""

    loss: Callable
    is_causal: bool  # how its representation is read: else every token sees all
    # (model, two keys) -> parameters of its latent heads; None: it has none, and no slow copy.
    init_latent: Callable | None = None

    @property
    def has_latent(self) -> bool:
        """Whether it compares latents with those of a slow copy."""
        return self.init_latent is not None


class LatentHeads(nn.Module):
    """Predict the next latent `[..., D]` from latents `[..., D]` and actions; an action layer a domain."""

    width: int

    @nn.compact
    def __call__(self, z: jax.Array, action: jax.Array, index: int) -> jax.Array:
        x = Dense(self.width, name="state")(z)
        x = x + Dense(self.width, name=f"action_{index}")(action)
        return Dense(z.shape[-1], name="next")(nn.gelu(x))


class Predictor(nn.Module):
    """SPR's predictor of latents `[..., D]`, on the side of the learner alone."""

    width: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        return Dense(z.shape[-1], name="out")(nn.gelu(Dense(self.width, name="in")(z)))


def init(model: SequenceModel, objective: Objective, key: jax.Array) -> PretrainParams:
    """First parameters of the model and of the objective's latent heads."""
    key_model, *keys_latent = jax.random.split(key, 3)
    latent = objective.init_latent(model, *keys_latent) if objective.init_latent else {}
    return PretrainParams(model.init(key_model), latent)


def vector_heads(model: SequenceModel, *keys: jax.Array) -> dict[str, Any]:
    """First parameters of the heads of latents that are vectors `[B, D]`."""
    return _latent_params(model, keys, "heads", LatentHeads(model.config.width), ())


def token_heads(model: SequenceModel, *keys: jax.Array) -> dict[str, Any]:
    """First parameters of the heads of latents that are tokens `[B, m, D]`."""
    return _latent_params(model, keys, "transition", transition_of(model), (1,))


def transition_of(model: SequenceModel) -> TokenTransition:
    """The module that steps the tokens `[B, m, D]` of a state, as in MuZero's token model."""
    c = model.config
    trunk = TrunkConfig(width=c.width, num_heads=c.num_heads, num_blocks=1, patch=1)
    return TokenTransition(trunk, 1)


def _latent_params(
    model: SequenceModel, keys: tuple[jax.Array, ...], name: str, step: nn.Module, tokens: tuple[int, ...]
) -> dict[str, Any]:
    """Parameters of what steps latents `[B, *tokens, D]`, for every domain, and of a predictor."""
    key_step, key_predictor = keys
    z, params = jnp.zeros((1, *tokens, model.config.width)), {}
    for layout in model.layouts:
        action = _action_features(layout, jnp.zeros((1, layout.domain.period)))
        params |= step.init(key_step, z, action, layout.domain.index)["params"]
    predictor = Predictor(model.config.width).init(key_predictor, z)["params"]
    return {name: params, "predictor": predictor}


def predict_next(
    model: SequenceModel, params: Any, layout: Layout, batch: Batch
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Causal pass: predictions `[B, K, P, ...]`, their weights `[B, K, P]`, states `[B, L, D]`.

    Scalar p of step k is read from the token before it; the very first token has none.
    """
    size = layout.num_tokens
    batch_size, num_steps, _ = batch.unit.shape
    attention = masking.within_episode(masking.causal(num_steps, size), batch.is_real, size)
    states = model.encode(params, layout, batch.unit, attention, is_causal=True)
    before = jnp.pad(states, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    predicted = model.read(params, layout, before.reshape(batch_size, num_steps, size, -1))
    has_past = jnp.arange(num_steps * size).reshape(num_steps, size) > 0
    weight = batch.is_real[..., None] & layout.per_scalar(has_past)[None]
    return predicted, weight, states


def predict_hidden(
    model: SequenceModel, params: Any, layout: Layout, batch: Batch, hidden: jax.Array, attention: Sight
) -> jax.Array:
    """Predictions `[B, K, P, ...]` of every scalar, read at its own token.

    `hidden [B, K, G]` tokens are masked.
    """
    size = layout.num_tokens
    batch_size, num_steps, _ = batch.unit.shape
    attention = masking.within_episode(attention, batch.is_real, size)
    states = model.encode(params, layout, batch.unit, attention, hidden)
    return model.read(params, layout, states.reshape(batch_size, num_steps, size, -1))


def gpt(model, params, slow, layout, batch, key, progress) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss `[]` of the next token, states and actions alike (PASTA's C-GPT)."""
    del slow, key, progress
    return next_scalars(model, params.model, layout, batch)


def next_scalars(
    model: SequenceModel, params: Any, layout: Layout, batch: Batch, *, actions_only: bool = False
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss `[]` of every scalar given those before it; cloning with `actions_only`."""
    predicted, weight, _ = predict_next(model, params, layout, batch)
    is_target = jnp.arange(layout.domain.period) >= (layout.domain.obs_size if actions_only else 0)
    return scored(layout, predicted, batch, weight & is_target[None, None]), {}


def bert(
    model, params, slow, layout, batch, key, progress, rate: float = BERT_RATE
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss `[]` of masked tokens (PASTA's C-BERT; Devlin et al. 2019)."""
    del slow, progress
    key_mask, key_swap = jax.random.split(key)
    shape = (*batch.unit.shape[:2], layout.num_tokens)
    chosen, fate = masking.bert(key_mask, shape, rate)
    # Others are the same scalars of other windows, where those exist.
    order = jax.random.permutation(key_swap, shape[0])
    swapped = (fate >= 0.8) & (fate < 0.9) & batch.is_real[order][..., None]
    swapped = layout.per_scalar(swapped)
    seen = batch._replace(unit=jnp.where(swapped, batch.unit[order], batch.unit))
    attention = masking.full(*shape[1:])
    predicted = predict_hidden(model, params.model, layout, seen, fate < 0.8, attention)
    weight = layout.per_scalar(chosen) & batch.is_real[..., None]
    return scored(layout, predicted, batch, weight), {}


def mtm(model, params, slow, layout, batch, key, progress) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss `[]` on all tokens under random autoregressive masks (MTM, Wu et al. 2023)."""
    del slow, progress
    num_steps = batch.unit.shape[1]
    one = masking.mtm(key, num_steps, layout.kinds())
    return _autoencode(model, params, layout, batch, _for_all(one, batch))


def maskdp(model, params, slow, layout, batch, key, progress) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss `[]` on all tokens under random masks at random rates (MaskDP, Liu et al. 2022).

    Differs: real-valued states are standardised by the tokenizer, not normalised by layer.
    """
    del slow, progress
    shape = (*batch.unit.shape[:2], layout.num_tokens)
    return _autoencode(model, params, layout, batch, masking.maskdp(key, shape))


def smart(model, params, slow, layout, batch, key, progress) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sum `[]` of forward latent, inverse dynamics and hindsight control losses (SMART, Sun 2023).

    Differs: the forward target is the slow model's T(s'), not its input embedding; the inverse
    pass reads the hidden action's own token, where SMART concatenates the states around it; the
    hindsight actions are read at their own tokens (their released code reads others).
    """
    num_steps, size = batch.unit.shape[1], layout.num_tokens
    is_action = jnp.arange(layout.domain.period) >= layout.domain.obs_size
    real_action = batch.is_real[..., None] & is_action[None, None]
    forward = _next_latent(model, params, slow, layout, batch)

    kinds = layout.kinds()
    actions_hidden = _for_all(jnp.broadcast_to(kinds == masking.ACTION, (num_steps, size)), batch)
    predicted = predict_hidden(
        model, params.model, layout, batch, actions_hidden, masking.inverse(num_steps, kinds)
    )
    has_next = jnp.pad(batch.is_real[:, 1:], ((0, 0), (0, 1)))[..., None]
    inverse = scored(layout, predicted, batch, real_action & has_next)

    hidden = masking.hindsight(key, batch.unit.shape[0], num_steps, kinds, progress)
    predicted = predict_hidden(model, params.model, layout, batch, hidden, masking.full(num_steps, size))
    control = scored(layout, predicted, batch, real_action & layout.per_scalar(hidden))
    total = forward + inverse + control
    return total, {
        "train/loss/forward": forward,
        "train/loss/inverse": inverse,
        "train/loss/control": control,
    }


def spr(model, params, slow, layout, batch, key, progress) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss `[]` of K-step self-prediction on T(s) beside the next token (SPR, Schwarzer et al. 2021).

    From the first state of a window, latents roll forward under its actions; each is compared by
    cosine with the slow model's T of the state that came. The next-token loss keeps actions in the
    representation, which a latent loss alone need not.
    """
    del key, progress
    predicted, weight, _ = predict_next(model, params.model, layout, batch)
    token_loss = scored(layout, predicted, batch, weight)
    obs_size, num_steps = layout.domain.obs_size, batch.unit.shape[1]
    features = representation.features(model, layout, is_causal=True, pool="last")
    z = features(params.model, batch.unit[:, 0, :obs_size])
    targets = jax.lax.stop_gradient(features(slow.model, batch.unit[:, 1:, :obs_size]))
    heads = LatentHeads(model.config.width)
    predictor = Predictor(model.config.width)
    losses = []
    for step in range(num_steps - 1):
        action = _action_features(layout, batch.unit[:, step])
        index = layout.domain.index
        z = z + heads.apply({"params": params.latent["heads"]}, z, action, index)
        guess = predictor.apply({"params": params.latent["predictor"]}, z)
        losses.append(cosine_distance(guess, targets[:, step]))
    latent = weighted_mean(jnp.stack(losses, axis=1), batch.is_real[:, 1:])
    return token_loss + latent, {"train/loss/token": token_loss, "train/loss/latent": latent}


def spr_tokens(
    model, params, slow, layout, batch, key, progress, num_steps: int | None = None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss `[]` of predicting a state's tokens over `num_steps` (K; None: half of the window).

    The steps before the last K are history, under block-causal attention. The tokens of the newest
    state then roll forward under K actions by a transformer, and each is compared by cosine with
    the slow model's token of the state that came, which is encoded alone and has seen no action
    between. K = 1 is the minimalist of Ni et al. (2024). The next-token loss stands beside it as in
    `spr`. Raises ValueError where a window has no more than K steps.
    """
    del key, progress
    predicted, weight, _ = predict_next(model, params.model, layout, batch)
    token_loss = scored(layout, predicted, batch, weight)
    length = batch.unit.shape[1]
    count = num_steps or length // 2
    if count >= length:
        raise ValueError(
            f"spr_tokens: got {count} steps to predict in windows of {length}, expected fewer; "
            "lengthen the context."
        )
    past = length - count
    z = _state_tokens(model, params.model, layout, batch, past)
    later = batch.unit[:, past:].reshape(-1, 1, layout.domain.period)
    real = jnp.ones((later.shape[0], 1), bool)
    targets = _state_tokens(model, slow.model, layout, Batch(later, real), 1)
    targets = jax.lax.stop_gradient(targets.reshape(-1, count, *z.shape[1:]))
    step, predictor = transition_of(model), Predictor(model.config.width)
    losses = []
    for k in range(count):
        action = _action_features(layout, batch.unit[:, past - 1 + k])
        z = step.apply({"params": params.latent["transition"]}, z, action, layout.domain.index)
        guess = predictor.apply({"params": params.latent["predictor"]}, z)
        losses.append(jnp.mean(cosine_distance(guess, targets[:, k]), axis=-1))
    # What is rolled forward from a state that does not exist is compared with nothing.
    is_real = batch.is_real[:, past:] & batch.is_real[:, past - 1 : past]
    latent = weighted_mean(jnp.stack(losses, axis=1), is_real)
    return token_loss + latent, {"train/loss/token": token_loss, "train/loss/latent": latent}


def _state_tokens(model, params, layout, batch, num_steps: int) -> jax.Array:
    """Tokens `[B, m, D]` of the last state of the first `num_steps`, which sees those before it."""
    size, num_obs = layout.num_tokens, layout.num_obs_tokens
    unit, is_real = batch.unit[:, :num_steps], batch.is_real[:, :num_steps]
    attention = masking.block_causal(num_steps, layout.kinds())
    attention = masking.within_episode(attention, is_real, size)
    last = (num_steps - 1) * size + num_obs
    states = model.encode(params, layout, unit, masking.first(attention, last), None, last)
    return states[:, -num_obs:]


def _next_latent(model, params, slow, layout, batch) -> jax.Array:
    """SMART's forward loss: the slow T(s') from the causal state at the action before it."""
    obs_size, size = layout.domain.obs_size, layout.num_tokens
    _, _, states = predict_next(model, params.model, layout, batch)
    last = states.reshape(*batch.unit.shape[:2], size, -1)[:, :-1, -1]
    action = _action_features(layout, batch.unit[:, :-1])
    heads = LatentHeads(model.config.width)
    index = layout.domain.index
    guess = heads.apply({"params": params.latent["heads"]}, last, action, index)
    features = representation.features(model, layout, is_causal=False, pool="mean")
    target = jax.lax.stop_gradient(features(slow.model, batch.unit[:, 1:, :obs_size]))
    return weighted_mean(squared_distance(guess, target), batch.is_real[:, 1:])


def _autoencode(model, params, layout, batch, hidden) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Rebuild every token from the kept ones."""
    full = masking.full(batch.unit.shape[1], layout.num_tokens)
    attention = masking.hide_from_others(full, hidden)
    predicted = predict_hidden(model, params.model, layout, batch, hidden, attention)
    weight = jnp.broadcast_to(batch.is_real[..., None], batch.unit.shape)
    return scored(layout, predicted, batch, weight), {}


def scored(layout: Layout, predicted: jax.Array, batch: Batch, weight: jax.Array) -> jax.Array:
    """Loss `[]` of predictions `[B, K, P, ...]` of all scalars, under `weight [B, K, P]`."""
    tokens, sizes = layout.tokens, layout.domain.sizes
    losses = scalar_loss(predicted, batch.unit, tokens.values, tokens.num_bins, sizes)
    return weighted_mean(losses, weight)


def _action_features(layout: Layout, unit: jax.Array) -> jax.Array:
    """The actions of transitions `[..., P]` as layers of latents read them, `[..., F]`."""
    return stem.one_hot(layout.domain.action_sizes, unit[..., layout.domain.obs_size :])


def _for_all(mask: jax.Array, batch: Batch) -> jax.Array:
    return jnp.broadcast_to(mask[None], (batch.unit.shape[0], *mask.shape))


OBJECTIVES = {
    "gpt": Objective(gpt, is_causal=True),
    "bert": Objective(bert, is_causal=False),
    "mtm": Objective(mtm, is_causal=False),
    "smart": Objective(smart, is_causal=False, init_latent=vector_heads),
    "maskdp": Objective(maskdp, is_causal=False),
    "spr": Objective(spr, is_causal=True, init_latent=vector_heads),
    "spr_tokens": Objective(spr_tokens, is_causal=False, init_latent=token_heads),
    "spr_token": Objective(
        functools.partial(spr_tokens, num_steps=1), is_causal=False, init_latent=token_heads
    ),
}


@functools.cache
def bert_at(rate: float) -> Objective:
    """BERT with another masking rate."""
    return Objective(functools.partial(bert, rate=rate), is_causal=False)
