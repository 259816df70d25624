"""Tests of what imitation learned: nominal, changed gravity, failing sensors, zero-shot."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.vector import broadcast_params
from experiments.pasta import imitation, pretraining
from experiments.pasta.config import Config, DomainConfig
from experiments.pasta.imitation import Group
from experiments.pasta.robots import RobotData
from jaxagent import keys
from jaxagent.agents import sequence
from jaxagent.agents.actions import to_env_action
from jaxagent.agents.sequence import SequenceParams
from jaxagent.data.normalize import apply as standardise
from jaxagent.evaluate.episodes import play, play_lanes
from jaxagent.nn import sequence_model, transformer
from jaxagent.study import films
from jaxagent.study.agents import stack, take
from jaxagent.types import Policy


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
            zeroed, hidden, dropped = (
                failed if is_hit else none for is_hit in (mode == "zero", mode != "zero", mode == "drop")
            )
            names.append(f"sensor {sensor} {mode}")
            found.append(Condition(data.task, zeroed, hidden, dropped))
    return names, stack(found)


def acting(
    config: Config, domain: DomainConfig, group: Group, data: Mapping[str, RobotData], folder: Path
) -> Callable[[Condition], Policy]:
    """The policy of a group's arms under a condition; its params are a `Learned`."""
    robot = data[domain.name]
    if group.model is None:
        network, moments = imitation.raw_of(config, robot, folder), imitation.raw_moments(robot)

        def raw(params: Any, obs: jax.Array, condition: Condition) -> jax.Array:
            # Without tokens of its own, a sensor that is masked or dropped reads 0.
            lost = condition.zeroed | condition.hidden
            return network.apply(params, standardise(moments, jnp.where(lost[None], 0.0, obs)))

        return _policy(robot.env, raw)
    reader = pretraining.reader_of(config, group.model, data)
    layout, tokens = reader.layout(domain.name), reader.tokenizer(domain.name)
    features = pretraining.features_of(config, reader, domain.name)
    head = imitation.head_of(config, layout.domain.action_size)

    def decide(params: imitation.Learned, obs: jax.Array, condition: Condition) -> jax.Array:
        lost = condition.zeroed if layout.is_component else condition.zeroed | condition.hidden
        unit = tokens.unit_of_obs(jnp.where(lost[None], 0.0, obs))
        failure = (condition.hidden, condition.dropped) if layout.is_component else None
        return head.apply(params.head, features(params.model, unit, failure))

    return _policy(robot.env, decide)


def _policy(env: Any, decide: Callable) -> Callable[[Condition], Policy]:
    def under(condition: Condition) -> Policy:
        def act(params: Any, carry: Any, obs: jax.Array, is_first: jax.Array, key: jax.Array) -> tuple:
            del is_first, key
            raw = decide(params, obs.reshape(obs.shape[0], -1), condition)
            return to_env_action(jnp.tanh(raw), env.action_spec), (), carry

        return Policy(lambda batch_size: (), act)

    return under


def play_conditions(
    env: Any,
    under: Callable[[Condition], Policy],
    params: Any,
    tests: Condition,
    lane_keys: jax.Array,
    episodes: int,
    in_turn: bool,
) -> jax.Array:
    """Mean returns `[N, C]` of parameter lanes `[N, ...]` under C conditions.

    Lanes run one after another where `in_turn`, their conditions at once; a lane meets the same
    first states in all of them.
    """

    def one(params: Any, key: jax.Array, condition: Condition) -> jax.Array:
        lanes = broadcast_params(condition.task, episodes)
        return jnp.mean(play(env, under(condition), params, lanes, key, env.max_steps).returns)

    def lane(inputs: tuple[Any, jax.Array]) -> jax.Array:
        return jax.vmap(one, in_axes=(None, None, 0))(*inputs, tests)

    each = jax.lax.map if in_turn else lambda function, lanes: jax.vmap(function)(lanes)
    return each(lane, (params, lane_keys))


def seed_keys(config: Config, domain: DomainConfig) -> jax.Array:
    """Keys `[seeds]` of the tests: all arms of a seed meet the same first states."""
    return jnp.stack([keys.derive(seed, f"evaluate/{domain.name}") for seed in config.adapt.seeds])


def evaluate(config: Config, domain: DomainConfig, folder: Path, place: Path) -> dict[str, Any]:
    """Returns of all arms of a domain: `{arm: {condition: [seeds]}}`.

    Only `adapt.tested` arms meet changed conditions; the others are tested as they were trained.
    """
    del place
    data = pretraining.load(config, folder)
    robot, count = data[domain.name], len(config.adapt.seeds)
    names, tests = conditions(domain, robot)
    result: dict[str, dict[str, list[float]]] = {}
    programs: dict[Any, Callable] = {}  # one a network: physics compiles slowly
    for group in imitation.groups(config, domain):
        under = acting(config, domain, group, data, folder)
        params = imitation.learned(config, domain, group, data, folder)
        in_turn, episodes = config.runtime.lanes_in_turn, config.adapt.episodes
        play_all = partial(play_conditions, robot.env, under, episodes=episodes, in_turn=in_turn)
        run = programs.setdefault(_network_of(config, group), jax.jit(play_all))
        for i, arm in enumerate(group.arms):
            num_tests = len(names) if arm in (config.adapt.tested or group.arms) else 1
            lanes = take(params, slice(i * count, (i + 1) * count))
            found = np.asarray(run(lanes, take(tests, slice(num_tests)), seed_keys(config, domain)))
            result[arm] = dict(zip(names, found.T.tolist(), strict=False))
            if arm in config.adapt.filmed:
                policy = under(jax.tree.map(lambda x: jnp.asarray(x[0]), tests))
                key = keys.derive(config.adapt.seeds.first, f"picture/{domain.name}")
                name = f"{arm}--{domain.name}"
                films.write(folder, name, robot.env, policy, take(lanes, 0), robot.task, key, label=arm)
    if zero := zero_shot_returns(config, domain, data, folder):
        result["zero-shot"] = {"nominal": zero}
    return {"returns": result}


def _network_of(config: Config, group: Group) -> Any:
    """What a group's acting program depends on, its parameters aside."""
    model = group.model
    if model is None:
        return "raw"
    return config.network_of(model), config.tokens_of(model), model.domains, model.is_causal


def zero_shot_returns(
    config: Config, domain: DomainConfig, data: Mapping[str, RobotData], folder: Path
) -> list[float]:
    """Returns `[seeds]` of the main model as it is, decoding actions through its cache.

    Empty where the main model is no causal component model of bins, which has none to decode.
    """
    model = config.main
    if (model.objective, model.granularity, model.values) != ("gpt", "component", "bins"):
        return []
    reader, robot = pretraining.reader_of(config, model, data), data[domain.name]
    decoder = transformer.model(reader.model.config, reader.model.vocabulary)
    policy = sequence.policy(decoder, reader.layout(domain.name).domain, "sample")
    codec = jax.tree.map(jnp.asarray, reader.tokenizer(domain.name).codec)
    networks = pretraining.pretrained(config, reader, folder, model.name)
    params = stack([sequence_model.acting_params(network) for network in networks])

    @jax.jit
    def run(params: Any, task: Any, lane_keys: jax.Array) -> jax.Array:
        dressed = jax.vmap(lambda p: SequenceParams(p, codec))(params)
        return play_lanes(robot.env, policy, dressed, task, lane_keys, config.adapt.episodes)

    return np.asarray(run(params, robot.task, seed_keys(config, domain))).tolist()
