"""Settings as lanes of one program: agents that differ in numbers of their configuration alone."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxagent import keys
from jaxagent.config import NUM_SHARDS
from jaxagent.study.agents import stack, take
from jaxagent.study.study import Fit, Lanes
from jaxagent.types import Loop


class Swept(NamedTuple):
    """The shards of an agent and the numbers that are its own."""

    shards: Any
    values: Any  # by field, [S]: the same in every shard


def with_values(config: Any, values: Mapping[str, Any]) -> Any:
    """A configuration with numbers that may be traced, which is why it is not checked."""
    made = object.__new__(type(config))
    for field in dataclasses.fields(config):
        object.__setattr__(made, field.name, values.get(field.name, getattr(config, field.name)))
    return made


def swept(loop_of: Callable[[Mapping[str, Any]], Loop]) -> Loop:
    """One agent whose numbers, float32 `[]` by field, are given to `init` behind its tasks.

    Raises ValueError where a number decides what the program is, not what it computes.
    """

    def init(key: jax.Array, tasks: Any, values: Mapping[str, jax.Array]) -> tuple[Any, Swept]:
        learner, shards = _within(values, loop_of, "init", key, tasks)
        return learner, Swept(shards, {n: jnp.broadcast_to(v, (NUM_SHARDS,)) for n, v in values.items()})

    def update(
        learner: Any, shards: Swept, data: Any, shard_ids: jax.Array, key: jax.Array
    ) -> tuple[Any, Swept, Any]:
        values = {name: value[0] for name, value in shards.values.items()}
        learner, inner, metrics = _within(
            values, loop_of, "update", learner, shards.shards, data, shard_ids, key
        )
        return learner, Swept(inner, shards.values), metrics

    return Loop(init, update)


def _within(values: Mapping[str, Any], loop_of: Callable, part: str, *args: Any) -> Any:
    try:
        return getattr(loop_of(values), part)(*args)
    except (jax.errors.ConcretizationTypeError, TypeError) as error:
        if isinstance(error, TypeError) and "unhashable" not in str(error) and "Tracer" not in str(error):
            raise
        raise ValueError(
            f"sweep: got {', '.join(sorted(values))}, which decides what the program is, expected a number "
            "that it computes with; train each value by itself."
        ) from error


def fit(
    name: str,
    lanes_of: Callable[[Mapping[str, Any]], Lanes],
    values_of: Callable[[Any], Mapping[str, Sequence[float]]],
    seeds: Sequence[int],
    purpose: str,
) -> Fit:
    """An agent for each of N values and each seed, values first; snapshots `[chunks + 1, N seeds, ...]`.

    `values_of(folder)` are the values by field, which may depend on what earlier steps found there.
    `lanes_of(values)` are an agent's of one lane (`agents.seeded`). Agents of a seed begin alike and draw
    alike, as if each were trained by itself.
    """

    def lanes(folder: Any) -> Lanes:
        values = values_of(folder)
        every = [seed for _ in next(iter(values.values())) for seed in seeds]
        plain = lanes_of({field: numbers[0] for field, numbers in values.items()})

        def inputs() -> tuple[Any, ...]:
            lane_keys = jnp.stack([keys.derive(seed, f"{purpose}/init") for seed in every])
            numbers = {f: jnp.asarray(np.repeat(np.float32(v), len(seeds))) for f, v in values.items()}
            _, tasks, *given = plain.inputs()  # tasks as the agent meets them
            if given:
                raise ValueError(
                    f"{name}: got an agent that is given something, expected one that begins fresh."
                )
            return lane_keys, stack([take(tasks, 0)] * len(every)), numbers

        loop = swept(lambda numbers: lanes_of(numbers).loop)
        return dataclasses.replace(plain, loop=loop, inputs=inputs, ids=every)

    return Fit(name, lanes)
