"""The PASTA study: its data, its models, how they are pretrained and what is read off them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs.pasta import Config, ModelConfig
from experiments.parts import robot_data
from experiments.parts.experts import seeds_of
from experiments.parts.robot_data import RobotData
from experiments.parts.sequences import PARAMS
from jaxagent import keys
from jaxagent.agents import pretraining, representation, zero_shot
from jaxagent.agents.pretraining import OBJECTIVES, Objective, PretrainParams
from jaxagent.config import NUM_SHARDS, FitConfig
from jaxagent.data import sampler, store, tree_file
from jaxagent.nn import sequence_model, transformer
from jaxagent.nn.sequence_model import Layout, SequenceModel
from jaxagent.tokens import component, tokenizer
from jaxagent.tokens.tokenizer import Tokenizer
from jaxagent.train import loops, optimizer, parallel
from jaxagent.train.run import Work, read_done, stage_folder

MEASURED_WINDOWS = 512  # held-out windows per domain, to measure a pretrained model


class Study(NamedTuple):
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


def collect(config: Config, place: Path) -> dict[str, Any]:
    """Write the store of all domains; returns their cards."""
    shards, cards = [], {}
    for domain in config.domains:
        new, cards[domain.name] = robot_data.collect(domain, config.collect, config.seed)
        shards += new
    store.write(place / "store", shards)
    return {"cards": cards, "sha256": store.digest(place / "store")}


def load(config: Config, folder: Path) -> dict[str, RobotData]:
    """What `collect` left, by domain."""
    place = stage_folder(folder, "collect") / "store"
    cards = read_done(folder, "collect")["summary"]["cards"]
    return {
        d.name: robot_data.load(place, d, config.collect.tier, cards[d.name]["reference"])
        for d in config.domains
    }


def study_of(config: Config, model: ModelConfig, data: Mapping[str, RobotData]) -> Study:
    """Fit the tokenizers of a model's domains on their training split and build it."""
    chosen = config.domains_of(model)
    tokens = config.tokens_of(model)
    specs = [(data[d.name].env.obs_spec, data[d.name].env.action_spec) for d in chosen]
    domains = component.domains(specs)
    tokenizers = tuple(
        tokenizer.fit(data[d.name].env, domain, *robot_data.flat(data[d.name].train), tokens)
        for d, domain in zip(chosen, domains, strict=True)
    )
    built = sequence_model.model(config.network_of(model), tokens, tuple(domains))
    names = tuple(d.name for d in chosen)
    return Study(built, OBJECTIVES[model.objective], tokenizers, names)


def pretrain(config: Config, model: ModelConfig, folder: Path) -> Work:
    """Pretrain one model on all its domains: one static shape a domain, losses averaged."""
    data = load(config, folder)
    study = study_of(config, model, data)
    settings, context = config.fit_of(model), config.network.context
    names = tuple(n for n in study.names if n != model.held_out)
    layouts = [study.layout(n) for n in names]
    train = [_windows(study, n, data[n].train, context, model, config.seed) for n in names]
    progress = _progress(settings)

    def sample(data: Any, key: jax.Array) -> Any:
        key_windows, key_loss = jax.random.split(key)
        domain_keys = jax.random.split(key_windows, len(data))
        size = settings.batch_size // NUM_SHARDS
        batches = [sampler.sample_units(w, k, size, context) for w, k in zip(data, domain_keys, strict=True)]
        return batches, jax.random.split(key_loss, len(data))

    def loss(params: PretrainParams, minibatch: Any, slow: Any, count: Any) -> tuple[Any, dict]:
        batches, loss_keys = minibatch
        losses, metrics = [], {}
        for i, (batch, layout) in enumerate(zip(batches, layouts, strict=True)):
            value, parts = study.objective.loss(
                study.model, params, slow, layout, batch, loss_keys[i], progress(count)
            )
            losses.append(value)
            metrics[f"train/loss/{names[i]}"] = value
            metrics |= {f"{k}/{names[i]}": v for k, v in parts.items()}
        return jnp.mean(jnp.stack(losses)), metrics

    lane_ids = jnp.arange(config.num_pretrainings, dtype=jnp.int32)
    in_turn, adamw = config.runtime.lanes_in_turn, optimizer.adamw(settings)
    loop = loops.lanes(
        loops.slow_offline(loss, sample, adamw, config.slow_rate, in_turn), lane_ids=lane_ids, in_turn=in_turn
    )
    chunk = parallel.chunked(loop, settings.updates_per_chunk, config.runtime.devices, train)
    key = keys.derive(config.seed, "pretrain")  # of all models: they see the same windows

    def first() -> Any:
        first_keys = keys.per_index(keys.derive(config.seed, "pretrain/init"), lane_ids)
        init = partial(pretraining.init, study.model, study.objective)
        return parallel.first_state(*loop.init(jax.vmap(init)(first_keys)))

    def finish(state: Any, place: Path) -> dict[str, Any]:
        params = state.learner.params
        tree_file.save(place / PARAMS, params.model)
        seen = dict(zip(names, train, strict=True))
        measured = _measure(study, params.model, data, seen, config)
        return {
            "validation": measured,
            "parameters": transformer.num_parameters(params.model) // config.num_pretrainings,
            "tokens": tokens_per_update(config, layouts) * settings.num_updates,
            "transitions": settings.batch_size * context * len(train) * settings.num_updates,
            "flops": flops_per_update(config, study, layouts) * settings.num_updates,
            "tokenizers": {
                n: t.report(*robot_data.flat(data[n].validation))
                for n, t in zip(study.names, study.tokenizers, strict=True)
            },
        }

    return Work(
        finish=finish,
        init=jax.jit(first),
        chunk=lambda state: chunk(state, key),
        num_chunks=settings.num_updates // settings.updates_per_chunk,
        updates_per_chunk=settings.updates_per_chunk,
        units_per_update={
            "tokens": config.num_pretrainings * tokens_per_update(config, layouts),
            "flops": int(config.num_pretrainings * flops_per_update(config, study, layouts)),
        },
        dtype=config.network.dtype,
    )


def _progress(settings: FitConfig) -> Callable[[jax.Array], jax.Array]:
    return lambda count: count.astype(jnp.float32) / settings.num_updates


def _windows(
    study: Study, name: str, trajectories: Sequence[Any], context: int, model: ModelConfig, seed: int
) -> sampler.UnitWindows:
    windows = sampler.unit_windows(trajectories, study.tokenizer(name), context)
    if model.data == "intact":
        return windows
    return sampler.shuffled_units(
        windows, keys.derive(seed, f"shuffle/{name}"), study.layout(name).domain.obs_size
    )


def tokens_per_update(config: Config, layouts: Sequence[Layout]) -> int:
    """Tokens of one update, all domains."""
    windows = config.pretrain.batch_size * config.network.context
    return windows * sum(layout.num_tokens for layout in layouts)


def flops_per_update(config: Config, study: Study, layouts: Sequence[Layout]) -> float:
    """Operations of one update's passes, forward and backward; heads and stems are left out."""
    model = study.model
    passes = {"smart": 3, "spr": 2, "spr_tokens": 2, "spr_token": 2}.get(_name_of(study.objective), 1)
    total = 0.0
    for layout in layouts:
        tokens = config.pretrain.batch_size * config.network.context * layout.num_tokens
        per_token = transformer.flops_per_token(model.config, model.vocabulary, layout.num_tokens)
        total += passes * tokens * per_token
    return total


def _name_of(objective: Objective) -> str:
    return next(name for name, o in OBJECTIVES.items() if o is objective)


def _measure(
    study: Study,
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
        windows = sampler.unit_windows(data[name].validation, study.tokenizer(name), context)
        key = keys.derive(config.seed, f"measure/{name}")
        batch = sampler.sample_units(windows, key, MEASURED_WINDOWS, context)
        key_loss = keys.derive(config.seed, f"measure/{name}/loss")
        one = jax.jit(partial(_measure_domain, study, study.layout(name)))
        for i, row in enumerate(rows):
            own = jax.tree.map(lambda x, i=i: x[i], params)
            row[name] = {k: float(v) for k, v in one(own, batch, key_loss).items()}
            if study.model.tokens.values == "bins":
                row[name]["unigram"] = unigram(seen.unit, batch, study.model.tokens.num_bins)
    return rows


def _measure_domain(
    study: Study, layout: Layout, params: Any, batch: Any, key: jax.Array
) -> dict[str, jax.Array]:
    found = zero_shot.errors(study.model, study.objective, params, layout, batch)
    if study.objective.has_latent:  # their loss is of what they learn themselves: no yardstick
        return found
    alone = PretrainParams(params, {})
    loss, _ = study.objective.loss(study.model, alone, alone, layout, batch, key, jnp.ones(()))
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


def seeds(config: Config) -> tuple[int, ...]:
    """Downstream seeds."""
    return seeds_of(config.adapt)


def features_of(config: Config, study: Study, name: str) -> Callable[..., jax.Array]:
    """T(s) of a domain's states in a pretrained model."""
    pool = config.adapt.pool if study.objective.is_causal else "mean"
    return representation.features(
        study.model, study.layout(name), is_causal=study.objective.is_causal, pool=pool
    )


def feature_size(config: Config, study: Study, name: str) -> int:
    """Width of T(s)."""
    pool = config.adapt.pool if study.objective.is_causal else "mean"
    return representation.size(study.model, study.layout(name), pool)


def pretrained(config: Config, study: Study, folder: Path, name: str, seed: int) -> Any:
    """Parameters of a pretrained model: downstream seeds take the pretrainings in turn."""
    one = jax.eval_shape(study.model.init, jax.random.key(0))
    count = config.num_pretrainings
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), one)
    params = tree_file.load(stage_folder(folder, f"pretrain/{name}") / PARAMS, template)
    return jax.tree.map(lambda x: x[seed % count], params)
