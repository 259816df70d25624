"""Imitation on top of T(s): arms that share a network are lanes of one program."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pasta import pretraining, robots
from experiments.pasta.config import ArmConfig, Config, DomainConfig, ModelConfig
from experiments.pasta.pretraining import Reader
from experiments.pasta.robots import RobotData
from jaxagent import keys
from jaxagent.adapt import ia3, lora, subset
from jaxagent.agents.actions import from_env_action
from jaxagent.config import NUM_SHARDS
from jaxagent.data.normalize import Moments
from jaxagent.data.normalize import apply as standardise
from jaxagent.nn.mlp import MLP
from jaxagent.study import corpus
from jaxagent.study.agents import stack
from jaxagent.study.study import Fit, Lanes
from jaxagent.train.run import read_done


class Learned(NamedTuple):
    """What imitation learns of an arm."""

    model: Any  # the network's parameters, or adapters
    head: Any


class Group(NamedTuple):
    """Arms of a domain that are lanes of one program: one network, one way to be tuned."""

    name: str
    way: str  # "subset", "adapter" or "raw"
    arms: dict[str, ArmConfig]
    model: ModelConfig | None  # whose shape all arms share


WAYS = {
    "full": "subset",
    "last_layer": "subset",
    "probe": "subset",
    "lora": "adapter",
    "ia3": "adapter",
    "raw": "raw",
}


def groups(config: Config, domain: DomainConfig) -> list[Group]:
    """Of the arms that a domain is imitated with."""
    found: dict[str, Group] = {}
    for name, arm in config.arms.items():
        model = next((m for m in config.models if m.name == arm.model), None)
        if model is not None and domain not in config.tested_on(model):
            continue
        way = WAYS[arm.method]
        group = f"{arm.model}-{way}".replace(" ", "-") if model else way
        found.setdefault(group, Group(group, way, {}, model)).arms[name] = arm
    return list(found.values())


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


def demonstrations(config: Config, domain: DomainConfig, data: RobotData) -> dict[str, np.ndarray]:
    """Steps `[seeds, N, ...]` of each seed's draw of demonstrations."""
    lanes = []
    for seed in config.adapt.seeds:
        key = keys.derive(seed, f"demonstrations/{domain.name}")
        order = np.asarray(jax.random.permutation(key, len(data.demonstrations)))
        chosen = [data.demonstrations[i] for i in order[: domain.demonstrations]]
        lanes.append(robots.steps_of(chosen, domain.demonstrations * domain.horizon))
    return stack(lanes)


def fit_of(config: Config, domain: DomainConfig, group: Group) -> Fit:
    """Clone the demonstrations with all arms of a group, lanes `[arms x seeds]`.

    Arms of a seed draw the same steps in the same order.
    """
    return Fit(f"imitate/{domain.name}/{group.name}", partial(_lanes, config, domain, group))


def _lanes(config: Config, domain: DomainConfig, group: Group, folder: Path | None) -> Lanes:
    data, num_arms = pretraining.load(config, folder), len(group.arms)
    steps = demonstrations(config, domain, data[domain.name])
    ways = {"raw": _raw, "subset": _subset, "adapter": _adapter}
    begun = ways[group.way](config, domain, group, data, folder)
    settings = config.imitation_of(domain)
    if group.way == "adapter":
        rate = config.adapt.adapter_rate * settings.learning_rate
        settings = dataclasses.replace(settings, learning_rate=rate)

    def sample(data: Any, key: jax.Array) -> Any:
        seen = data[0]
        index = jax.random.randint(key, (settings.batch_size // NUM_SHARDS,), 0, seen["num_real"])
        return seen["obs"][index], seen["action"][index]

    lanes = {k: jnp.asarray(np.concatenate([v] * num_arms)) for k, v in steps.items()}
    return corpus.supervised(
        begun.loss,
        sample,
        begun.params,
        settings,
        f"imitate/{domain.name}",
        tuple(config.adapt.seeds) * num_arms,
        data=(lanes, begun.extra),
        data_axis=(0, begun.axis),
        units={"tokens": settings.batch_size},
    )


class Begun(NamedTuple):
    """How a group begins, and what it fits."""

    params: Any  # [lanes, ...]
    loss: Callable
    extra: Any = ()  # what the loss reads beside the steps
    axis: Any = None  # of its lanes


def _raw(config: Config, domain: DomainConfig, group: Group, data: Any, folder: Path | None) -> Begun:
    del group
    robot = data[domain.name]
    moments, network = raw_moments(robot), raw_of(config, robot, folder)
    to_unit = partial(from_env_action, spec=robot.env.action_spec)

    def loss(params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict]:
        del data
        obs, action = batch
        mean = jnp.tanh(network.apply(params, standardise(moments, obs)))
        return jnp.mean(jnp.square(mean - to_unit(action))), {}

    first, init = jnp.asarray(moments.mean)[None], jax.jit(network.init)
    seeds = config.adapt.seeds
    return Begun(stack([init(keys.derive(seed, "imitate/raw"), first) for seed in seeds]), loss)


def _cloning(config: Config, domain: DomainConfig, reader: Reader, robot: RobotData) -> Callable:
    """`(parameters of the network, learned, batch) -> squared error` of the action."""
    head = head_of(config, reader.layout(domain.name).domain.action_size)
    features, tokens = pretraining.features_of(config, reader, domain.name), reader.tokenizer(domain.name)

    def cloned(model_params: Any, learned: Learned, batch: Any) -> jax.Array:
        obs, action = batch
        z = features(model_params, tokens.unit_of_obs(obs))
        error = jnp.tanh(head.apply(learned.head, z)) - from_env_action(action, robot.env.action_spec)
        return jnp.mean(jnp.square(error))

    return cloned


def _subset(config: Config, domain: DomainConfig, group: Group, data: Any, folder: Path | None) -> Begun:
    """Parts of the network move, as masks say."""
    reader = pretraining.reader_of(config, group.model, data)
    cloned = _cloning(config, domain, reader, data[domain.name])
    first = [p for arm in group.arms.values() for p in first_params(config, reader, domain.name, arm, folder)]
    masks = [
        subset.SUBSETS[arm.method](first[0].model) for arm in group.arms.values() for _ in config.adapt.seeds
    ]

    def loss(params: Learned, batch: Any, data: Any) -> tuple[jax.Array, dict]:
        return cloned(subset.moving(params.model, data[1]), params, batch), {}

    return Begun(stack(first), loss, stack(masks), 0)


def _adapter(config: Config, domain: DomainConfig, group: Group, data: Any, folder: Path | None) -> Begun:
    """Adapters of both kinds on a frozen base; one kind is at rest in each arm."""
    reader = pretraining.reader_of(config, group.model, data)
    cloned = _cloning(config, domain, reader, data[domain.name])
    first = [p for arm in group.arms.values() for p in first_params(config, reader, domain.name, arm, folder)]

    def loss(params: Learned, batch: Any, data: Any) -> tuple[jax.Array, dict]:
        return cloned(merged(data[1][0], params.model, data[1][1]), params, batch), {}

    return Begun(stack(first), loss, _bases(config, reader, group, folder), 0)


def _bases(config: Config, reader: Reader, group: Group, folder: Path | None) -> tuple[Any, Any]:
    """Frozen networks of adapter arms, lanes `[arms x seeds]`, and which of them have LoRA."""
    arms = group.arms.values()
    base = [p for arm in arms for p in pretraining.pretrained(config, reader, folder, arm.model)]
    which = [jnp.float32(arm.method == "lora") for arm in arms for _ in config.adapt.seeds]
    return stack(base), stack(which)


def merged(base: Any, adapters: Any, is_lora: jax.Array) -> Any:
    """The base under one kind of adapters: both are lanes of one program, one is at rest."""
    low_rank = jax.tree.map(lambda x: is_lora * x, adapters["lora"])
    scales = jax.tree.map(lambda x: 1.0 + (1.0 - is_lora) * (x - 1.0), adapters["ia3"])
    return ia3.merge(lora.merge(base, low_rank), scales)


def first_params(
    config: Config, reader: Reader, name: str, arm: ArmConfig, folder: Path | None
) -> list[Learned]:
    """What an arm of every seed starts from; heads of a seed are equal in all arms."""
    head = jax.jit(head_of(config, reader.layout(name).domain.action_size).init)
    z = jnp.zeros((1, pretraining.feature_size(config, reader, name)))
    heads = [head(keys.derive(seed, f"imitate/{name}/head"), z) for seed in config.adapt.seeds]
    if arm.is_pretrained:
        models = pretraining.pretrained(config, reader, folder, arm.model)
    else:
        init = jax.jit(reader.model.init)
        models = [init(keys.derive(seed, f"imitate/{name}/scratch")) for seed in config.adapt.seeds]
    if WAYS[arm.method] == "adapter":
        lane_keys = [keys.derive(seed, f"imitate/{name}/lora") for seed in config.adapt.seeds]
        models = [init_adapters(config, base, key) for base, key in zip(models, lane_keys, strict=True)]
    return [Learned(model, head) for model, head in zip(models, heads, strict=True)]


def init_adapters(config: Config, base: Any, key: jax.Array) -> dict[str, Any]:
    """Adapters of both kinds."""
    low_rank = lora.init(key, base, config.adapt.lora_rank, config.adapt.lora_targets)
    return {"lora": low_rank, "ia3": ia3.init(base)}


def learned(config: Config, domain: DomainConfig, group: Group, data: Any, folder: Path) -> Any:
    """What a group's imitation left, lanes `[arms x seeds]`, ready to act."""
    params = fit_of(config, domain, group).load(folder)
    if group.way != "adapter":
        return params
    base, which = _bases(config, pretraining.reader_of(config, group.model, data), group, folder)
    return params._replace(model=jax.jit(jax.vmap(merged))(base, params.model, which))


def raw_moments(data: RobotData) -> Moments:
    """Moments of the training split, for the raw-observation policy."""
    obs, _ = robots.flat(data.train)
    return Moments(np.float32(len(obs)), obs.mean(0), obs.var(0))


def raw_of(config: Config, data: RobotData, folder: Path | None) -> MLP:
    """The raw-observation policy of as many parameters as the main model with its head."""
    name, count = f"pretrain/{config.main.name}", 10_000
    if folder is not None:
        count = read_done(folder, name)["summary"]["parameters"]
    return raw_network(count, len(data.env.obs_spec), len(data.env.action_spec))
