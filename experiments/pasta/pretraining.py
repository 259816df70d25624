"""The data, the models, how they are pretrained and what is read off them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pasta import robots
from experiments.pasta.config import Config, ModelConfig
from experiments.pasta.robots import RobotData
from jaxagent import keys
from jaxagent.agents import pretraining, representation, zero_shot
from jaxagent.agents.pretraining import OBJECTIVES, Objective, PretrainParams
from jaxagent.config import NUM_SHARDS, FitConfig
from jaxagent.data import sampler, store
from jaxagent.nn import sequence_model, transformer
from jaxagent.nn.sequence_model import Layout, SequenceModel
from jaxagent.study.agents import take
from jaxagent.study.study import Fit, Lanes
from jaxagent.tokens import component, tokenizer
from jaxagent.tokens.tokenizer import Tokenizer
from jaxagent.train import loops, optimizer
from jaxagent.train.run import read_done, stage_folder

MEASURED_WINDOWS = 512  # held-out windows per domain, to measure a pretrained model


class Reader(NamedTuple):
    """One pretrained model's view of the domains."""

    model: SequenceModel
    objective: Objective
    tokenizers: tuple[Tokenizer, ...]  # of the model's domains, in its order
    names: tuple[str, ...]

    def layout(self, name: str) -> Layout:
        """The layout of a domain."""
        return self.model.layouts[self.names.index(name)]

    def tokenizer(self, name: str) -> Tokenizer:
        """The tokenizer of a domain."""
        return self.tokenizers[self.names.index(name)]


def collect(config: Config, folder: Path, place: Path) -> dict[str, Any]:
    """Histories of the training agents, demonstrations of the best, random and expert returns; cards."""
    shards, cards = [], {}
    for domain in config.domains:
        new, cards[domain.name] = robots.collect(domain, config.collect, config.seed)
        shards += new
    store.write(place / "store", shards, within=folder)
    return {"cards": cards, "sha256": store.digest(place / "store")}


def load(config: Config, folder: Path | None) -> dict[str, RobotData]:
    """What `collect` left, by domain; noise of the same shapes where there is no folder."""
    if folder is None:
        return {d.name: robots.stand_in(d) for d in config.domains}
    place = stage_folder(folder, "collect") / "store"
    cards = read_done(folder, "collect")["summary"]["cards"]
    return {
        d.name: robots.load(place, d, config.collect.tier, cards[d.name]["reference"]) for d in config.domains
    }


def reader_of(config: Config, model: ModelConfig, data: Mapping[str, RobotData]) -> Reader:
    """Fit the tokenizers of a model's domains on their training split and build it."""
    chosen = config.domains_of(model)
    tokens = config.tokens_of(model)
    specs = [(data[d.name].env.obs_spec, data[d.name].env.action_spec) for d in chosen]
    domains = component.domains(specs)
    tokenizers = tuple(
        tokenizer.fit(data[d.name].env, domain, *robots.flat(data[d.name].train), tokens)
        for d, domain in zip(chosen, domains, strict=True)
    )
    built = sequence_model.model(config.network_of(model), tokens, tuple(domains))
    names = tuple(d.name for d in chosen)
    return Reader(built, OBJECTIVES[model.objective], tokenizers, names)


def fit_of(config: Config, model: ModelConfig) -> Fit:
    """Several pretrainings of one model on all its domains; the network stays, without its heads."""
    return Fit(f"pretrain/{model.name}", partial(_lanes, config, model))


def _lanes(config: Config, model: ModelConfig, folder: Path | None) -> Lanes:
    """One static shape a domain, losses averaged."""
    data = load(config, folder)
    reader = reader_of(config, model, data)
    settings, context = config.fit_of(model), config.network.context
    names = tuple(n for n in reader.names if n != model.held_out)
    layouts = [reader.layout(n) for n in names]
    train = [_windows(reader, n, data[n].train, context, model, config.seed) for n in names]
    progress = _progress(settings)

    def sample(data: Any, key: jax.Array) -> Any:
        key_windows, key_loss = jax.random.split(key)
        domain_keys, size = jax.random.split(key_windows, len(data)), settings.batch_size // NUM_SHARDS
        batches = [sampler.sample_units(w, k, size, context) for w, k in zip(data, domain_keys, strict=True)]
        return batches, jax.random.split(key_loss, len(data))

    def loss(params: PretrainParams, minibatch: Any, slow: Any, count: Any) -> tuple[Any, dict]:
        batches, loss_keys = minibatch
        losses, metrics = [], {}
        for i, (batch, layout) in enumerate(zip(batches, layouts, strict=True)):
            value, parts = reader.objective.loss(
                reader.model, params, slow, layout, batch, loss_keys[i], progress(count)
            )
            losses.append(value)
            metrics[f"train/loss/{names[i]}"] = value
            metrics |= {f"{k}/{names[i]}": v for k, v in parts.items()}
        return jnp.mean(jnp.stack(losses)), metrics

    def tell(params: Any) -> dict[str, Any]:
        seen = dict(zip(names, train, strict=True))
        return {
            "validation": _measure(reader, params, data, seen, config),
            "parameters": transformer.num_parameters(params) // config.num_pretrainings,
            "transitions": settings.batch_size * context * len(train) * settings.num_updates,
            "tokenizers": {
                n: t.report(*robots.flat(data[n].validation))
                for n, t in zip(reader.names, reader.tokenizers, strict=True)
            },
        }

    in_turn, count = config.runtime.lanes_in_turn, config.num_pretrainings
    first_key = keys.derive(config.seed, "pretrain/init")
    init = partial(pretraining.init, reader.model, reader.objective)
    return Lanes(
        loops.slow_offline(loss, sample, optimizer.adamw(settings), config.slow_rate, in_turn),
        lambda: (keys.per_index(first_key, jnp.arange(count, dtype=jnp.int32)),),
        settings,
        keys.derive(config.seed, "pretrain"),  # of all models: they see the same windows
        begin=lambda lane_keys: (jax.vmap(init)(lane_keys),),
        ids=range(count),
        data=train,
        keep=lambda learner: learner.params.model,
        units={
            "tokens": tokens_per_update(config, layouts),
            "flops": int(flops_per_update(config, reader, layouts)),
        },
        tell=tell,
        in_turn=in_turn,
        dtype=config.network.dtype,
    )


def _progress(settings: FitConfig) -> Callable[[jax.Array], jax.Array]:
    return lambda count: count.astype(jnp.float32) / settings.num_updates


def _windows(
    reader: Reader, name: str, trajectories: Sequence[Any], context: int, model: ModelConfig, seed: int
) -> sampler.UnitWindows:
    windows = sampler.unit_windows(trajectories, reader.tokenizer(name), context)
    if model.data == "intact":
        return windows
    return sampler.shuffled_units(
        windows, keys.derive(seed, f"shuffle/{name}"), reader.layout(name).domain.obs_size
    )


def tokens_per_update(config: Config, layouts: Sequence[Layout]) -> int:
    """Tokens of one update, all domains."""
    windows = config.pretrain.batch_size * config.network.context
    return windows * sum(layout.num_tokens for layout in layouts)


def flops_per_update(config: Config, reader: Reader, layouts: Sequence[Layout]) -> float:
    """Operations of one update's passes, forward and backward; heads and stems are left out."""
    model = reader.model
    passes = {"smart": 3, "spr": 2, "spr_tokens": 2, "spr_token": 2}.get(_name_of(reader.objective), 1)
    total = 0.0
    for layout in layouts:
        tokens = config.pretrain.batch_size * config.network.context * layout.num_tokens
        per_token = transformer.flops_per_token(model.config, model.vocabulary, layout.num_tokens)
        total += passes * tokens * per_token
    return total


def _name_of(objective: Objective) -> str:
    return next(name for name, o in OBJECTIVES.items() if o is objective)


def _measure(
    reader: Reader,
    params: Any,
    data: Mapping[str, RobotData],
    train: Mapping[str, sampler.UnitWindows],
    config: Config,
) -> list[dict[str, Any]]:
    """Of each pretraining, by domain: held-out losses and errors beside what knows nothing.

    `params` are lanes `[pretrainings, ...]`: one program a domain.
    """
    rows: list[dict[str, Any]] = [{} for _ in range(config.num_pretrainings)]
    for name, seen in train.items():
        context = config.network.context
        windows = sampler.unit_windows(data[name].validation, reader.tokenizer(name), context)
        key = keys.derive(config.seed, f"measure/{name}")
        batch = sampler.sample_units(windows, key, MEASURED_WINDOWS, context)
        key_loss = keys.derive(config.seed, f"measure/{name}/loss")
        one = jax.jit(partial(_measure_domain, reader, reader.layout(name)))
        for i, row in enumerate(rows):
            own = jax.tree.map(lambda x, i=i: x[i], params)
            row[name] = {k: float(v) for k, v in one(own, batch, key_loss).items()}
            if reader.model.tokens.values == "bins":
                row[name]["unigram"] = unigram(seen.unit, batch, reader.model.tokens.num_bins)
    return rows


def _measure_domain(
    reader: Reader, layout: Layout, params: Any, batch: Any, key: jax.Array
) -> dict[str, jax.Array]:
    found = zero_shot.errors(reader.model, reader.objective, params, layout, batch)
    if reader.objective.has_latent:  # their loss is of what they learn themselves: no yardstick
        return found
    alone = PretrainParams(params, {})
    loss, _ = reader.objective.loss(reader.model, alone, alone, layout, batch, key, jnp.ones(()))
    return found | {"loss": loss}


def unigram(seen: jax.Array, batch: sampler.UnitBatch, num_bins: int) -> float:
    """Cross-entropy (nats) of held-out scalars under each component's smoothed frequencies."""
    bins = tokenizer.scalar.bin_of
    train, held_out = np.asarray(bins(seen, num_bins)), np.asarray(bins(batch.unit, num_bins))
    real, losses = np.asarray(batch.is_real), []
    for p in range(train.shape[1]):
        counts = np.bincount(train[:, p], minlength=num_bins) + 1.0
        losses.append(-np.mean(np.log(counts / counts.sum())[held_out[:, :, p][real]]))
    return float(np.mean(losses))


def features_of(config: Config, reader: Reader, name: str) -> Callable[..., jax.Array]:
    """T(s) of a domain's states in a pretrained model."""
    pool = config.adapt.pool if reader.objective.is_causal else "mean"
    return representation.features(
        reader.model, reader.layout(name), is_causal=reader.objective.is_causal, pool=pool
    )


def feature_size(config: Config, reader: Reader, name: str) -> int:
    """Width of T(s)."""
    pool = config.adapt.pool if reader.objective.is_causal else "mean"
    return representation.size(reader.model, reader.layout(name), pool)


def pretrained(config: Config, reader: Reader, folder: Path | None, name: str) -> list[Any]:
    """Parameters of a pretrained model for every downstream seed, which take the pretrainings in turn."""
    model = next(m for m in config.models if m.name == name)
    lanes = fit_of(config, model).load(folder, reader.model.init)
    return [take(lanes, seed % config.num_pretrainings) for seed in config.adapt.seeds]
