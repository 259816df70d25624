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
from experiments.pasta.config import LONGER, ArmConfig, Config, DomainConfig, ModelConfig
from experiments.pasta.pretraining import Reader
from experiments.pasta.robots import RobotData
from jaxagent import keys
from jaxagent.adapt import either, subset
from jaxagent.agents.actions import from_env_action
from jaxagent.agents.window import Window
from jaxagent.config import NUM_SHARDS, FitConfig, Pool
from jaxagent.data.normalize import Moments, moments_of
from jaxagent.data.normalize import apply as standardise
from jaxagent.nn import mlp, transformer
from jaxagent.nn.mlp import MLP
from jaxagent.nn.readout import Readout
from jaxagent.study import corpus
from jaxagent.study.agents import stack, take
from jaxagent.study.study import Fit, Lanes
from jaxagent.tokens.layout import Layout
from jaxagent.train.run import read_done

WAYS = dict.fromkeys(subset.SUBSETS, "subset") | {"lora": "adapter", "ia3": "adapter", "raw": "raw"}


class Learned(NamedTuple):
    """What imitation learns of an arm."""

    model: Any  # the network's parameters, or adapters
    head: Any


class Group(NamedTuple):
    """Arms of a domain that are lanes of one program: one network, tuned one way, equally long and fast."""

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

    @property
    def fit(self) -> FitConfig:
        """How all arms are fitted."""
        return self.config.imitation_of(self.domain, next(iter(self.arms.values())))

    @property
    def window_length(self) -> int:
        """Env steps that policies read."""
        return self.domain.history + 1


def groups(config: Config, domain: DomainConfig) -> list[Group]:
    """Of the arms that a domain is imitated with."""
    result: dict[str, Group] = {}
    for arm_name, arm in config.arms.items():
        model = next((m for m in config.models if m.name == arm.model), None)
        if model is not None and domain not in config.tested_on(model):
            continue
        name = group_of(arm)
        result.setdefault(name, Group(config, domain, name, WAYS[arm.method], {}, model)).arms[arm_name] = arm
    return list(result.values())


def group_of(arm: ArmConfig) -> str:
    """The name of an arm's group."""
    parts = [arm.model, WAYS[arm.method]] if arm.model else [WAYS[arm.method]]
    parts += [f"rate-{arm.rate:g}"] if arm.rate != 1.0 else []
    parts += [f"length-{arm.length:g}"] if arm.length != 1.0 else []
    return "-".join(parts).replace(" ", "-")


def matched(config: Config, envs: Mapping[str, Any]) -> Config:
    """The configuration whose `LONGER` arm takes as many operations as pretraining and tuning do.

    `envs` are the domains' by name. Operations are counted by formula, as `flops_per_token` does.
    """
    if LONGER not in config.arms:
        return config
    main, tuned = config.main, config.all_arms["full"]
    network, layouts = pretraining.network_of(config, main, envs)
    seen = [layout for name, layout in layouts.items() if name != main.held_out]
    before = config.fit_of(main).num_updates * pretraining.flops_per_update(config, network, main, seen)
    tuning = 0
    for domain in config.domains:
        fit, layout = config.imitation_of(domain, replace(tuned, length=1.0)), layouts[domain.name]
        reads = replace(network.config, context=domain.history + 1)
        flops = transformer.flops_per_token(reads, config.adapt.head_size, layout.num_tokens)
        tuning += fit.num_updates * fit.batch_size * tokens_of_decision(domain, layout) * flops
    lengths = (*config.adapt.lengths, (LONGER, round(tuned.length + before / tuning, 1)))
    return replace(config, adapt=replace(config.adapt, lengths=lengths))


def tokens_of_decision(domain: DomainConfig, layout: Layout) -> int:
    """Tokens that T(s) is read off, the history's among them."""
    return domain.history * layout.num_tokens + layout.num_obs_tokens


def raw_network(config: Config, domain: DomainConfig, robot: RobotData, folder: Path | None) -> MLP:
    """The raw-observation policy: three hidden layers, as many parameters as the main model with its head."""
    num_parameters, stage = 10_000, f"pretrain/{config.main.name}"
    if folder is not None:
        num_parameters = read_done(folder, stage)["summary"]["parameters"]
    return mlp.of_size(raw_size(domain, robot), len(robot.env.action_spec), num_parameters)


def raw_size(domain: DomainConfig, robot: RobotData) -> int:
    """Inputs of the raw-observation policy: observations, and of the past actions and what is known."""
    past = len(robot.env.action_spec) + 1
    return (domain.history + 1) * len(robot.env.obs_spec) + domain.history * past


def raw_moments(robot: RobotData) -> Moments:
    """Moments of the training split, for the raw-observation policy."""
    return moments_of(robots.flat(robot.train)[0])


def readout_of(config: Config, pool: Pool, action_size: int) -> Readout:
    """From the tokens of T(s) to the action, before its tanh."""
    return Readout(pool, (config.adapt.head_size, action_size))


def actor(group: Group, data: Mapping[str, RobotData], folder: Path | None) -> Callable[..., jax.Array]:
    """`(params, window [B, K, ...], failure=None) -> actions [B, m]` of a group's arms, in (-1, 1).

    The parameters are a `Learned` of the whole network, whose tokens of sensors may fail (see
    `representation.fail`), or the raw network's own, which reads all that the window holds.
    """
    config, name = group.config, group.domain.name
    if group.model is None:
        network, moments = raw_network(config, group.domain, data[name], folder), raw_moments(data[name])

        def act_raw(params: Any, window: Window, failure: Any = None) -> jax.Array:
            del failure
            known, spec = window.is_known[..., None], data[name].env.action_spec
            obs = jnp.where(known, standardise(moments, window.obs), 0.0)
            past = jnp.where(known, from_env_action(window.action, spec), 0.0)[:, :-1]
            parts = obs, past, known[:, :-1].astype(obs.dtype)
            inputs = jnp.concatenate([part.reshape(len(obs), -1) for part in parts], axis=-1)
            return jnp.tanh(network.apply(params, inputs))

        return act_raw
    reader = pretraining.reader_of(config, group.model, data)
    tokens, states = reader.tokenizers[name], reader.states(name)
    readout = readout_of(config, reader.pool, reader.layouts[name].domain.action_size)

    def act(params: Learned, window: Window, failure: Any = None) -> jax.Array:
        unit = tokens.unit(window.obs, window.action)
        return jnp.tanh(readout.apply(params.head, *states(params.model, unit, window.is_known, failure)))

    return act


def demonstrations(config: Config, domain: DomainConfig, robot: RobotData) -> dict[str, Any]:
    """Windows and actions `[seeds, N, ...]` of each seed's draw of demonstrations, and how many are real."""
    lanes = []
    for seed in config.adapt.seeds:
        key_order, key_begin = jax.random.split(keys.derive(seed, f"demonstrations/{domain.name}"))
        order = np.asarray(jax.random.permutation(key_order, len(robot.demonstrations)))
        chosen = [robot.demonstrations[i] for i in order[: domain.num_episodes]]
        begin = float(jax.random.uniform(key_begin))
        lanes.append(robots.steps_of(chosen, domain, begin))
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
        params, fixed = first_raw_params(config, domain, robot, folder), ()
        num_tokens = raw_size(domain, robot)
    else:
        reader = pretraining.reader_of(config, group.model, data)
        layout = reader.layouts[domain.name]
        num_tokens = tokens_of_decision(domain, layout)
        networks = first_networks(group, reader, folder)
        params, fixed = first_params(group, reader, networks), fixed_of(group, networks)
    settings = group.fit

    def sample(data: Any, key: jax.Array) -> tuple[Window, jax.Array]:
        steps, _ = data
        index = jax.random.randint(key, (settings.batch_size // NUM_SHARDS,), 0, steps["num_real"])
        return take((steps["window"], steps["action"]), index)

    def loss(params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict]:
        (window, action), (_, fixed) = batch, data
        error = act(whole(group, params, fixed), window) - from_env_action(action, robot.env.action_spec)
        return jnp.mean(jnp.square(error)), {}

    steps = demonstrations(config, domain, robot)
    return corpus.supervised(
        loss,
        sample,
        params,
        settings,
        f"imitate/{domain.name}",
        [seed for _, seed in group.lanes],
        data=(jax.tree.map(lambda v: jnp.asarray(np.concatenate([v] * len(group.arms))), steps), fixed),
        data_axis=0,
        units={"tokens": settings.batch_size * num_tokens},
    )


def first_raw_params(config: Config, domain: DomainConfig, robot: RobotData, folder: Path | None) -> Any:
    """What the raw-observation policies start from, `[seeds, ...]`."""
    obs = jnp.zeros((1, raw_size(domain, robot)))
    init = jax.jit(raw_network(config, domain, robot, folder).init)
    return stack([init(keys.derive(seed, "imitate/raw"), obs) for seed in config.adapt.seeds])


def first_networks(group: Group, reader: Reader, folder: Path | None) -> list[Any]:
    """Parameters of every lane's network before imitation."""
    scratch = f"imitate/{group.domain.name}/scratch"
    purposes = ["" if arm.is_pretrained else scratch for arm in group.arms.values()]
    return [n for fresh in purposes for n in pretraining.networks(group.config, reader, folder, fresh)]


def first_params(group: Group, reader: Reader, networks: Sequence[Any]) -> Learned:
    """What lanes `[arms x seeds]` start from; heads of a seed are equal in all arms."""
    config, name, layout = group.config, group.domain.name, reader.layouts[group.domain.name]
    kept, result = jnp.ones((layout.num_obs_tokens,), bool), []
    states = jnp.zeros((1, layout.num_obs_tokens, reader.model.config.width))
    head = jax.jit(readout_of(config, reader.pool, layout.domain.action_size).init)
    for (_, seed), network in zip(group.lanes, networks, strict=True):
        if group.way == "adapter":
            network = adapters_of(config, keys.derive(seed, f"imitate/{name}/lora"), network)
        result.append(Learned(network, head(keys.derive(seed, f"imitate/{name}/head"), states, kept)))
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
    if group.way == "adapter":
        base, is_lora = fixed
        return params._replace(model=either.merge(base, params.model, is_lora))
    return params._replace(model=subset.moving(params.model, fixed))


def adapters_of(config: Config, key: jax.Array, base: Any) -> dict[str, Any]:
    """Adapters of both kinds."""
    return either.init(key, base, config.adapt.lora_rank, config.adapt.lora_targets)


def learned(group: Group, data: Mapping[str, RobotData], folder: Path) -> Any:
    """What a group's imitation left, lanes `[arms x seeds]`, ready to act."""
    params = fit_of(group).load(folder)
    if group.way != "adapter":
        return params
    networks = first_networks(group, pretraining.reader_of(group.config, group.model, data), folder)
    return jax.jit(jax.vmap(partial(whole, group)))(params, fixed_of(group, networks))
