"""Names: the nearest-name error shared by every static table (no JAX)."""

import difflib
from collections.abc import Iterable


class UnknownName(ValueError):
    """A name that is in no table; the message holds the nearest valid names."""


class MissingExtra(ImportError):
    """An optional source is not installed; the message holds the pip line."""


def check_name(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return `name` if it is in `valid`, else raise `UnknownName` with got, expected and fix."""
    names = list(valid)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    by_case = [n for n in names if n.lower() == name.lower()]
    hint = " or ".join(by_case or near) or ", ".join(names[:8])
    raise UnknownName(f"unknown {kind}: got {name!r}, expected a registered one. Did you mean {hint}?")
