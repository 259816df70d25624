"""Imitation on top of T(s): arms that share a network are lanes of one program."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
from jaxagent.data.normalize import Moments, moments_of
from jaxagent.data.normalize import apply as standardise
from jaxagent.nn.mlp import MLP
from jaxagent.study import corpus
from jaxagent.study.agents import stack
from jaxagent.study.study import Fit, Lanes
from jaxagent.train.run import read_done

WAYS = dict.fromkeys(subset.SUBSETS, "subset") | {"lora": "adapter", "ia3": "adapter", "raw": "raw"}


class Learned(NamedTuple):
    """What imitation learns of an arm."""

    model: Any  # the network's parameters, or adapters
    head: Any


class Group(NamedTuple):
    """Arms of a domain that are lanes of one program: one network, one way to be tuned."""

    config: Config
    domain: DomainConfig
    name: str
    way: str  # "subset", "adapter" or "raw"
    arms: dict[str, ArmConfig]
    model: ModelConfig | None  # whose shape all arms share

    @property
    def lanes(self) -> list[tuple[ArmConfig, int]]:
        """The arm and the seed of every lane."""
        return list(itertools.product(self.arms.values(), self.config.adapt.seeds))


def groups(config: Config, domain: DomainConfig) -> list[Group]:
    """Of the arms that a domain is imitated with."""
    result: dict[str, Group] = {}
    for arm_name, arm in config.arms.items():
        model, way = next((m for m in config.models if m.name == arm.model), None), WAYS[arm.method]
        if model is not None and domain not in config.tested_on(model):
            continue
        name = f"{arm.model}-{way}".replace(" ", "-") if model else way
        result.setdefault(name, Group(config, domain, name, way, {}, model)).arms[arm_name] = arm
    return list(result.values())


def raw_network(config: Config, robot: RobotData, folder: Path | None) -> MLP:
    """The raw-observation policy: three hidden layers, as many parameters as the main model with its head."""
    num_parameters, stage = 10_000, f"pretrain/{config.main.name}"
    if folder is not None:
        num_parameters = read_done(folder, stage)["summary"]["parameters"]
    obs_size, action_size = len(robot.env.obs_spec), len(robot.env.action_spec)

    def size(width: int) -> int:
        return width * (obs_size + 1) + 2 * width * (width + 1) + action_size * (width + 1)

    width = next(w for w in itertools.count(8) if size(w + 1) > num_parameters)
    return MLP((width, width, width, action_size), activation=jax.nn.relu, output_scale=0.01)


def raw_moments(robot: RobotData) -> Moments:
    """Moments of the training split, for the raw-observation policy."""
    return moments_of(robots.flat(robot.train)[0])


def head_of(config: Config, action_size: int) -> MLP:
    """From T(s) to the action, before its tanh."""
    return MLP((config.adapt.head_size, action_size), activation=jax.nn.relu, output_scale=0.01)


def actor(group: Group, data: Mapping[str, RobotData], folder: Path | None) -> Callable[..., jax.Array]:
    """`(params, obs [B, n], failure=None) -> actions [B, m]` of a group's arms, in (-1, 1).

    The parameters are a `Learned` of the whole network, whose tokens of sensors may fail (see
    `representation.features`), or the raw network's own.
    """
    config, name = group.config, group.domain.name
    if group.model is None:
        network, moments = raw_network(config, data[name], folder), raw_moments(data[name])

        def act_raw(params: Any, obs: jax.Array, failure: Any = None) -> jax.Array:
            del failure
            return jnp.tanh(network.apply(params, standardise(moments, obs)))

        return act_raw
    reader = pretraining.reader_of(config, group.model, data)
    tokens, features = reader.tokenizers[name], reader.features(name)
    head = head_of(config, reader.layouts[name].domain.action_size)

    def act(params: Learned, obs: jax.Array, failure: Any = None) -> jax.Array:
        return jnp.tanh(head.apply(params.head, features(params.model, tokens.unit_of_obs(obs), failure)))

    return act


def demonstrations(config: Config, domain: DomainConfig, robot: RobotData) -> dict[str, Any]:
    """Steps `[seeds, N, ...]` of each seed's draw of demonstrations."""
    lanes = []
    for seed in config.adapt.seeds:
        key = keys.derive(seed, f"demonstrations/{domain.name}")
        order = np.asarray(jax.random.permutation(key, len(robot.demonstrations)))
        chosen = [robot.demonstrations[i] for i in order[: domain.demonstrations]]
        lanes.append(robots.steps_of(chosen, domain.demonstrations * domain.horizon))
    return stack(lanes)


def fit_of(group: Group) -> Fit:
    """Clone the demonstrations with all arms of a group, lanes `[arms x seeds]`.

    Arms of a seed draw the same steps in the same order.
    """
    return Fit(f"imitate/{group.domain.name}/{group.name}", partial(_lanes, group))


def _lanes(group: Group, folder: Path | None) -> Lanes:
    config, domain = group.config, group.domain
    data = pretraining.load(config, folder)
    robot, act = data[domain.name], actor(group, data, folder)
    if group.model is None:
        params, fixed = first_raw_params(config, robot, folder), ()
    else:
        reader = pretraining.reader_of(config, group.model, data)
        networks = first_networks(group, reader, folder)
        params, fixed = first_params(group, reader, networks), fixed_of(group, networks)
    settings = config.imitation_of(domain)
    if group.way == "adapter":
        settings = replace(settings, learning_rate=config.adapt.adapter_rate * settings.learning_rate)

    def sample(data: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        steps, _ = data
        index = jax.random.randint(key, (settings.batch_size // NUM_SHARDS,), 0, steps["num_real"])
        return steps["obs"][index], steps["action"][index]

    def loss(params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict]:
        (obs, action), (_, fixed) = batch, data
        error = act(whole(group, params, fixed), obs) - from_env_action(action, robot.env.action_spec)
        return jnp.mean(jnp.square(error)), {}

    steps = demonstrations(config, domain, robot)
    return corpus.supervised(
        loss,
        sample,
        params,
        settings,
        f"imitate/{domain.name}",
        [seed for _, seed in group.lanes],
        data=({k: jnp.asarray(np.concatenate([v] * len(group.arms))) for k, v in steps.items()}, fixed),
        data_axis=0,
        units={"tokens": settings.batch_size},
    )


def first_raw_params(config: Config, robot: RobotData, folder: Path | None) -> Any:
    """What the raw-observation policies start from, `[seeds, ...]`."""
    obs, init = jnp.asarray(raw_moments(robot).mean)[None], jax.jit(raw_network(config, robot, folder).init)
    return stack([init(keys.derive(seed, "imitate/raw"), obs) for seed in config.adapt.seeds])


def first_networks(group: Group, reader: Reader, folder: Path | None) -> list[Any]:
    """Parameters of every lane's network before imitation."""
    scratch = f"imitate/{group.domain.name}/scratch"
    purposes = ["" if arm.is_pretrained else scratch for arm in group.arms.values()]
    return [n for fresh in purposes for n in pretraining.networks(group.config, reader, folder, fresh)]


def first_params(group: Group, reader: Reader, networks: Sequence[Any]) -> Learned:
    """What lanes `[arms x seeds]` start from; heads of a seed are equal in all arms."""
    config, name = group.config, group.domain.name
    z, result = jnp.zeros((1, reader.size(name))), []
    head = jax.jit(head_of(config, reader.layouts[name].domain.action_size).init)
    for (_, seed), network in zip(group.lanes, networks, strict=True):
        if group.way == "adapter":
            network = init_adapters(config, network, keys.derive(seed, f"imitate/{name}/lora"))
        result.append(Learned(network, head(keys.derive(seed, f"imitate/{name}/head"), z)))
    return stack(result)


def fixed_of(group: Group, networks: Sequence[Any]) -> Any:
    """What lanes `[arms x seeds]` keep: networks and which of them have LoRA, or masks of what moves."""
    if group.way == "adapter":
        return stack(networks), stack([jnp.float32(arm.method == "lora") for arm, _ in group.lanes])
    return stack([subset.SUBSETS[arm.method](networks[0]) for arm, _ in group.lanes])


def whole(group: Group, params: Any, fixed: Any) -> Any:
    """What a lane acts with: what it learned on top of what it keeps."""
    if group.way == "raw":
        return params
    merge = merged if group.way == "adapter" else subset.moving
    return params._replace(model=merge(params.model, fixed))


def merged(adapters: Any, below: tuple[Any, jax.Array]) -> Any:
    """The network below one kind of adapters: both are lanes of one program, one is at rest."""
    base, is_lora = below
    low_rank = jax.tree.map(lambda x: is_lora * x, adapters["lora"])
    scales = jax.tree.map(lambda x: 1.0 + (1.0 - is_lora) * (x - 1.0), adapters["ia3"])
    return ia3.merge(lora.merge(base, low_rank), scales)


def init_adapters(config: Config, base: Any, key: jax.Array) -> dict[str, Any]:
    """Adapters of both kinds."""
    low_rank = lora.init(key, base, config.adapt.lora_rank, config.adapt.lora_targets)
    return {"lora": low_rank, "ia3": ia3.init(base)}


def learned(group: Group, data: Mapping[str, RobotData], folder: Path) -> Any:
    """What a group's imitation left, lanes `[arms x seeds]`, ready to act."""
    params = fit_of(group).load(folder)
    if group.way != "adapter":
        return params
    networks = first_networks(group, pretraining.reader_of(group.config, group.model, data), folder)
    return jax.jit(jax.vmap(partial(whole, group)))(params, fixed_of(group, networks))
