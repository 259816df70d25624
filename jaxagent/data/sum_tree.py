"""A sum tree on the device: draws an index in proportion to its weight, in O(log n).

Parents are always computed anew from their children, never by differences, so that rounding does
not pile up over millions of writes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class SumTree(NamedTuple):
    """Weights of P leaves, P a power of two; node i has the children 2 i and 2 i + 1."""

    nodes: jax.Array  # [2 P] float32; node 1 is the total, the leaves begin at P, node 0 is unused

    @property
    def num_leaves(self) -> int:
        """P, a static number."""
        return self.nodes.shape[0] // 2

    @property
    def total(self) -> jax.Array:
        """Sum of all weights, float32 []."""
        return self.nodes[1]


def init(size: int) -> SumTree:
    """A tree of at least `size` leaves, all of weight 0; raises ValueError below 1."""
    if size < 1:
        raise ValueError(f"sum tree: got size {size}, expected at least 1 leaf.")
    return SumTree(jnp.zeros((2 * _power_of_two(size),)))


def get(tree: SumTree, index: jax.Array) -> jax.Array:
    """Weights `[...]` of leaves `index [...]`."""
    return tree.nodes[tree.num_leaves + index]


def put(tree: SumTree, index: jax.Array, weight: jax.Array) -> SumTree:
    """Set leaves `index [b]` to weights `[b]`, at least 0; of equal indices the largest counts."""
    node = tree.num_leaves + index
    nodes = tree.nodes.at[node].set(0.0).at[node].max(weight)  # whatever order a device writes in
    for _ in range(_depth(tree)):
        node = node // 2
        nodes = nodes.at[node].set(nodes[2 * node] + nodes[2 * node + 1])
    return SumTree(nodes)


def find(tree: SumTree, mass: jax.Array) -> jax.Array:
    """Leaves int32 `[...]` at which the running sum of weights first exceeds `mass [...]`.

    `mass` lies in [0, total). Leaves of weight 0 are never found unless all are 0; then leaf P - 1.
    """
    node = jnp.ones(mass.shape, jnp.int32)
    for _ in range(_depth(tree)):
        left, right = tree.nodes[2 * node], tree.nodes[2 * node + 1]
        goes_right = (left == 0.0) | ((mass >= left) & (right > 0.0))
        mass = jnp.where(goes_right, mass - left, mass)
        node = 2 * node + goes_right.astype(jnp.int32)
    return node - tree.num_leaves


def draw(tree: SumTree, key: jax.Array, num_draws: int) -> jax.Array:
    """Leaves int32 `[num_draws]` in proportion to their weights, one from each of as many strata.

    The total is cut into equal ranges with one uniform draw in each (Schaul et al. 2016, appendix
    B.2.1): every leaf is drawn as often as with independent draws, with less variance.
    """
    offset = jax.random.uniform(key, (num_draws,))
    place = (jnp.arange(num_draws, dtype=jnp.float32) + offset) / num_draws
    return find(tree, place * tree.total)


def _depth(tree: SumTree) -> int:
    return tree.num_leaves.bit_length() - 1


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
