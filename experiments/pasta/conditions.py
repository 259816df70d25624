"""Tests of what imitation learned: nominal, changed gravity, failing sensors, zero-shot."""

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.vector import broadcast_params
from envs.wrappers.wrapper import changed, innermost
from experiments.pasta import imitation, pretraining
from experiments.pasta.config import Config, DomainConfig
from experiments.pasta.imitation import Group
from experiments.pasta.robots import RobotData
from jaxagent import keys
from jaxagent.agents import sequence, window
from jaxagent.agents.actions import to_env_action
from jaxagent.agents.sequence import SequenceParams
from jaxagent.agents.window import Window
from jaxagent.evaluate.episodes import play
from jaxagent.study import films
from jaxagent.study.agents import Arena, stack, take
from jaxagent.study.study import Player
from jaxagent.types import Policy

ZERO_SHOT = "zero-shot"


class Condition(NamedTuple):
    """A way to be tested; leaves `[...]`, or `[C, ...]` for C of them."""

    task: Any
    lost: jax.Array  # [n] bool: sensors that read their mean
    hidden: jax.Array  # [n] bool: sensors whose token is the mask
    dropped: jax.Array  # [n] bool: sensors whose token nobody looks at


def conditions(domain: DomainConfig, robot: RobotData) -> tuple[list[str], Condition]:
    """Names and leaves of the nominal test, then gravities, then failing sensors."""
    sensors = np.arange(len(robot.env.obs_spec))
    none = np.zeros(len(sensors), bool)
    tests = {"nominal": Condition(robot.task, none, none, none)}
    for factor in domain.gravities:
        heavier = changed(robot.task, gravity=np.float32(factor) * innermost(robot.task).gravity)
        tests[f"gravity {factor:g}"] = Condition(heavier, none, none, none)
    for mode, sensor in product(domain.failures, domain.sensors):
        hits = (mode == "mean", mode != "mean", mode == "drop")
        failed = ((sensors == sensor) & is_hit for is_hit in hits)
        tests[f"sensor {sensor} {mode}"] = Condition(robot.task, *failed)
    return list(tests), stack(list(tests.values()))


def policy_under(
    group: Group, robot: RobotData, actor: Callable[..., jax.Array], condition: Condition
) -> Policy:
    """How a group's arms act under a condition; the parameters are the actor's, the carry is its window."""
    env, mean = robot.env, jnp.asarray(imitation.raw_moments(robot).mean)
    lost, failure = condition.lost, (condition.hidden, condition.dropped)
    if group.model is None or group.model.granularity != "component":
        # Without tokens of its own, a sensor that is masked or dropped reads its mean.
        lost, failure = condition.lost | condition.hidden, None

    def init(batch_size: int) -> Window:
        return window.empty(batch_size, group.window_length, len(env.obs_spec), len(env.action_spec))

    def act(params: Any, carry: Window, obs: jax.Array, is_first: jax.Array, key: jax.Array) -> tuple:
        del key
        obs = jnp.where(lost[None], mean[None], obs.reshape(obs.shape[0], -1))
        carry = window.see(carry, obs, is_first)
        action = to_env_action(actor(params, carry, failure), env.action_spec)
        return action, (), window.act(carry, action)

    return Policy(init, act)


def play_conditions(
    config: Config, env: Any, under: Callable, params: Any, tests: Condition, lane_keys: jax.Array
) -> jax.Array:
    """Mean returns `[N, C]` of parameter lanes `[N, ...]` under C conditions.

    Lanes run one after another where the configuration says so, their conditions at once; a lane
    meets the same first states in all of them.
    """

    def one(params: Any, key: jax.Array, condition: Condition) -> jax.Array:
        tasks = broadcast_params(condition.task, config.adapt.episodes)
        return jnp.mean(play(env, under(condition), params, tasks, key).returns)

    def lane(inputs: tuple[Any, jax.Array]) -> jax.Array:
        return jax.vmap(one, in_axes=(None, None, 0))(*inputs, tests)

    lanes = params, lane_keys
    return jax.lax.map(lane, lanes) if config.runtime.lanes_in_turn else jax.vmap(lane)(lanes)


def arena(config: Config, domain: DomainConfig, robot: RobotData) -> Arena:
    """Where policies of all seeds are tested, nominal; all arms of a seed meet the same first states."""
    lane_keys = [keys.derive(seed, f"evaluate/{domain.name}") for seed in config.adapt.seeds]
    return Arena(robot.env, robot.task, jnp.stack(lane_keys), config.adapt.episodes)


def evaluate(config: Config, domain: DomainConfig, folder: Path, place: Path) -> dict[str, Any]:
    """Returns of all arms of a domain: `{arm: {condition: [seeds]}}`.

    Only `adapt.tested` arms meet changed conditions; the others are tested as they were trained.
    """
    del place
    data = pretraining.load(config, folder)
    robot, count = data[domain.name], len(config.adapt.seeds)
    names, tests = conditions(domain, robot)
    nominal, key = take(tests, 0), keys.derive(config.adapt.seeds.first, f"picture/{domain.name}")
    lane_keys = arena(config, domain, robot).lane_keys
    result: dict[str, dict[str, list[float]]] = {}
    programs: dict[Any, Callable] = {}  # one a network: physics compiles slowly
    for group in imitation.groups(config, domain):
        under = partial(policy_under, group, robot, imitation.actor(group, data, folder))
        params = imitation.learned(group, data, folder)
        play_all = jax.jit(partial(play_conditions, config, robot.env, under))
        run = programs.setdefault(_network_of(config, group), play_all)
        for i, arm in enumerate(group.arms):
            num_tests = len(names) if arm in (config.adapt.tested or group.arms) else 1
            lanes = take(params, slice(i * count, (i + 1) * count))
            returns = np.asarray(run(lanes, take(tests, slice(num_tests)), jax.random.clone(lane_keys)))
            result[arm] = dict(zip(names, returns.T.tolist(), strict=False))
            if arm in config.adapt.filmed:
                policy, first = under(jax.tree.map(jnp.asarray, nominal)), take(lanes, 0)
                films.write(folder, f"{arm}--{domain.name}", robot.env, policy, first, robot.task, key)
    if zero := zero_shot(config, domain, data, folder):
        result[ZERO_SHOT] = {"nominal": zero}
    return {"returns": result}


def player(config: Config, domain: DomainConfig, arm: str, folder: Path) -> Player:
    """An arm as it ended on a domain, as it was tested nominal."""
    data, count = pretraining.load(config, folder), len(config.adapt.seeds)
    robot = data[domain.name]
    if arm == ZERO_SHOT:
        policy, params = zero_shot_policy(config, domain, data, folder)
    else:
        group = next(g for g in imitation.groups(config, domain) if arm in g.arms)
        nominal = jax.tree.map(jnp.asarray, take(conditions(domain, robot)[1], 0))
        policy = policy_under(group, robot, imitation.actor(group, data, folder), nominal)
        begin = list(group.arms).index(arm) * count
        params = take(imitation.learned(group, data, folder), slice(begin, begin + count))
    overrides = {"max_steps": domain.horizon}
    return Player(robot.env, robot.task, policy, params, config.adapt.seeds, overrides)


def _network_of(config: Config, group: Group) -> Any:
    """What a group's acting program depends on, its parameters aside."""
    model = group.model
    if model is None:
        return "raw"
    network, tokens, pool = (of(model) for of in (config.network_of, config.tokens_of, config.pool_of))
    return network, tokens, model.domains, model.is_causal, pool


def decodes(config: Config) -> bool:
    """Whether the main model decodes actions as it is: a causal component model of bins does."""
    model = config.main
    return (model.objective, model.granularity, model.values) == ("gpt", "component", "bins")


def zero_shot_policy(
    config: Config, domain: DomainConfig, data: dict[str, RobotData], folder: Path
) -> tuple[Policy, SequenceParams]:
    """The main model as it is, decoding actions through its cache, and its parameters `[seeds, ...]`."""
    reader = pretraining.reader_of(config, config.main, data)
    policy = sequence.policy(reader.model, reader.layouts[domain.name].domain, "sample")
    codec = jax.tree.map(jnp.asarray, reader.tokenizers[domain.name].codec)
    networks = pretraining.networks(config, reader, folder)
    return policy, stack([SequenceParams(n, codec) for n in networks])


def zero_shot(config: Config, domain: DomainConfig, data: dict[str, RobotData], folder: Path) -> list[float]:
    """Returns `[seeds]` of the main model as it is; empty where it has no actions to decode."""
    if not decodes(config):
        return []
    policy, params = zero_shot_policy(config, domain, data, folder)
    return arena(config, domain, data[domain.name]).returns(policy, params).tolist()
