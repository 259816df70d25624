"""The action-state transformer on stored trajectories: domains, windows, next-token pretraining."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxagent import keys
from jaxagent.agents import pretraining
from jaxagent.config import NUM_SHARDS, FitConfig, TokenConfig, TransformerConfig
from jaxagent.data import normalize, sampler
from jaxagent.data.normalize import Moments
from jaxagent.nn import sequence_model
from jaxagent.nn.sequence_model import SequenceModel
from jaxagent.study.agents import stack
from jaxagent.study.study import Lanes
from jaxagent.tokens import component, tokenizer
from jaxagent.tokens.component import Codec, Domain
from jaxagent.tokens.layout import Layout
from jaxagent.tokens.stream import PADDING
from jaxagent.tokens.tokenizer import Tokenizer
from jaxagent.train import loops, optimizer
from jaxagent.types import Trajectory


class Corpus(NamedTuple):
    """Several environments as domains of one model."""

    model: SequenceModel
    tokenizers: list[Tokenizer]
    moments: list[Moments]  # of the observations, for raw-observation baselines

    @property
    def domains(self) -> list[Domain]:
        """The domains by index."""
        return [t.domain for t in self.tokenizers]

    @property
    def codecs(self) -> list[Codec]:
        """The fitted bins by index."""
        return [t.codec for t in self.tokenizers]


def corpus(
    environments: Sequence[Any],
    trajectories: Sequence[Sequence[Trajectory]],
    tokens: TokenConfig,
    model: TransformerConfig,
) -> Corpus:
    """Number the domains and fit their bins on trajectories `[T, B, ...]` of each environment."""
    domains = component.domains([(env.obs_spec, env.action_spec) for env in environments])
    tokenizers, moments = [], []
    for env, domain, parts in zip(environments, domains, trajectories, strict=True):
        obs = np.concatenate([t.obs.reshape(-1, len(env.obs_spec)) for t in parts])
        action = np.concatenate([t.action.reshape(-1, *t.action.shape[2:]) for t in parts])
        tokenizers.append(tokenizer.fit(env, domain, obs, action, tokens))
        moments.append(normalize.moments_of(obs))
    return Corpus(sequence_model.model(model, tokens, tuple(domains)), tokenizers, moments)


def windows(
    of: Corpus, index: int, trajectories: Sequence[Trajectory], size: int | None = None
) -> sampler.Windows:
    """Windows of trajectories `[T, B, ...]` of domain `index`, padded to `size` steps."""
    return sampler.windows(trajectories, of.tokenizers[index], of.model.config.context, size)


def draw(of: Corpus, config: FitConfig) -> Callable[[Any, jax.Array], sampler.Batch]:
    """A function `(windows, key) -> batch [b, K, ...]` that draws the part of one shard."""
    size, context = config.batch_size // NUM_SHARDS, of.model.config.context
    return partial(sampler.sample, batch_size=size, context=context)


def supervised(
    loss: Callable,
    sample: Callable,
    params: Any,
    config: FitConfig,
    purpose: str,
    ids: Sequence[int],
    *,
    data: Any,
    data_axis: Any = None,
    units: Mapping[str, int],
    tell: Callable[[Any], dict[str, Any]] = lambda params: {},
) -> Lanes:
    """Lanes of `params [N, ...]` fitted to data; `ids` pair them across fits of one purpose."""
    return Lanes(
        loops.supervised(loss, sample, optimizer.adamw(config)),
        lambda: (params,),
        config,
        keys.derive(0, purpose),
        ids=ids,
        data=data,
        data_axis=data_axis,
        units=units,
        tell=tell,
    )


def next_token(of: Corpus, config: FitConfig) -> tuple[Callable, Callable]:
    """Loss and sampler of next-token prediction, a batch of every domain."""
    draw_one = draw(of, config)

    def sample(data: Any, key: jax.Array) -> list[sampler.Batch]:
        domain_keys = jax.random.split(key, len(data))
        return [draw_one(w, k) for w, k in zip(data, domain_keys, strict=True)]

    def loss(params: Any, batches: Any, data: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        del data
        losses = [
            pretraining.next_scalars(of.model, params, layout, batch)[0]
            for layout, batch in zip(of.model.layouts, batches, strict=True)
        ]
        named = {f"train/loss/domain_{i}": x for i, x in enumerate(losses)}
        return jnp.mean(jnp.stack(losses)), named

    return loss, sample


def pretrain(
    of: Corpus,
    data: Sequence[sampler.Windows],
    seeds: Sequence[int],
    config: FitConfig,
    *,
    data_axis: int | None = None,
    tell: Callable[[Any], dict[str, Any]] = lambda params: {},
) -> Lanes:
    """A lane a seed by next-token prediction on windows of every domain; equal seeds begin alike."""
    init = jax.jit(of.model.init)
    params = stack([init(keys.derive(seed, "pretrain/init")) for seed in seeds])
    tokens = config.batch_size * of.model.config.context * sum(d.period for d in of.domains)
    return supervised(
        *next_token(of, config),
        params,
        config,
        "pretrain",
        seeds,
        data=list(data),
        data_axis=data_axis,
        units={"tokens": tokens},
        tell=tell,
    )


def validation(
    of: Corpus, train: Sequence[Any], held_out: Sequence[Any], lanes: Sequence[str], params: Any
) -> list[dict[str, float]]:
    """Held-out cross-entropy of lanes `params [N, ...]` by domain, beside that of components' frequencies."""
    config = FitConfig(batch_size=256 * NUM_SHARDS)
    rows = []
    for i, (seen, data, layout) in enumerate(zip(train, held_out, of.model.layouts, strict=True)):

        def evaluate(params: Any, data: Any, key: jax.Array, layout: Layout = layout) -> jax.Array:
            return pretraining.next_scalars(of.model, params, layout, draw(of, config)(data, key))[0]

        run = jax.jit(jax.vmap(evaluate, in_axes=(0, None, None)))
        losses = run(params, data, keys.derive(0, f"validate/{i}"))
        rows.append(dict(zip(lanes, map(float, losses), strict=True)))
        rows[-1]["unigram"] = unigram(of.model, layout, _steps(seen), _steps(data))
    return rows


def _steps(of: sampler.Windows) -> jax.Array:
    """Scalars `[N, P]` of the real steps."""
    return of.unit[np.asarray(of.segment) != PADDING]


def unigram(model: SequenceModel, layout: Layout, seen: jax.Array, held_out: jax.Array) -> float:
    """Cross-entropy (nats) of scalars' tokens `[N, P]` under smoothed frequencies in `seen [M, P]`."""
    sizes, num_bins, size = layout.domain.sizes, model.vocabulary.num_bins, model.vocabulary.size
    tokens = jax.jit(partial(component.tokens_of, sizes, num_bins))
    columns = (np.asarray(tokens(unit)).T for unit in (seen, held_out))
    losses = []
    for train_column, column in zip(*columns, strict=True):
        counts = np.bincount(train_column, minlength=size) + 1.0
        losses.append(-np.mean(np.log(counts / counts.sum())[column]))
    return float(np.mean(losses))
