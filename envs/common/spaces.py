"""Nested spaces as flat lists of components: what a source nests and types, agents see as a vector.

A layout is nested as the source nests its values: a dict of layouts by key, a tuple of layouts, or a
`Leaf`, an array. Its scalars follow one another in the source's own order of keys and entries, those
of an array row-major. Names are paths: `obs.goal.colour` (a lone category), `obs.position[0]` (the
first scalar of an array), `action.1[2]` (the third of the second entry of a tuple). A picture inside
a dict is as many reals as it has numbers; alone it stays a picture (`shape_of`).

The sources' classes are read in their adapters. Values are arrays of numpy or of JAX with any leading
axes `[...]`; what comes back is of the same kind, so that one definition serves host and `jit`.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Component, is_one_category

LARGEST_CARDINALITY = 2**24  # observations show categories in float32, which has these whole numbers


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a space, of components of one kind."""

    name: str  # its path
    components: tuple[Component, ...]  # one a scalar, row-major
    shape: tuple[int, ...]
    dtype: np.dtype  # of the source
    start: tuple[int, ...] = ()  # what the source calls category 0, one a component; (): 0, or reals


Layout = Leaf | Mapping[str, Any] | tuple[Any, ...]


# --- leaves, as readers make them -----------------------------------------------------------------


def reals(name: str, low: Any, high: Any, shape: tuple[int, ...], dtype: Any) -> Leaf:
    """An array of reals between `low` and `high`, both broadcast to `shape`."""
    lows, highs = (np.broadcast_to(np.asarray(x, np.float64), shape).reshape(-1) for x in (low, high))
    bounds = zip(lows, highs, strict=True)
    components = tuple(
        Component(f"{name}[{i}]", "real", float(a), float(b)) for i, (a, b) in enumerate(bounds)
    )
    return Leaf(name, components, tuple(shape), np.dtype(dtype))


def categories(name: str, cardinality: Any, dtype: Any, start: Any = 0) -> Leaf:
    """An array of categories, shaped as `cardinality`; the source counts from `start`, shaped alike or `[]`.

    Raises ValueError for more categories than float32 tells apart.
    """
    sizes = np.asarray(cardinality)
    if sizes.size and sizes.max() > LARGEST_CARDINALITY:
        raise ValueError(
            f"{name}: got {sizes.max()} categories, expected at most {LARGEST_CARDINALITY}, which float32 "
            "tells apart; give the number as a Box, or its digits as a MultiDiscrete."
        )
    names = [f"{name}[{i}]" for i in range(sizes.size)] if sizes.ndim else [name]
    named = zip(names, sizes.reshape(-1), strict=True)
    components = tuple(Component(n, "category", cardinality=int(size)) for n, size in named)
    first = np.broadcast_to(np.asarray(start), sizes.shape).reshape(-1)
    offsets = tuple(map(int, first)) if first.any() else ()
    return Leaf(name, components, sizes.shape, np.dtype(dtype), offsets)


# --- what a layout says ---------------------------------------------------------------------------


def spec_of(layout: Layout, name: str) -> tuple[Component, ...]:
    """The components of a layout; raises ValueError where there are none, or two of one name."""
    spec = _components(layout)
    if not spec:
        raise ValueError(f"{name}: got a space without a number in it, expected at least one; drop it.")
    twice = [n for n, count in Counter(c.name for c in spec).items() if count > 1]
    if twice:
        raise ValueError(
            f"{name}: got two components named {twice[0]!r}, expected names that differ; rename the key "
            "that has a dot or a bracket in it."
        )
    return spec


def shape_of(layout: Layout) -> tuple[int, ...]:
    """The shape of an observation: a lone array of reals keeps its axes (a picture), all else is `(n,)`."""
    spec = _components(layout)
    if isinstance(layout, Leaf) and layout.shape and all(c.kind == "real" for c in spec):
        return layout.shape
    return (len(spec),)


def _leaves(layout: Layout) -> Iterator[Leaf]:
    if isinstance(layout, Leaf):
        yield layout
        return
    for _, child in _items(layout):
        yield from _leaves(child)


def _items(layout: Mapping[str, Any] | tuple[Any, ...]) -> Any:
    """Keys and children of what is no leaf, in the source's order."""
    return layout.items() if isinstance(layout, Mapping) else enumerate(layout)


def _components(layout: Layout) -> tuple[Component, ...]:
    return tuple(c for leaf in _leaves(layout) for c in leaf.components)


# --- values ---------------------------------------------------------------------------------------


def observe(layout: Layout, value: Any, dtype: Any = np.float32) -> Any:
    """A copy of the nested `value` as an observation `[..., *shape_of(layout)]` of `dtype`.

    Raises ValueError as `flatten` does.
    """
    flat = flatten(layout, value, dtype)
    shape = shape_of(layout)
    return flat if len(shape) == 1 else flat.reshape((*flat.shape[:-1], *shape))


def flatten(layout: Layout, value: Any, dtype: Any = np.float32) -> Any:
    """The scalars `[..., n]` of a nested `value` in `dtype`, categories counted from 0.

    A dict may be any mapping, or an object with the keys as fields. Raises ValueError for a value
    that is not nested or shaped as its space.
    """
    columns = [_columns(leaf, x, dtype) for leaf, x in _pairs(layout, value)]
    is_host = not any(isinstance(x, jax.Array) for x in columns)
    return np.concatenate(columns, axis=-1) if is_host else jnp.concatenate(columns, axis=-1)


def unflatten(layout: Layout, flat: Any) -> Any:
    """The value, nested, typed and counted as the source does, of a flat action (`types.blank_action`).

    `flat` is `[...]` of one category, else `[..., n]`; what is whole at the source is rounded.
    """
    columns = flat[..., None] if is_one_category(_components(layout)) else flat
    sizes = [len(leaf.components) for leaf in _leaves(layout)]
    ends = accumulate(sizes)
    parts = iter([columns[..., end - size : end] for size, end in zip(sizes, ends, strict=True)])
    return _map(lambda leaf: _to_source(leaf, next(parts)), layout)


def _pairs(layout: Layout, value: Any) -> Iterator[tuple[Leaf, Any]]:
    """Every leaf with its part of the nested `value`."""
    if isinstance(layout, Leaf):
        yield layout, value
        return
    for key, child in _items(layout):
        yield from _pairs(child, _entry(layout, value, key))


def _entry(layout: Any, value: Any, key: str | int) -> Any:
    """What a nested `value` holds at `key`."""
    is_indexed = isinstance(value, Mapping) or isinstance(key, int)
    try:
        return value[key] if is_indexed else getattr(value, key)
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError(
            f"got a {type(value).__name__} without the entry {key!r}, expected the entries "
            f"{[k for k, _ in _items(layout)]} of its space; the source must return what its space says."
        ) from None


def _columns(leaf: Leaf, value: Any, dtype: Any) -> Any:
    """A leaf's array `[..., *shape]` as columns `[..., size]`."""
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    num_lead = array.ndim - len(leaf.shape)
    if num_lead < 0 or array.shape[num_lead:] != leaf.shape:
        raise ValueError(
            f"{leaf.name}: got an array of shape {array.shape}, expected one "
            f"that ends in {leaf.shape}; the source must return what its space says."
        )
    columns = array.reshape((*array.shape[:num_lead], len(leaf.components)))
    if leaf.start:  # in whole numbers: float32 would lose what a large start shares with its neighbours
        columns = _whole(columns)
        columns = columns - _row(leaf.start, columns)
    return columns.astype(dtype, copy=False)


def _to_source(leaf: Leaf, columns: Any) -> Any:
    """Columns `[..., size]` as a leaf's array `[..., *shape]`."""
    if not jnp.issubdtype(leaf.dtype, np.floating):
        columns = _whole(columns)
    if leaf.start:
        columns = columns + _row(leaf.start, columns)
    is_host = not isinstance(columns, jax.Array)
    dtype = leaf.dtype if is_host else jax.dtypes.canonicalize_dtype(leaf.dtype)
    return columns.reshape((*columns.shape[:-1], *leaf.shape)).astype(dtype)


def _whole(x: Any) -> Any:
    """The nearest whole numbers of `x`."""
    nearest = x.round() if jnp.issubdtype(x.dtype, np.floating) else x
    return nearest.astype(jnp.int32 if isinstance(x, jax.Array) else np.int64)


def _row(numbers: tuple[int, ...], like: Any) -> np.ndarray:
    """`numbers` with the rank and the dtype of columns `like`: JAX refuses to promote either."""
    return np.asarray(numbers, like.dtype)[(None,) * (like.ndim - 1)]


def _map(fn: Callable[[Leaf], Any], layout: Layout) -> Any:
    """The nested values of `fn` at every leaf, in order."""
    if isinstance(layout, Leaf):
        return fn(layout)
    if isinstance(layout, Mapping):
        return {key: _map(fn, child) for key, child in layout.items()}
    return tuple(_map(fn, child) for child in layout)
