"""The action-state transformer on stored trajectories: domains, pretraining, cloning in lanes."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parts.experts import stack
from jaxagent import keys
from jaxagent.adapt import lora
from jaxagent.agents import offline, sequence
from jaxagent.config import NUM_SHARDS, FitConfig, TokenConfig, TransformerConfig
from jaxagent.data import normalize, sampler, tree_file
from jaxagent.data.normalize import Moments
from jaxagent.data.store import Shard
from jaxagent.nn import transformer
from jaxagent.nn.transformer import Model
from jaxagent.tokens import component, stream
from jaxagent.tokens.component import Codec, Domain
from jaxagent.train import loops, optimizer, parallel
from jaxagent.train.run import Work

PARAMS = "params.npz"
LORA_TARGETS = ("query", "key", "value", "output", "up", "down")


class Corpus(NamedTuple):
    """Several environments as domains of one model."""

    model: Model
    domains: list[Domain]
    codecs: list[Codec]
    moments: list[Moments]  # of the observations, for raw-observation baselines
    tokens: TokenConfig


def corpus(
    environments: Sequence[Any],
    shards: Sequence[Sequence[Shard]],
    tokens: TokenConfig,
    model: TransformerConfig,
) -> Corpus:
    """Number the domains and fit their bins on `shards`, the training split of each environment."""
    specs = [(env.obs_spec, env.action_spec) for env in environments]
    all_domains = component.domains(specs)
    vocabulary = transformer.Vocabulary(
        num_bins=tokens.num_bins,
        num_categories=max(d.action_cardinality for d in all_domains),
        num_components=sum(d.period for d in all_domains),
        num_domains=len(all_domains),
    )
    codecs, moments = [], []
    for env, parts in zip(environments, shards, strict=True):
        obs = np.concatenate([p.trajectory.obs.reshape(-1, len(env.obs_spec)) for p in parts])
        action = [p.trajectory.action.reshape(-1, *p.trajectory.action.shape[2:]) for p in parts]
        codecs.append(component.fit(obs, np.concatenate(action), env.action_spec, tokens))
        count = np.float32(len(obs))
        moments.append(Moments(count, obs.mean(0), obs.var(0)))
    return Corpus(transformer.model(model, vocabulary), all_domains, codecs, moments, tokens)


def windows(corpus: Corpus, index: int, trajectories: Sequence[Any], size: int | None = None):
    """Windows of trajectories of domain `index`, padded to `size` steps."""
    return sampler.windows(
        trajectories,
        corpus.codecs[index],
        corpus.domains[index],
        corpus.tokens,
        corpus.model.config.context,
        size,
    )


def _tokens(batch: sampler.Batch, domain: Domain) -> stream.Tokens:
    return stream.flatten(batch.obs_tokens, batch.action_tokens, batch.segment, domain)


def _sampler(corpus: Corpus, config: FitConfig) -> Callable:
    return partial(
        sampler.sample, batch_size=config.batch_size // NUM_SHARDS, context=corpus.model.config.context
    )


def fit(
    loss: Callable,
    sample: Callable,
    data: Any,
    data_axis: Any,
    params: Any,
    lane_ids: jax.Array,
    config: FitConfig,
    *,
    purpose: str,
    devices: int,
    tokens_per_update: int,
    summary: Callable[[Any], dict] = lambda params: {},
) -> Work:
    """Fit lanes of `params [N, ...]`; the artefact holds them, `lane_ids` pair them across fits."""
    loop = loops.lanes(loops.offline(loss, sample, optimizer.adamw(config)), data_axis, lane_ids)
    chunk = parallel.chunked(loop, config.updates_per_chunk, devices, data)
    key = keys.derive(0, purpose)

    def finish(state: Any, place: Path) -> dict[str, Any]:
        tree_file.save(place / PARAMS, state.learner.params)
        return summary(state.learner.params)

    return Work(
        finish=finish,
        init=lambda: jax.jit(lambda p: parallel.first_state(*loop.init(p)))(params),
        chunk=lambda state: chunk(state, key),
        num_chunks=config.num_updates // config.updates_per_chunk,
        updates_per_chunk=config.updates_per_chunk,
        units_per_update={"tokens": tokens_per_update},
    )


def pretrain(
    corpus: Corpus,
    train: Sequence[Any],
    validation: Sequence[Any],
    seed: int,
    config: FitConfig,
    devices: int,
) -> Work:
    """Pretrain two lanes by next-token prediction: the model, and the saboteur on shuffled steps.

    `train`, `validation`: lists of trajectories per domain. The lanes share their first parameters
    and their draws.
    """
    clean = [windows(corpus, i, t) for i, t in enumerate(train)]
    data = [_pair(w, keys.derive(seed, f"shuffle/{i}")) for i, w in enumerate(clean)]
    loss, sample = _next_token(corpus, config)
    first = jax.jit(corpus.model.init)(keys.derive(seed, "pretrain/init"))
    held_out = [windows(corpus, i, t) for i, t in enumerate(validation)]
    return fit(
        loss,
        sample,
        data,
        0,
        stack([first, first]),
        jnp.array([seed, seed]),
        config,
        purpose="pretrain",
        devices=devices,
        tokens_per_update=2 * _tokens_per_update(corpus, config),
        summary=lambda params: validate(corpus, clean, held_out, params),
    )


def pretrain_seeds(
    corpus: Corpus, train: Sequence[Any], seeds: Sequence[int], config: FitConfig, devices: int
) -> Work:
    """Pretrain a lane a seed by next-token prediction, all on the same trajectories."""
    loss, sample = _next_token(corpus, config)
    init = jax.jit(corpus.model.init)
    return fit(
        loss,
        sample,
        [windows(corpus, i, t) for i, t in enumerate(train)],
        None,
        stack([init(keys.derive(seed, "pretrain/init")) for seed in seeds]),
        jnp.array(seeds),
        config,
        purpose="pretrain",
        devices=devices,
        tokens_per_update=len(seeds) * _tokens_per_update(corpus, config),
    )


def _next_token(corpus: Corpus, config: FitConfig) -> tuple[Callable, Callable]:
    """Loss and sampler of next-token prediction, a batch of every domain."""
    draw = _sampler(corpus, config)

    def sample(data: Any, key: jax.Array) -> Any:
        domain_keys = jax.random.split(key, len(data))
        return [draw(w, k) for w, k in zip(data, domain_keys, strict=True)]

    def loss(params: Any, batches: Any, data: Any) -> tuple[jax.Array, dict]:
        del data
        losses = [
            sequence.loss(corpus.model, params, _tokens(b, d), actions_only=False)
            for b, d in zip(batches, corpus.domains, strict=True)
        ]
        named = {f"train/loss/domain_{i}": x for i, x in enumerate(losses)}
        return jnp.mean(jnp.stack(losses)), named

    return loss, sample


def _tokens_per_update(corpus: Corpus, config: FitConfig) -> int:
    per_domain = config.batch_size * corpus.model.config.context
    return per_domain * sum(d.period for d in corpus.domains)


def _pair(clean: sampler.Windows, key: jax.Array) -> sampler.Windows:
    return stack([clean, sampler.shuffled(clean, key)])


def validate(corpus: Corpus, train: Sequence[Any], held_out: Sequence[Any], params: Any) -> dict:
    """Validation cross-entropy of both lanes, beside that of each component's frequencies."""
    config = FitConfig(batch_size=256 * NUM_SHARDS)
    rows = []
    for i, (seen, data, domain) in enumerate(zip(train, held_out, corpus.domains, strict=True)):
        draw = _sampler(corpus, config)

        def evaluate(params: Any, data: Any, key: jax.Array, draw=draw, domain=domain) -> jax.Array:
            tokens = _tokens(draw(data, key), domain)
            return sequence.loss(corpus.model, params, tokens, actions_only=False)

        lanes = jax.jit(jax.vmap(evaluate, in_axes=(0, None, None)))
        model, saboteur = lanes(params, data, keys.derive(0, f"validate/{i}"))
        rows.append(
            {
                "model": float(model),
                "saboteur": float(saboteur),
                "unigram": _unigram(seen, data, corpus.model.vocabulary.size),
            }
        )
    return {"validation": rows}


def _unigram(seen: sampler.Windows, data: sampler.Windows, size: int) -> float:
    """Cross-entropy (nats) of held-out tokens under each component's smoothed frequencies."""

    def columns(w: sampler.Windows) -> np.ndarray:
        both = np.concatenate([w.obs_tokens, w.action_tokens], axis=1)
        return both[np.asarray(w.segment) >= 0]

    losses = []
    for train_column, column in zip(columns(seen).T, columns(data).T, strict=True):
        counts = np.bincount(train_column, minlength=size) + 1.0
        losses.append(-np.mean(np.log(counts / counts.sum())[column]))
    return float(np.mean(losses))


class Demonstrations(NamedTuple):
    """What the arms of one task clone."""

    index: int  # of the domain
    windows: sampler.Windows  # leaves [seeds, ...]
    seeds: tuple[int, ...]


def demonstrations(
    corpus: Corpus, index: int, episodes: Sequence[Any], count: int, seeds: Sequence[int]
) -> Demonstrations:
    """Draw `count` episodes for each seed, without repetition inside a seed."""
    if count > len(episodes):
        raise ValueError(
            f"demonstrations: got {count}, expected at most {len(episodes)} finished episodes; "
            "raise collect.demonstration_episodes."
        )
    chosen = []
    for seed in seeds:
        order = jax.random.permutation(keys.derive(seed, f"demonstrations/{index}"), len(episodes))
        chosen.append([episodes[i] for i in np.asarray(order)[:count]])
    size = max(len(t.reward) for t in episodes) * count  # one shape whatever the draw
    lanes = [windows(corpus, index, t, size) for t in chosen]
    return Demonstrations(index, stack(lanes), tuple(seeds))


def clone(
    corpus: Corpus, demos: Demonstrations, params: Any, arms: int, config: FitConfig, devices: int
) -> Work:
    """Clone with the whole network: lanes `[arms x seeds]` of `params`, arms paired by seed."""
    domain = corpus.domains[demos.index]
    draw = _sampler(corpus, config)

    def loss(params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict]:
        del data
        tokens = _tokens(batch, domain)
        return sequence.loss(corpus.model, params, tokens, actions_only=True), {}

    data = jax.tree.map(lambda x: np.concatenate([x] * arms), demos.windows)
    lane_ids = jnp.array(demos.seeds * arms)
    return _clone(corpus, demos, loss, draw, data, 0, params, lane_ids, config, devices)


def clone_lora(
    corpus: Corpus, demos: Demonstrations, base: Any, rank: int, config: FitConfig, devices: int
) -> Work:
    """Clone with low-rank adapters on a frozen base, one lane per seed."""
    domain = corpus.domains[demos.index]
    draw = _sampler(corpus, config)

    def loss(adapters: Any, batch: Any, data: Any) -> tuple[jax.Array, dict]:
        params = lora.merge(data[1], adapters)
        tokens = _tokens(batch, domain)
        return sequence.loss(corpus.model, params, tokens, actions_only=True), {}

    adapters = lora_init(base, rank, demos.seeds)
    lane_ids = jnp.array(demos.seeds)
    data = (demos.windows, base)
    return _clone(
        corpus, demos, loss, lambda d, k: draw(d[0], k), data, (0, None), adapters, lane_ids, config, devices
    )


def lora_init(base: Any, rank: int, seeds: Sequence[int]) -> Any:
    """Adapters `[seeds, ...]`."""
    lane_keys = jnp.stack([keys.derive(s, "lora/init") for s in seeds])
    return _lora_lanes(lane_keys, base, rank)


@partial(jax.jit, static_argnames="rank")
def _lora_lanes(lane_keys: jax.Array, base: Any, rank: int) -> Any:
    return jax.vmap(lambda key: lora.init(key, base, rank, LORA_TARGETS))(lane_keys)


def clone_raw(
    corpus: Corpus, demos: Demonstrations, network: offline.RawNetwork, config: FitConfig, devices: int
) -> Work:
    """Clone with the raw-observation MLP, one lane per seed."""
    moments = corpus.moments[demos.index]
    draw = _sampler(corpus, config)

    def loss(params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict]:
        del data
        obs = normalize.apply(moments, batch.obs)
        weight = batch.segment != sampler.PADDING
        return offline.cloning_loss(network, params, obs, batch.action_tokens, weight), {}

    params = raw_init(network, demos.seeds)
    lane_ids = jnp.array(demos.seeds)
    return _clone(corpus, demos, loss, draw, demos.windows, 0, params, lane_ids, config, devices)


def raw_init(network: offline.RawNetwork, seeds: Sequence[int]) -> Any:
    """Parameters `[seeds, ...]` of the raw-observation MLP."""
    lane_keys = jnp.stack([keys.derive(s, "raw/init") for s in seeds])
    return jax.jit(jax.vmap(network.init))(lane_keys)


def _clone(
    corpus: Corpus,
    demos: Demonstrations,
    loss: Callable,
    sample: Callable,
    data: Any,
    data_axis: Any,
    params: Any,
    lane_ids: jax.Array,
    config: FitConfig,
    devices: int,
) -> Work:
    """One purpose for all arms of a task: equal seeds draw equal windows in equal order."""
    per_lane = config.batch_size * corpus.model.config.context * corpus.domains[demos.index].period
    return fit(
        loss,
        sample,
        data,
        data_axis,
        params,
        lane_ids,
        config,
        purpose=f"clone/{demos.index}",
        devices=devices,
        tokens_per_update=per_lane * len(lane_ids),
    )


def load_params(place: Path, template: Any) -> Any:
    """Read the artefact of a fit."""
    return tree_file.load(place / PARAMS, template)
