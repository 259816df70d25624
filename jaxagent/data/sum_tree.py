"""A sum tree on the device: draws an index in proportion to its weight, in O(log n).

A node has dozens of children, so that a tree is three deep where a binary one is seventeen: on an
accelerator a level is a launch or two, however wide. Parents are always computed anew from their
children, never by differences, so that rounding does not pile up over millions of writes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

MOST_CHILDREN = 64


class SumTree(NamedTuple):
    """Weights by level from the top, float32 `[R], [R^2], ..., [R^depth]`; the last are leaves."""

    levels: tuple[jax.Array, ...]

    @property
    def num_children(self) -> int:
        """R, a static number."""
        return self.levels[0].shape[0]

    @property
    def num_leaves(self) -> int:
        """How many weights fit, a static number."""
        return self.levels[-1].shape[0]

    @property
    def total(self) -> jax.Array:
        """Sum of all weights, float32 []."""
        return jnp.sum(self.levels[0])


def init(size: int) -> SumTree:
    """A tree of at least `size` leaves, all of weight 0; raises ValueError below 1."""
    if size < 1:
        raise ValueError(f"sum tree: got size {size}, expected at least 1 leaf.")
    depth = next(d for d in range(1, 32) if size <= MOST_CHILDREN**d)
    children = next(r for r in range(2, MOST_CHILDREN + 1) if size <= r**depth)
    return SumTree(tuple(jnp.zeros((children**level,)) for level in range(1, depth + 1)))


def get(tree: SumTree, index: jax.Array) -> jax.Array:
    """Weights `[...]` of leaves `index [...]`."""
    return tree.levels[-1][index]


def put(tree: SumTree, index: jax.Array, weight: jax.Array) -> SumTree:
    """Set leaves `index [b]` to weights `[b]`, at least 0; of equal indices the largest counts."""
    # Whatever order a device writes in.
    levels = [tree.levels[-1].at[index].set(0.0).at[index].max(weight)]
    for above in reversed(tree.levels[:-1]):
        index = index // tree.num_children
        sums = jnp.sum(_children(levels[0], index, tree.num_children), axis=-1)
        levels.insert(0, above.at[index].set(sums))
    return SumTree(tuple(levels))


def find(tree: SumTree, mass: jax.Array) -> jax.Array:
    """Leaves int32 `[...]` at which the running sum of weights first exceeds `mass [...]`.

    `mass` lies in [0, total). Leaves of weight 0 are never found unless all are 0; then it is the
    last.
    """
    count = tree.num_children
    node = jnp.zeros(mass.shape, jnp.int32)
    for level in tree.levels:
        weight = _children(level, node, count)
        running = jnp.cumsum(weight, axis=-1)
        # The last of any weight, where rounding leaves more mass than the children have.
        last = count - 1 - jnp.argmax(weight[..., ::-1] > 0.0, axis=-1)
        last = jnp.where(running[..., -1] > 0.0, last, count - 1)
        past = jnp.sum(running <= mass[..., None], axis=-1, dtype=jnp.int32)
        child = jnp.minimum(past, last.astype(jnp.int32))
        before = jnp.take_along_axis(running - weight, child[..., None], axis=-1)[..., 0]
        mass = mass - before
        node = node * count + child
    return node


def draw(tree: SumTree, key: jax.Array, num_draws: int) -> jax.Array:
    """Leaves int32 `[num_draws]` in proportion to their weights, one from each of as many strata.

    The total is cut into equal ranges with one uniform draw in each (Schaul et al. 2016, appendix
    B.2.1): every leaf is drawn as often as with independent draws, with less variance.
    """
    offset = jax.random.uniform(key, (num_draws,))
    place = (jnp.arange(num_draws, dtype=jnp.float32) + offset) / num_draws
    return find(tree, place * tree.total)


def _children(level: jax.Array, node: jax.Array, count: int) -> jax.Array:
    """Weights `[..., count]` of the children, which are in `level`, of nodes `[...]` above it."""
    return level.reshape(-1, count)[node]
