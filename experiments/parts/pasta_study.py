"""The PASTA study: pretraining, adaptation on T(s), evaluation; what lies between its stages."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.vector import broadcast_params
from experiments.configs.pasta import ArmConfig, Config, DomainConfig, ModelConfig
from experiments.parts import robot_data
from experiments.parts.experts import stack
from experiments.parts.robot_data import RobotData
from experiments.parts.sequences import PARAMS, fit
from jaxagent import keys
from jaxagent.adapt import ia3, lora, subset
from jaxagent.agents import pretraining, representation, sequence, zero_shot
from jaxagent.agents.actions import from_env_action, to_env_action
from jaxagent.agents.pretraining import OBJECTIVES, Objective, PretrainParams
from jaxagent.agents.sequence import SequenceParams
from jaxagent.config import NUM_SHARDS, FitConfig
from jaxagent.data import sampler, store, tree_file
from jaxagent.data.normalize import Moments
from jaxagent.data.normalize import apply as standardise
from jaxagent.evaluate.episodes import play, play_lanes
from jaxagent.nn import sequence_model, transformer
from jaxagent.nn.mlp import MLP
from jaxagent.nn.sequence_model import Layout, SequenceModel
from jaxagent.tokens import component, tokenizer
from jaxagent.tokens.tokenizer import Tokenizer
from jaxagent.train import loops, optimizer, parallel
from jaxagent.train.run import Work, read_done, stage_folder
from jaxagent.types import Policy

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


# --- pretraining ------------------------------------------------------------------------------


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
        batches = [
            sampler.sample_units(w, k, size, context)
            for w, k in zip(data, domain_keys, strict=True)
        ]
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
    loop = loops.lanes(
        loops.slow_offline(loss, sample, optimizer.adamw(settings), config.slow_rate),
        lane_ids=lane_ids, in_turn=config.runtime.lanes_in_turn,
    )  # fmt: skip
    chunk = parallel.chunked(loop, settings.updates_per_chunk, config.runtime.devices, train)
    key = keys.derive(config.seed, "pretrain")  # of all models: they see the same windows

    def first() -> Any:
        first_keys = keys.per_index(keys.derive(config.seed, "pretrain/init"), lane_ids)
        init = partial(pretraining.init, study.model, study.objective)
        return parallel.first_state(*loop.init(jax.vmap(init)(first_keys)))

    def finish(state: Any, place: Path) -> dict[str, Any]:
        params = state.learner.params
        tree_file.save(place / PARAMS, params.model)
        measured = [
            _measure(
                study, jax.tree.map(lambda x, i=i: x[i], params.model), data,
                dict(zip(names, train, strict=True)), config,
            )
            for i in range(config.num_pretrainings)
        ]
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
    passes = {"smart": 3, "spr": 2}.get(_name_of(study.objective), 1)
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
) -> dict[str, Any]:
    """Held-out losses and zero-shot errors by domain, beside what knows nothing."""
    rows, context = {}, config.network.context
    for name, seen in train.items():
        windows = sampler.unit_windows(data[name].validation, study.tokenizer(name), context)
        key = keys.derive(config.seed, f"measure/{name}")
        batch = sampler.sample_units(windows, key, MEASURED_WINDOWS, context)
        rows[name] = _measure_domain(study, params, name, batch, seen, config.seed)
    return rows


def _measure_domain(
    study: Study, params: Any, name: str, batch: Any, seen: sampler.UnitWindows, seed: int
) -> dict[str, Any]:
    layout = study.layout(name)
    result = zero_shot.errors(study.model, study.objective, params, layout, batch)
    key = keys.derive(seed, f"measure/{name}/loss")
    slow = PretrainParams(params, {})
    if study.objective.has_latent:
        loss = float("nan")
    else:
        run = jax.jit(
            lambda p: study.objective.loss(
                study.model, PretrainParams(p, {}), slow, layout, batch, key, jnp.ones(())
            )[0]
        )
        loss = float(run(params))
    row = {"loss": loss} | {k: float(v) for k, v in result.items()}
    if study.model.tokens.values == "bins":
        row["unigram"] = unigram(seen.unit, batch, study.model.tokens.num_bins)
    return row


def unigram(seen: jax.Array, batch: sampler.UnitBatch, num_bins: int) -> float:
    """Cross-entropy (nats) of held-out scalars under each component's smoothed frequencies."""
    bins = tokenizer.scalar.bin_of
    train, held_out = np.asarray(bins(seen, num_bins)), np.asarray(bins(batch.unit, num_bins))
    real, losses = np.asarray(batch.is_real), []
    for p in range(train.shape[1]):
        counts = np.bincount(train[:, p], minlength=num_bins) + 1.0
        losses.append(-np.mean(np.log(counts / counts.sum())[held_out[:, :, p][real]]))
    return float(np.mean(losses))


# --- adaptation -------------------------------------------------------------------------------


class Learned(NamedTuple):
    """What imitation learns of an arm."""

    model: Any  # the network's parameters, or adapters
    head: Any


GROUPS = {"subset": ("full", "last_layer", "probe"), "adapter": ("lora", "ia3"), "raw": ("raw",)}


def seeds(config: Config) -> tuple[int, ...]:
    """Downstream seeds."""
    return tuple(range(config.adapt.first_seed, config.adapt.first_seed + config.adapt.num_seeds))


def head_of(config: Config, action_size: int) -> MLP:
    """From T(s) to the action, before its tanh."""
    return MLP((config.adapt.head_size, action_size), activation=jax.nn.relu, output_scale=0.01)


def raw_network(num_parameters: int, obs_size: int, action_size: int) -> MLP:
    """The raw-observation policy: three hidden layers of the width that has as many parameters."""
    width = 8
    while _raw_size(width + 1, obs_size, action_size) <= num_parameters:
        width += 1
    return MLP((width, width, width, action_size), activation=jax.nn.relu, output_scale=0.01)


def _raw_size(width: int, obs_size: int, action_size: int) -> int:
    return width * (obs_size + 1) + 2 * width * (width + 1) + action_size * (width + 1)


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


def demonstrations(config: Config, domain: DomainConfig, data: RobotData) -> dict[str, np.ndarray]:
    """Steps `[seeds, N, ...]` of each seed's own draw of demonstrations."""
    lanes = []
    for seed in seeds(config):
        key = keys.derive(seed, f"demonstrations/{domain.name}")
        order = np.asarray(jax.random.permutation(key, len(data.demonstrations)))
        chosen = [data.demonstrations[i] for i in order[: domain.demonstrations]]
        lanes.append(robot_data.steps_of(chosen, domain.demonstrations * domain.horizon))
    return stack(lanes)


def imitate(
    config: Config, domain: DomainConfig, arms: Mapping[str, ArmConfig], group: str, folder: Path
) -> Work:
    """Clone the demonstrations with all arms of one network and group, as lanes [arms x seeds].

    Arms of a seed draw the same steps in the same order.
    """
    data = load(config, folder)[domain.name]
    steps = demonstrations(config, domain, data)
    params, loss, extra = _lanes_of(config, domain, arms, group, data, folder)
    lanes = {k: np.concatenate([v] * len(arms)) for k, v in steps.items()}
    settings = config.adapt.fit
    if group.endswith("adapter"):
        rate = config.adapt.adapter_rate * settings.learning_rate
        settings = FitConfig(**{**settings.__dict__, "learning_rate": rate})

    def sample(data: Any, key: jax.Array) -> Any:
        own = data[0]
        index = jax.random.randint(key, (settings.batch_size // NUM_SHARDS,), 0, own["num_real"])
        return own["obs"][index], own["action"][index]

    axes = (0, extra[1])
    return fit(
        loss, sample, (robot_data.as_device(lanes), extra[0]), axes, params,
        jnp.array(seeds(config) * len(arms)), settings,
        purpose=f"imitate/{domain.name}", devices=config.runtime.devices,
        tokens_per_update=settings.batch_size * len(arms) * config.adapt.num_seeds,
    )  # fmt: skip


def _lanes_of(
    config: Config, domain: DomainConfig, arms: Mapping[str, ArmConfig], group: str, data: RobotData,
    folder: Path,
) -> tuple[Any, Callable, tuple[Any, Any]]:  # fmt: skip
    """First parameters `[lanes, ...]`, the loss, and what else it reads with its lane axis."""
    to_unit = partial(from_env_action, spec=data.env.action_spec)
    if group == "raw":
        moments = raw_moments(data)
        network = raw_of(config, domain, data, folder)
        first = stack([_init_raw(network, moments, seed) for seed in seeds(config)])

        def raw_loss(params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict]:
            del data
            obs, action = batch
            mean = jnp.tanh(network.apply(params, standardise(moments, obs)))
            return jnp.mean(jnp.square(mean - to_unit(action))), {}

        return first, raw_loss, ((), None)

    study = study_of(config, model_of(config, arms), load(config, folder))
    head = head_of(config, study.layout(domain.name).domain.action_size)
    features, tokens = features_of(config, study, domain.name), study.tokenizer(domain.name)

    def cloned(model_params: Any, learned: Learned, batch: Any) -> jax.Array:
        obs, action = batch
        z = features(model_params, tokens.unit_of_obs(obs))
        mean = jnp.tanh(head.apply(learned.head, z))
        return jnp.mean(jnp.square(mean - to_unit(action)))

    first = [
        first_params(config, study, domain.name, arm, seed, folder)
        for arm in arms.values()
        for seed in seeds(config)
    ]
    if group.endswith("subset"):
        masks = stack(
            [subset.SUBSETS[arm.method](first[0].model) for arm in arms.values() for _ in seeds(config)]
        )

        def subset_loss(params: Learned, batch: Any, data: Any) -> tuple[jax.Array, dict]:
            return cloned(subset.moving(params.model, data[1]), params, batch), {}

        return stack(first), subset_loss, (masks, 0)

    which = [jnp.float32(arm.method == "lora") for arm in arms.values() for _ in seeds(config)]
    base = [
        pretrained(config, study, folder, arm.model, seed)
        for arm in arms.values()
        for seed in seeds(config)
    ]

    def adapter_loss(params: Learned, batch: Any, data: Any) -> tuple[jax.Array, dict]:
        return cloned(merged(data[1][0], params.model, data[1][1]), params, batch), {}

    return stack(first), adapter_loss, ((stack(base), stack(which)), 0)


def merged(base: Any, adapters: Any, is_lora: jax.Array) -> Any:
    """The base under one kind of adapters: both are lanes of one program, one is at rest."""
    low_rank = jax.tree.map(lambda x: is_lora * x, adapters["lora"])
    scales = jax.tree.map(lambda x: 1.0 + (1.0 - is_lora) * (x - 1.0), adapters["ia3"])
    return ia3.merge(lora.merge(base, low_rank), scales)


def first_params(
    config: Config, study: Study, name: str, arm: ArmConfig, seed: int, folder: Path
) -> Learned:
    """What an arm starts from; heads of a seed are equal in all arms."""
    layout = study.layout(name)
    head = head_of(config, layout.domain.action_size)
    z = jnp.zeros((1, feature_size(config, study, name)))
    head_params = jax.jit(head.init)(keys.derive(seed, f"imitate/{name}/head"), z)
    if not arm.is_pretrained:
        model = jax.jit(study.model.init)(keys.derive(seed, f"imitate/{name}/scratch"))
        return Learned(model, head_params)
    base = pretrained(config, study, folder, arm.model, seed)
    if arm.method in GROUPS["subset"]:
        return Learned(base, head_params)
    adapters = init_adapters(config, base, keys.derive(seed, f"imitate/{name}/lora"))
    return Learned(adapters, head_params)


def init_adapters(config: Config, base: Any, key: jax.Array) -> dict[str, Any]:
    """Adapters of both kinds."""
    low_rank = lora.init(key, base, config.adapt.lora_rank, config.adapt.lora_targets)
    return {"lora": low_rank, "ia3": ia3.init(base)}


def pretrained(config: Config, study: Study, folder: Path, name: str, seed: int) -> Any:
    """Parameters of a pretrained model: downstream seeds take the pretrainings in turn."""
    one = jax.eval_shape(study.model.init, jax.random.key(0))
    count = config.num_pretrainings
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), one)
    params = tree_file.load(stage_folder(folder, f"pretrain/{name}") / PARAMS, template)
    return jax.tree.map(lambda x: x[seed % count], params)


def model_of(config: Config, arms: Mapping[str, ArmConfig]) -> ModelConfig:
    """The model whose shape all arms of a group share."""
    names = {arm.model for arm in arms.values()}
    return next(m for m in config.models if m.name in names)


def groups(config: Config, domain: DomainConfig) -> dict[str, dict[str, ArmConfig]]:
    """Arms of a domain that are lanes of one program: one network, one way to be tuned."""
    result: dict[str, dict[str, ArmConfig]] = {}
    for name, arm in config.arms.items():
        kind = next(kind for kind, methods in GROUPS.items() if arm.method in methods)
        if arm.model:
            model = next(m for m in config.models if m.name == arm.model)
            if domain not in config.tested_on(model):
                continue
            kind = f"{arm.model}-{kind}".replace(" ", "-")
        result.setdefault(kind, {})[name] = arm
    return result


def raw_moments(data: RobotData) -> Moments:
    """Moments of the training split, for the raw-observation policy."""
    obs, _ = robot_data.flat(data.train)
    return Moments(np.float32(len(obs)), obs.mean(0), obs.var(0))


def raw_of(config: Config, domain: DomainConfig, data: RobotData, folder: Path) -> MLP:
    """The raw-observation policy of as many parameters as the main model with its head."""
    count = read_done(folder, f"pretrain/{config.main.name}")["summary"]["parameters"]
    return raw_network(count, len(data.env.obs_spec), len(data.env.action_spec))


def _init_raw(network: MLP, moments: Moments, seed: int) -> Any:
    return jax.jit(network.init)(keys.derive(seed, "imitate/raw"), jnp.asarray(moments.mean)[None])


# --- evaluation -------------------------------------------------------------------------------


class Condition(NamedTuple):
    """A way to be tested; leaves `[...]`, or `[C, ...]` for C of them."""

    task: Any
    zeroed: jax.Array  # [n] bool: sensors that read 0
    hidden: jax.Array  # [n] bool: sensors whose token is the mask
    dropped: jax.Array  # [n] bool: sensors whose token nobody looks at


def conditions(domain: DomainConfig, data: RobotData) -> tuple[list[str], Condition]:
    """Names and leaves of the nominal test, then gravities, then failing sensors."""
    size = len(data.env.obs_spec)
    none = np.zeros(size, bool)
    names, found = ["nominal"], [Condition(data.task, none, none, none)]
    for factor in domain.gravities:
        changed = data.task._replace(gravity=np.float32(factor) * data.task.gravity)
        names.append(f"gravity {factor:g}")
        found.append(Condition(changed, none, none, none))
    for mode in domain.failures if domain.sensors else ():
        for sensor in domain.sensors:
            failed = np.arange(size) == sensor
            names.append(f"sensor {sensor} {mode}")
            found.append(
                Condition(
                    data.task,
                    zeroed=failed if mode == "zero" else none,
                    hidden=none if mode == "zero" else failed,
                    dropped=failed if mode == "drop" else none,
                )
            )
    return names, stack(found)


def acting(
    config: Config, domain: DomainConfig, group: str, arms: Mapping[str, ArmConfig],
    data: Mapping[str, RobotData], folder: Path,
) -> Callable[[Condition], Policy]:  # fmt: skip
    """The policy of a group's arms under a condition; its params are a `Learned`."""
    own = data[domain.name]
    if group == "raw":
        network, moments = raw_of(config, domain, own, folder), raw_moments(own)

        def raw(params: Any, obs: jax.Array, condition: Condition) -> jax.Array:
            # Without tokens of its own, a sensor that is masked or dropped reads 0.
            lost = condition.zeroed | condition.hidden
            return network.apply(params, standardise(moments, jnp.where(lost[None], 0.0, obs)))

        return _policy(own.env, raw)
    study = study_of(config, model_of(config, arms), data)
    layout, tokens = study.layout(domain.name), study.tokenizer(domain.name)
    features = features_of(config, study, domain.name)
    head = head_of(config, layout.domain.action_size)

    def decide(params: Learned, obs: jax.Array, condition: Condition) -> jax.Array:
        lost = condition.zeroed if layout.is_component else condition.zeroed | condition.hidden
        unit = tokens.unit_of_obs(jnp.where(lost[None], 0.0, obs))
        failure = (condition.hidden, condition.dropped) if layout.is_component else None
        return head.apply(params.head, features(params.model, unit, failure))

    return _policy(own.env, decide)


def _policy(env: Any, decide: Callable) -> Callable[[Condition], Policy]:
    def under(condition: Condition) -> Policy:
        def act(params, carry, obs, is_first, key):
            del is_first, key
            raw = decide(params, obs.reshape(obs.shape[0], -1), condition)
            return to_env_action(jnp.tanh(raw), env.action_spec), (), carry

        return Policy(lambda batch_size: (), act)

    return under


def arm_params(
    config: Config, domain: DomainConfig, group: str, arms: Mapping[str, ArmConfig],
    data: Mapping[str, RobotData], folder: Path,
) -> Any:  # fmt: skip
    """What a group's imitation left, lanes `[arms x seeds]`, ready to act."""
    own = data[domain.name]
    params, _, extra = _lanes_of(config, domain, arms, group, own, folder)
    place = stage_folder(folder, f"imitate/{domain.name}/{group}")
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    learned = tree_file.load(place / PARAMS, template)
    if not group.endswith("adapter"):
        return learned
    base, which = extra[0]
    return learned._replace(model=jax.jit(jax.vmap(merged))(base, learned.model, which))


def play_conditions(
    env: Any, under: Callable[[Condition], Policy], params: Any, tests: Condition,
    lane_keys: jax.Array, episodes: int,
) -> jax.Array:  # fmt: skip
    """Mean returns `[N, C]` of parameter lanes `[N, ...]` under C conditions.

    Lanes run one after another, their conditions at once; a lane meets the same first states in
    all of them.
    """

    def one(params: Any, key: jax.Array, condition: Condition) -> jax.Array:
        lanes = broadcast_params(condition.task, episodes)
        return jnp.mean(play(env, under(condition), params, lanes, key, env.max_steps).returns)

    def lane(inputs: tuple[Any, jax.Array]) -> jax.Array:
        return jax.vmap(one, in_axes=(None, None, 0))(*inputs, tests)

    return jax.lax.map(lane, (params, lane_keys))


def evaluate(config: Config, domain: DomainConfig, folder: Path) -> dict[str, Any]:
    """Returns of all arms of a domain: `{arm: {condition: [seeds]}}`.

    Only `TESTED` arms meet changed conditions; the others are tested as they were trained.
    """
    data = load(config, folder)
    own = data[domain.name]
    names, tests = conditions(domain, own)
    seed_keys = [keys.derive(s, f"evaluate/{domain.name}") for s in seeds(config)]
    result: dict[str, dict[str, list[float]]] = {}
    for group, arms in groups(config, domain).items():
        under = acting(config, domain, group, arms, data, folder)
        params = arm_params(config, domain, group, arms, data, folder)
        run = jax.jit(partial(play_conditions, own.env, under, episodes=config.adapt.episodes))
        for i, arm in enumerate(arms):
            count = len(names) if arm in TESTED else 1
            chosen = jax.tree.map(lambda x, c=count: x[:c], tests)
            lanes = slice(i * len(seed_keys), (i + 1) * len(seed_keys))
            own_params = jax.tree.map(lambda x, s=lanes: x[s], params)
            found = np.asarray(run(own_params, chosen, jnp.stack(seed_keys)))
            result[arm] = dict(zip(names, found.T.tolist(), strict=False))
    if zero := zero_shot_returns(config, domain, data, folder):
        result["zero-shot"] = {"nominal": zero}
    return result


TESTED = ("scratch", "full", "M-GPT", "mlp")  # under changed conditions too


def zero_shot_returns(
    config: Config, domain: DomainConfig, data: Mapping[str, RobotData], folder: Path
) -> list[float]:
    """Returns `[seeds]` of the main model as it is, decoding actions through its cache.

    Empty where the main model is no causal component model of bins, which has none to decode.
    """
    model = config.main
    if (model.objective, model.granularity, model.values) != ("gpt", "component", "bins"):
        return []
    study, own = study_of(config, model, data), data[domain.name]
    decoder = transformer.model(study.model.config, study.model.vocabulary)
    policy = sequence.policy(decoder, study.layout(domain.name).domain, "sample")
    codec = jax.tree.map(jnp.asarray, study.tokenizer(domain.name).codec)
    params = stack(
        [
            sequence_model.acting_params(pretrained(config, study, folder, model.name, s))
            for s in seeds(config)
        ]
    )

    def dress(params: Any) -> SequenceParams:
        return SequenceParams(params, codec)

    @jax.jit
    def run(params: Any, task: Any, lane_keys: jax.Array) -> jax.Array:
        dressed = jax.vmap(dress)(params)
        return play_lanes(own.env, policy, dressed, task, lane_keys, config.adapt.episodes)

    seed_keys = [keys.derive(s, f"evaluate/{domain.name}") for s in seeds(config)]
    return np.asarray(run(params, own.task, jnp.stack(seed_keys))).tolist()
