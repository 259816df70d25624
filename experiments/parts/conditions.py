"""Tests of what imitation learned: nominal, changed gravity, failing sensors, zero-shot."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.vector import broadcast_params
from experiments.configs.pasta import ArmConfig, Config, DomainConfig
from experiments.parts import imitation, pasta_study, pictures
from experiments.parts.experts import stack
from experiments.parts.robot_data import RobotData
from experiments.parts.sequences import PARAMS
from jaxagent import keys
from jaxagent.agents import sequence
from jaxagent.agents.actions import to_env_action
from jaxagent.agents.sequence import SequenceParams
from jaxagent.data import tree_file
from jaxagent.data.normalize import apply as standardise
from jaxagent.evaluate.episodes import play, play_lanes, record
from jaxagent.nn import sequence_model, transformer
from jaxagent.train.run import stage_folder
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
    config: Config,
    domain: DomainConfig,
    group: str,
    arms: Mapping[str, ArmConfig],
    data: Mapping[str, RobotData],
    folder: Path,
) -> Callable[[Condition], Policy]:
    """The policy of a group's arms under a condition; its params are a `Learned`."""
    own = data[domain.name]
    if group == "raw":
        network, moments = imitation.raw_of(config, domain, own, folder), imitation.raw_moments(own)

        def raw(params: Any, obs: jax.Array, condition: Condition) -> jax.Array:
            # Without tokens of its own, a sensor that is masked or dropped reads 0.
            lost = condition.zeroed | condition.hidden
            return network.apply(params, standardise(moments, jnp.where(lost[None], 0.0, obs)))

        return _policy(own.env, raw)
    study = pasta_study.study_of(config, imitation.model_of(config, arms), data)
    layout, tokens = study.layout(domain.name), study.tokenizer(domain.name)
    features = pasta_study.features_of(config, study, domain.name)
    head = imitation.head_of(config, layout.domain.action_size)

    def decide(params: imitation.Learned, obs: jax.Array, condition: Condition) -> jax.Array:
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
    config: Config,
    domain: DomainConfig,
    group: str,
    arms: Mapping[str, ArmConfig],
    data: Mapping[str, RobotData],
    folder: Path,
) -> Any:
    """What a group's imitation left, lanes `[arms x seeds]`, ready to act."""
    params, _, extra = imitation.lanes_of(config, domain, arms, group, data, folder)
    place = stage_folder(folder, f"imitate/{domain.name}/{group}")
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    learned = tree_file.load(place / PARAMS, template)
    if not group.endswith("adapter"):
        return learned
    base, which = extra[0]
    return learned._replace(model=jax.jit(jax.vmap(imitation.merged))(base, learned.model, which))


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
    purpose = f"evaluate/{domain.name}"
    return jnp.stack([keys.derive(s, purpose) for s in pasta_study.seeds(config)])


def evaluate(config: Config, domain: DomainConfig, folder: Path) -> dict[str, Any]:
    """Returns of all arms of a domain: `{arm: {condition: [seeds]}}`.

    Only `adapt.tested` arms meet changed conditions; the others are tested as they were trained.
    """
    data = pasta_study.load(config, folder)
    own = data[domain.name]
    names, tests = conditions(domain, own)
    num_seeds = config.adapt.num_seeds
    result: dict[str, dict[str, list[float]]] = {}
    programs: dict[Any, Callable] = {}  # one a network: physics compiles slowly
    for group, arms in imitation.groups(config, domain).items():
        under = acting(config, domain, group, arms, data, folder)
        params = arm_params(config, domain, group, arms, data, folder)
        play_all = partial(
            play_conditions,
            own.env,
            under,
            episodes=config.adapt.episodes,
            in_turn=config.runtime.lanes_in_turn,
        )
        run = programs.setdefault(_network_of(config, arms), jax.jit(play_all))
        for i, arm in enumerate(arms):
            count = len(names) if arm in (config.adapt.tested or arms) else 1
            chosen = jax.tree.map(lambda x, c=count: x[:c], tests)
            lanes = slice(i * num_seeds, (i + 1) * num_seeds)
            own_params = jax.tree.map(lambda x, s=lanes: x[s], params)
            found = np.asarray(run(own_params, chosen, seed_keys(config, domain)))
            result[arm] = dict(zip(names, found.T.tolist(), strict=False))
        if shown := [arm for arm in arms if arm in config.adapt.filmed]:
            _film(config, domain, folder, under, own, {a: _first(params, arms, a) for a in shown})
    if zero := zero_shot_returns(config, domain, data, folder):
        result["zero-shot"] = {"nominal": zero}
    return result


def _network_of(config: Config, arms: Mapping[str, ArmConfig]) -> Any:
    """What a group's acting program depends on, its parameters aside."""
    if not all(arm.model for arm in arms.values()):
        return "raw"
    model = imitation.model_of(config, arms)
    return config.network_of(model), config.tokens_of(model), model.domains, model.is_causal


def _first(params: Any, arms: Mapping[str, ArmConfig], arm: str) -> Any:
    """Parameters of an arm's first seed, of lanes `[arms x seeds]`."""
    num_seeds = jax.tree.leaves(params)[0].shape[0] // len(arms)
    return jax.tree.map(lambda x: x[list(arms).index(arm) * num_seeds], params)


def _film(
    config: Config,
    domain: DomainConfig,
    folder: Path,
    under: Callable,
    own: RobotData,
    params: Mapping[str, Any],
) -> None:
    """Draw one nominal episode of each arm, from the same first state."""
    nominal = jax.tree.map(lambda x: jnp.asarray(x[0]), conditions(domain, own)[1])
    policy = under(nominal)
    run = jax.jit(lambda p, k: record(own.env, policy, p, own.task, k, own.env.max_steps))
    seed = pasta_study.seeds(config)[0]
    for arm, lane in params.items():
        path = folder / "pictures" / f"{arm}--{domain.name}.gif"
        task, key = jax.device_get(own.task), keys.derive(seed, f"picture/{domain.name}")
        pictures.write_episode(path, own.env, task, jax.device_get(run(lane, key)), arm)


def zero_shot_returns(
    config: Config, domain: DomainConfig, data: Mapping[str, RobotData], folder: Path
) -> list[float]:
    """Returns `[seeds]` of the main model as it is, decoding actions through its cache.

    Empty where the main model is no causal component model of bins, which has none to decode.
    """
    model = config.main
    if (model.objective, model.granularity, model.values) != ("gpt", "component", "bins"):
        return []
    study, own = pasta_study.study_of(config, model, data), data[domain.name]
    decoder = transformer.model(study.model.config, study.model.vocabulary)
    policy = sequence.policy(decoder, study.layout(domain.name).domain, "sample")
    codec = jax.tree.map(jnp.asarray, study.tokenizer(domain.name).codec)
    params = stack(
        [
            sequence_model.acting_params(pasta_study.pretrained(config, study, folder, model.name, s))
            for s in pasta_study.seeds(config)
        ]
    )

    def dress(params: Any) -> SequenceParams:
        return SequenceParams(params, codec)

    @jax.jit
    def run(params: Any, task: Any, lane_keys: jax.Array) -> jax.Array:
        dressed = jax.vmap(dress)(params)
        return play_lanes(own.env, policy, dressed, task, lane_keys, config.adapt.episodes)

    return np.asarray(run(params, own.task, seed_keys(config, domain))).tolist()
