"""Configurations as JSON, and their fingerprint."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from jaxagent.config.checks import require


def to_dict(config: Any) -> dict[str, Any]:
    """Resolved configuration as JSON-safe nested dictionaries."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(template: Any, values: dict[str, Any]) -> Any:
    """Rebuild a configuration of the type of `template` from `to_dict`; refuses strangers."""
    known = {f.name for f in dataclasses.fields(template)}
    strangers = sorted(set(values) - known)
    require(not strangers, type(template).__name__, strangers, f"fields {sorted(known)}", "rename")
    changes = {name: _restore(getattr(template, name), value) for name, value in values.items()}
    return dataclasses.replace(template, **changes)


def _restore(default: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(default):
        return from_dict(default, value)
    if isinstance(default, tuple) and isinstance(value, list):
        items = [_restore(default[0], v) if default else v for v in value]
        return tuple(tuple(v) if isinstance(v, list) else v for v in items)
    return value


def differences(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """What two configurations of one type differ in: `path -> (before, after)`, JSON-safe.

    A tuple of another length is one difference.
    """
    return dict(_differences("", to_dict(before), to_dict(after)))


def _differences(path: str, before: Any, after: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    pairs: Iterable[tuple[Any, Any, Any]] = ()
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = ((key, before.get(key), after.get(key)) for key in {**before, **after})
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = ((i, *both) for i, both in enumerate(zip(before, after, strict=True)))
    elif before != after:
        yield path, (before, after)
    for key, *both in pairs:
        yield from _differences(f"{path}.{key}".lstrip("."), *both)


def fingerprint(config: Any) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON."""
    text = json.dumps(to_dict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
