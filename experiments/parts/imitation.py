"""Imitation on top of T(s): arms that share a network are lanes of one program."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs.pasta import ArmConfig, Config, DomainConfig, ModelConfig
from experiments.parts import pasta_study, robot_data
from experiments.parts.experts import stack
from experiments.parts.pasta_study import Study
from experiments.parts.robot_data import RobotData
from experiments.parts.sequences import fit
from jaxagent import keys
from jaxagent.adapt import ia3, lora, subset
from jaxagent.agents.actions import from_env_action
from jaxagent.config import NUM_SHARDS
from jaxagent.data.normalize import Moments
from jaxagent.data.normalize import apply as standardise
from jaxagent.nn.mlp import MLP
from jaxagent.train.run import Work, read_done


class Learned(NamedTuple):
    """What imitation learns of an arm."""

    model: Any  # the network's parameters, or adapters
    head: Any


GROUPS = {"subset": ("full", "last_layer", "probe"), "adapter": ("lora", "ia3"), "raw": ("raw",)}


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
    """Steps `[pasta_study.seeds, N, ...]` of each seed's own draw of demonstrations."""
    lanes = []
    for seed in pasta_study.seeds(config):
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
    data = pasta_study.load(config, folder)
    steps = demonstrations(config, domain, data[domain.name])
    params, loss, extra = lanes_of(config, domain, arms, group, data, folder)
    lanes = {k: np.concatenate([v] * len(arms)) for k, v in steps.items()}
    settings = config.imitation_of(domain)
    if group.endswith("adapter"):
        rate = config.adapt.adapter_rate * settings.learning_rate
        settings = dataclasses.replace(settings, learning_rate=rate)

    def sample(data: Any, key: jax.Array) -> Any:
        own = data[0]
        index = jax.random.randint(key, (settings.batch_size // NUM_SHARDS,), 0, own["num_real"])
        return own["obs"][index], own["action"][index]

    axes = (0, extra[1])
    return fit(
        loss,
        sample,
        (robot_data.as_device(lanes), extra[0]),
        axes,
        params,
        jnp.array(pasta_study.seeds(config) * len(arms)),
        settings,
        purpose=f"imitate/{domain.name}",
        devices=config.runtime.devices,
        tokens_per_update=settings.batch_size * len(arms) * config.adapt.num_seeds,
    )


def lanes_of(
    config: Config,
    domain: DomainConfig,
    arms: Mapping[str, ArmConfig],
    group: str,
    data: Mapping[str, RobotData],
    folder: Path,
) -> tuple[Any, Callable, tuple[Any, Any]]:
    """First parameters `[lanes, ...]`, the loss, and what else it reads with its lane axis."""
    own = data[domain.name]
    to_unit = partial(from_env_action, spec=own.env.action_spec)
    if group == "raw":
        moments = raw_moments(own)
        network = raw_of(config, domain, own, folder)
        first = stack([_init_raw(network, moments, seed) for seed in pasta_study.seeds(config)])

        def raw_loss(params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict]:
            del data
            obs, action = batch
            mean = jnp.tanh(network.apply(params, standardise(moments, obs)))
            return jnp.mean(jnp.square(mean - to_unit(action))), {}

        return first, raw_loss, ((), None)

    study = pasta_study.study_of(config, model_of(config, arms), data)
    head = head_of(config, study.layout(domain.name).domain.action_size)
    features, tokens = (pasta_study.features_of(config, study, domain.name), study.tokenizer(domain.name))

    def cloned(model_params: Any, learned: Learned, batch: Any) -> jax.Array:
        obs, action = batch
        z = features(model_params, tokens.unit_of_obs(obs))
        mean = jnp.tanh(head.apply(learned.head, z))
        return jnp.mean(jnp.square(mean - to_unit(action)))

    first = [
        first_params(config, study, domain.name, arm, seed, folder)
        for arm in arms.values()
        for seed in pasta_study.seeds(config)
    ]
    if group.endswith("subset"):
        masks = stack(
            [
                subset.SUBSETS[arm.method](first[0].model)
                for arm in arms.values()
                for _ in pasta_study.seeds(config)
            ]
        )

        def subset_loss(params: Learned, batch: Any, data: Any) -> tuple[jax.Array, dict]:
            return cloned(subset.moving(params.model, data[1]), params, batch), {}

        return stack(first), subset_loss, (masks, 0)

    which = [jnp.float32(arm.method == "lora") for arm in arms.values() for _ in pasta_study.seeds(config)]
    base = [
        pasta_study.pretrained(config, study, folder, arm.model, seed)
        for arm in arms.values()
        for seed in pasta_study.seeds(config)
    ]

    def adapter_loss(params: Learned, batch: Any, data: Any) -> tuple[jax.Array, dict]:
        return cloned(merged(data[1][0], params.model, data[1][1]), params, batch), {}

    return stack(first), adapter_loss, ((stack(base), stack(which)), 0)


def merged(base: Any, adapters: Any, is_lora: jax.Array) -> Any:
    """The base under one kind of adapters: both are lanes of one program, one is at rest."""
    low_rank = jax.tree.map(lambda x: is_lora * x, adapters["lora"])
    scales = jax.tree.map(lambda x: 1.0 + (1.0 - is_lora) * (x - 1.0), adapters["ia3"])
    return ia3.merge(lora.merge(base, low_rank), scales)


def first_params(config: Config, study: Study, name: str, arm: ArmConfig, seed: int, folder: Path) -> Learned:
    """What an arm starts from; heads of a seed are equal in all arms."""
    layout = study.layout(name)
    head = head_of(config, layout.domain.action_size)
    z = jnp.zeros((1, pasta_study.feature_size(config, study, name)))
    head_params = jax.jit(head.init)(keys.derive(seed, f"imitate/{name}/head"), z)
    if not arm.is_pretrained:
        model = jax.jit(study.model.init)(keys.derive(seed, f"imitate/{name}/scratch"))
        return Learned(model, head_params)
    base = pasta_study.pretrained(config, study, folder, arm.model, seed)
    if arm.method in GROUPS["subset"]:
        return Learned(base, head_params)
    adapters = init_adapters(config, base, keys.derive(seed, f"imitate/{name}/lora"))
    return Learned(adapters, head_params)


def init_adapters(config: Config, base: Any, key: jax.Array) -> dict[str, Any]:
    """Adapters of both kinds."""
    low_rank = lora.init(key, base, config.adapt.lora_rank, config.adapt.lora_targets)
    return {"lora": low_rank, "ia3": ia3.init(base)}


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
