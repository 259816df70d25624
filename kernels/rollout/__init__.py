"""`rollout`: T steps of an environment with its policy in one launch, states in registers throughout.

The kernel is `kernels.scan`: what a step needs of memory are the two words that it draws its randomness
from and the policy's parameters, so that lanes never wait for memory, and nothing is launched between.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kernels import dispatch
from kernels.rollout.policies import linear, perceptron
from kernels.scan import scan

KERNEL = dispatch.Kernel("rollout")
__all__ = ["KERNEL", "cost", "linear", "perceptron", "rollout"]


def rollout(
    step: Callable[[Any, jax.Array, Any], tuple[Any, Any]],
    state: Any,
    seeds: Any,
    *,
    implementation: str = "auto",
) -> tuple[Any, Any]:
    """The last state, leaves `[B]`, and what every step gave, leaves `[T, B]`.

    `step(state, lane, seed)` moves lanes alone and resets them itself: `lane` is their number, uint32, and
    `seed` a step's of `seeds`, integers `[T]`. `envs.words.lane_step` makes one. What is not asked for is not
    written: let `step` sum up rewards in its state where the trajectory is not needed.
    Raises ValueError for a state without lanes, and else as `scan` does.
    """
    how = dispatch.choose(KERNEL, implementation)
    lanes = jnp.arange(_num_lanes(state), dtype=jnp.uint32)

    def body(carry: tuple[Any, jax.Array], seed: Any) -> tuple[tuple[Any, jax.Array], Any]:
        state, lane = carry
        state, told = step(state, lane, seed)
        return (state, lane), told

    (state, _), told = scan(body, (state, lanes), seeds, implementation=how, kernel=KERNEL)
    return state, told


def _num_lanes(state: Any) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(state)]
    if not shapes or any(shape[:1] != shapes[0][:1] or not shape for shape in shapes):
        raise ValueError(f"rollout: got a state of leaves {shapes}, expected [B], all of as many lanes.")
    return shapes[0][0]


def cost(length: int, lanes: int, *, num_fields: int, num_outputs: int, operations: int) -> tuple[int, int]:
    """Operations and bytes, of fields and outputs of 4 bytes: states are read and written once in all."""
    return length * lanes * operations, 4 * lanes * (2 * num_fields + length * num_outputs) + 8 * length
