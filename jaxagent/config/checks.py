"""Checks of configurations, whose errors say what was got, what was expected, and the fix."""

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Collection
from typing import Annotated, Any, NamedTuple, get_type_hints

NUM_SHARDS = 4  # logical data shards at any device count, see train/parallel.py


class Bound(NamedTuple):
    """What a field must be, as part of its type: finite and within both ends."""

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf  # excluded

    def check(self, name: str, value: float) -> None:
        """Raise ValueError where a value is out of bounds."""
        is_legal = math.isfinite(value) and self.low <= value <= self.high and value > self.above
        require(is_legal, name, value, str(self), "choose another")

    def __str__(self) -> str:
        if math.isfinite(self.above):
            return f"a number above {self.above:g}"
        if math.isfinite(self.high):
            return f"a number in [{self.low:g}, {self.high:g}]"
        return f"at least {self.low:g}"


Count = Annotated[int, Bound(above=0)]
Positive = Annotated[float, Bound(above=0)]
Share = Annotated[float, Bound(0, 1)]


class Checked:
    """A configuration that is checked when it is made, bounds first, so that no illegal one is passed on."""

    def __post_init__(self) -> None:
        """Raise ValueError with got / expected / fix where it is illegal."""
        check_alone(self)


def check(config: Any) -> None:
    """Raise ValueError where a configuration is illegal: its parts first, then bounds, then `check`."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(part):
                check(part)
    check_alone(config)


def check_alone(config: Any) -> None:
    """As `check`, without its parts."""
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        for bound in getattr(hint, "__metadata__", ()):
            bound.check(f"{type(config).__name__}.{name}", getattr(config, name))
    if hasattr(config, "check"):
        config.check()


def require(condition: bool, what: str, got: Any, expected: str, fix: str) -> None:
    if not condition:
        raise ValueError(f"{what}: got {got!r}, expected {expected}; {fix}.")


def require_positive(config: Any, *fields: str) -> None:
    """Raise unless each named field is a finite number above zero."""
    for field in fields:
        value = getattr(config, field)
        name = f"{type(config).__name__}.{field}"
        require(math.isfinite(value) and value > 0, name, value, "a number above 0", "raise it")


def require_at_least_zero(config: Any, *fields: str) -> None:
    """Raise unless each named field is a finite number of at least zero."""
    for field in fields:
        value = getattr(config, field)
        name = f"{type(config).__name__}.{field}"
        ok = math.isfinite(value) and value >= 0
        require(ok, name, value, "a number of at least 0", "raise it")


def require_at_least(config: Any, low: float, *fields: str) -> None:
    """Raise unless each named field is a number of at least `low`."""
    for field in fields:
        value = getattr(config, field)
        name = f"{type(config).__name__}.{field}"
        require(value >= low, name, value, f"at least {low:g}", "raise it")


def require_at_most(config: Any, high: float, field: str, what: str) -> None:
    """Raise unless the named field is a number of at most `high`, which is `what`."""
    value = getattr(config, field)
    name = f"{type(config).__name__}.{field}"
    require(value <= high, name, value, f"at most {high:g}, the {what}", "lower it or raise that")


def require_divides(what: str, divisor: int, whole: int, fix: str) -> None:
    """Raise unless `divisor` divides `whole`."""
    require(whole % divisor == 0, what, whole, f"a multiple of {divisor}", fix)


def require_equal(what: str, got: Any, expected: Any, fix: str) -> None:
    """Raise unless `got` is the one legal value."""
    require(got == expected, what, got, repr(expected), fix)


def require_unlike(what: str, given: Collection[str]) -> None:
    """Raise unless all names differ."""
    twice = sorted(name for name, count in Counter(given).items() if count > 1)
    require(not twice, what, twice, "each name once", "rename or leave out")


def require_fraction(config: Any, *fields: str) -> None:
    """Raise unless each named field lies in [0, 1]."""
    for field in fields:
        value = getattr(config, field)
        name = f"{type(config).__name__}.{field}"
        require(0.0 <= value <= 1.0, name, value, "a number in [0, 1]", "choose a fraction")


def require_fits_memory(what: str, num_bytes: int, share: float = 0.25) -> None:
    """Raise unless `num_bytes` are at most a share of this machine's memory."""
    limit = int(share * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    expected = f"at most {limit} bytes, {share:g} of this machine's memory"
    require(num_bytes <= limit, f"{what}, bytes", num_bytes, expected, "make it smaller")


def require_on_policy(config: Any) -> None:
    """Raise unless lanes, updates and minibatches of an on-policy loop divide."""
    name = type(config).__name__
    require_divides(f"{name}.num_envs", NUM_SHARDS, config.num_envs, "data have that many shards")
    require_divides(f"{name}.num_updates", config.updates_per_chunk, config.num_updates, "chunks are whole")
    per_shard = config.num_envs * config.num_steps // NUM_SHARDS
    require_divides(
        f"{name}.num_envs * num_steps / shards", config.num_minibatches, per_shard, "or change it"
    )


def require_whole_lanes(config: Any) -> None:
    """Raise for minibatches of an on-policy loop that would cut segments: with a memory they are of lanes."""
    name, fix = f"{type(config).__name__}.num_envs / shards", "a minibatch with a memory has whole segments"
    require_divides(name, config.num_minibatches, config.num_envs // NUM_SHARDS, fix)


def require_replay(config: Any) -> None:
    """Raise unless the sizes of a replay loop are positive and divide."""
    name = type(config).__name__
    require_positive(config, "num_envs", "num_steps", "num_gradient_steps", "batch_size")
    require_positive(config, "capacity", "warmup_steps", "num_updates", "updates_per_chunk")
    for what in ("num_envs", "batch_size", "capacity", "warmup_steps"):
        require_divides(f"{name}.{what}", NUM_SHARDS, getattr(config, what), "data have that many shards")
    per_update = config.num_envs * config.num_steps
    for what in ("capacity", "warmup_steps"):
        require_divides(f"{name}.{what}", per_update, getattr(config, what), "it is filled in whole updates")
    require_at_most(config, config.capacity, "warmup_steps", "capacity")
    require_divides(f"{name}.num_updates", config.updates_per_chunk, config.num_updates, "chunks are whole")
