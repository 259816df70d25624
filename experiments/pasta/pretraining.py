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
from jaxagent.agents import pretraining, representation
from jaxagent.agents.pretraining import OBJECTIVES, Objective, PretrainParams
from jaxagent.config import NUM_SHARDS, Pool
from jaxagent.data import sampler, store
from jaxagent.data.sampler import Batch, Windows
from jaxagent.evaluate import zero_shot
from jaxagent.nn import sequence_model, transformer
from jaxagent.nn.sequence_model import SequenceModel
from jaxagent.study import corpus
from jaxagent.study.agents import take
from jaxagent.study.study import Fit, Lanes
from jaxagent.tokens import component, tokenizer
from jaxagent.tokens.layout import Layout
from jaxagent.tokens.tokenizer import Tokenizer
from jaxagent.train import loops, optimizer
from jaxagent.train.run import read_done, stage_folder
from jaxagent.types import Trajectory

MEASURED_WINDOWS = 512  # held-out windows per domain, to measure a pretrained model
# Of the trunk in one update, where an objective takes more than one.
PASSES = {"smart": 3, "spr": 2, "spr_tokens": 2, "spr_token": 2}


class Reader(NamedTuple):
    """One pretrained model's view of its domains, by name."""

    config: ModelConfig
    model: SequenceModel
    objective: Objective
    layouts: dict[str, Layout]
    tokenizers: dict[str, Tokenizer]
    pool: Pool  # of T(s)

    def windows(self, name: str, trajectories: Sequence[Trajectory]) -> Windows:
        """Trajectories of a domain as the model reads them."""
        return sampler.windows(trajectories, self.tokenizers[name], self.model.config.context)

    def states(self, name: str) -> Callable[..., Any]:
        """States of the tokens that T(s) is read off, a function as `representation.states` has it."""
        causal = self.objective.is_causal
        return representation.states(self.model, self.layouts[name], is_causal=causal)

    def features(self, name: str) -> Callable[..., jax.Array]:
        """T(s) of a domain's states alone, a function as `representation.features` has it."""
        causal = self.objective.is_causal
        return representation.features(self.model, self.layouts[name], is_causal=causal, pool=self.pool)

    def size(self, name: str) -> int:
        """Width of T(s)."""
        return representation.size(self.model, self.layouts[name], self.pool)


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
    tier, cards = config.collect.tier, read_done(folder, "collect")["summary"]["cards"]
    return {d.name: robots.load(place, d, tier, cards[d.name]["reference"]) for d in config.domains}


def reader_of(config: Config, model: ModelConfig, data: Mapping[str, RobotData]) -> Reader:
    """Fit the tokenizers of a model's domains on their training split and build it."""
    tokens, objective = config.tokens_of(model), OBJECTIVES[model.objective]
    network, layouts = network_of(config, model, {name: robot.env for name, robot in data.items()})
    tokenizers = {
        name: tokenizer.fit(data[name].env, layout.domain, *robots.flat(data[name].train), tokens)
        for name, layout in layouts.items()
    }
    return Reader(model, network, objective, layouts, tokenizers, config.pool_of(model))


def network_of(
    config: Config, model: ModelConfig, envs: Mapping[str, Any]
) -> tuple[SequenceModel, dict[str, Layout]]:
    """A model's network, and how it reads each of its domains, of environments by name."""
    names, tokens = [d.name for d in config.domains_of(model)], config.tokens_of(model)
    domains = component.domains([(envs[name].obs_spec, envs[name].action_spec) for name in names])
    network = sequence_model.model(config.network_of(model), tokens, tuple(domains))
    return network, dict(zip(names, network.layouts, strict=True))


def fit_of(config: Config, model: ModelConfig) -> Fit:
    """Several pretrainings of one model on all its domains; the network stays, without its heads."""
    return Fit(f"pretrain/{model.name}", partial(_lanes, config, model))


def _lanes(config: Config, model: ModelConfig, folder: Path | None) -> Lanes:
    """One static shape a domain, losses averaged."""
    data = load(config, folder)
    reader = reader_of(config, model, data)
    settings, context, objective = config.fit_of(model), config.network.context, reader.objective
    names = [name for name in reader.layouts if name != model.held_out]
    train = {name: seen(config, reader, name, reader.windows(name, data[name].train)) for name in names}
    layouts, num_steps = [reader.layouts[name] for name in names], settings.batch_size * context

    def sample(data: Any, key: jax.Array) -> Any:
        key_windows, key_loss = jax.random.split(key)
        domain_keys, size = jax.random.split(key_windows, len(data)), settings.batch_size // NUM_SHARDS
        batches = [sampler.sample(w, k, size, context) for w, k in zip(data, domain_keys, strict=True)]
        return batches, jax.random.split(key_loss, len(data))

    def loss(params: PretrainParams, minibatch: Any, data: Any, slow: loops.Slow) -> tuple[Any, dict]:
        del data
        progress = slow.num_updates.astype(jnp.float32) / settings.num_updates
        losses, metrics = [], {}
        for name, layout, batch, key in zip(names, layouts, *minibatch, strict=True):
            value, parts = objective.loss(reader.model, params, slow.params, layout, batch, key, progress)
            losses.append(value)
            metrics |= {f"train/loss/{name}": value} | {f"{k}/{name}": v for k, v in parts.items()}
        return jnp.mean(jnp.stack(losses)), metrics

    def tell(params: Any) -> dict[str, Any]:
        reports = {n: t.report(*robots.flat(data[n].validation)) for n, t in reader.tokenizers.items()}
        return {
            "validation": _measure(config, reader, params, data, train),
            "parameters": transformer.num_parameters(params) // config.num_pretrainings,
            "transitions": num_steps * len(names) * settings.num_updates,
            "tokenizers": reports,
        }

    in_turn, ids = config.runtime.lanes_in_turn, pretrainings(config)
    first_key = keys.derive(config.seed, "pretrain/init")
    init = jax.vmap(partial(pretraining.init, reader.model, objective))
    slow = loops.averaged(config.slow_rate)
    return Lanes(
        loops.supervised(loss, sample, optimizer.adamw(settings), slow=slow, in_turn=in_turn),
        lambda: (keys.per_index(first_key, jnp.array(ids, jnp.int32)),),
        settings,
        keys.derive(config.seed, "pretrain"),  # of all models: they see the same windows
        begin=lambda lane_keys: (init(lane_keys),),
        ids=ids,
        data=list(train.values()),
        keep=lambda learner: learner.params.model,
        units={
            "tokens": num_steps * sum(layout.num_tokens for layout in layouts),
            "flops": flops_per_update(config, reader.model, model, layouts),
        },
        tell=tell,
        in_turn=in_turn,
        dtype=config.network.dtype,
    )


def seen(config: Config, reader: Reader, name: str, windows: Windows) -> Windows:
    """A domain's data as a model is pretrained on them: its own, or a saboteur's."""
    kind, layout = reader.config.data, reader.layouts[name]
    if kind == "shuffled":
        return sampler.shuffled(windows, keys.derive(config.seed, f"shuffle/{name}"))
    if kind == "renamed":
        key = keys.derive(config.seed, f"rename/{name}")
        return sampler.renamed(windows, key, layout.domain.sizes, config.tokens.num_bins)
    return windows


def flops_per_update(
    config: Config, network: SequenceModel, model: ModelConfig, layouts: Sequence[Layout]
) -> int:
    """Operations of an update's passes, both ways; stems, and heads of latent objectives, are left out."""
    steps, outputs = config.fit_of(model).batch_size * config.network.context, network.vocabulary.size
    sizes = [layout.num_tokens for layout in layouts]
    flops = sum(size * transformer.flops_per_token(network.config, outputs, size) for size in sizes)
    return PASSES.get(model.objective, 1) * steps * flops


def _measure(
    config: Config, reader: Reader, params: Any, data: dict[str, RobotData], train: dict[str, Windows]
) -> list[dict[str, Any]]:
    """Of each pretraining, by domain: held-out losses and errors beside what knows nothing.

    `params` are lanes `[pretrainings, ...]`: one program a domain.
    """
    rows: list[dict[str, Any]] = [{} for _ in range(config.num_pretrainings)]
    for name, seen in train.items():
        windows = reader.windows(name, data[name].validation)
        key = keys.derive(config.seed, f"measure/{name}")
        batch = sampler.sample(windows, key, MEASURED_WINDOWS, config.network.context)
        key_loss = keys.derive(config.seed, f"measure/{name}/loss")
        measure = jax.jit(partial(_measure_domain, reader, name))
        for i, row in enumerate(rows):
            row[name] = {k: float(v) for k, v in measure(take(params, i), batch, key_loss).items()}
            if reader.model.tokens.values == "bins":
                real = batch.unit[np.asarray(batch.is_real)]
                row[name]["unigram"] = corpus.unigram(reader.model, reader.layouts[name], seen.unit, real)
    return rows


def _measure_domain(reader: Reader, name: str, params: Any, batch: Batch, key: jax.Array) -> dict[str, Any]:
    model, objective, layout = reader.model, reader.objective, reader.layouts[name]
    errors = zero_shot.errors(model, objective, params, layout, batch)
    if objective.has_latent:  # their loss is of what they learn themselves: no yardstick
        return errors
    alone = PretrainParams(params, {})
    loss, _ = objective.loss(model, alone, alone, layout, batch, key, jnp.ones(()))
    return errors | {"loss": loss}


def networks(config: Config, reader: Reader, folder: Path | None, fresh: str = "") -> list[Any]:
    """A network's parameters for every downstream seed, which take the pretrainings in turn.

    With `fresh`, the purpose of a key, they are drawn as before any training.
    """
    if fresh:
        init = jax.jit(reader.model.init)
        return [init(keys.derive(seed, fresh)) for seed in config.adapt.seeds]
    lanes = fit_of(config, reader.config).load(folder, reader.model.init)
    count = config.num_pretrainings
    return [take(lanes, i % count) for i in range(len(config.adapt.seeds))]


def pretrainings(config: Config) -> range:
    """Ids of the pretrainings: claim seeds meet none that development seeds met."""
    first = config.adapt.seeds.first
    return range(first, first + config.num_pretrainings)
