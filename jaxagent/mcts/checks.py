"""Checks of a search's inputs; errors name the one that does not fit."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxagent.mcts.base import RootFnOutput
from jaxagent.mcts.tree import Tree


def check_inputs(
    root: RootFnOutput, num_simulations: int, max_depth: int | None, invalid_actions: Any
) -> None:
    """Raise ValueError that names the first input of a search that does not fit."""
    if jnp.ndim(root.prior_logits) != 2:
        raise ValueError(
            f"root.prior_logits: got shape {jnp.shape(root.prior_logits)}, expected [B, A]; give a "
            "batch, of one lane if need be."
        )
    batch_size, _ = shape = root.prior_logits.shape
    check_shape("root.value", root.value, (batch_size,))
    for path, x in jax.tree.leaves_with_path(root.embedding):
        if jnp.shape(x)[:1] != (batch_size,):
            raise ValueError(
                f"root.embedding{jax.tree_util.keystr(path)}: got shape {jnp.shape(x)}, expected "
                f"[{batch_size}, ...] as root.prior_logits has; give one row a lane."
            )
    if invalid_actions is not None:
        check_shape("invalid_actions", invalid_actions, shape)
    for name, number in (("num_simulations", num_simulations), ("max_depth", max_depth)):
        if number is not None and number < 1:
            raise ValueError(f"{name}: got {number}, expected at least 1; search needs a step.")


def check_leaves(num_simulations: int, num_leaves: int) -> None:
    """Raise ValueError unless simulations come in whole steps of L leaves."""
    if num_leaves < 1 or num_simulations % num_leaves:
        raise ValueError(
            f"num_leaves: got {num_leaves} with {num_simulations} simulations, expected a divisor "
            "of them; every step takes as many leaves, so change either number."
        )


def check_tree(tree: Tree, root: RootFnOutput) -> None:
    """Raise ValueError unless a tree to go on from has the root's lanes, actions and embedding."""
    batch_size, num_actions = root.prior_logits.shape
    if tree.children_index.shape[::2] != (batch_size, num_actions):
        raise ValueError(
            f"tree: got lanes and actions {tree.children_index.shape[::2]}, expected "
            f"{(batch_size, num_actions)} as root.prior_logits has; go on with the same lanes."
        )
    before = jax.tree.map(lambda x: x[:, 0], tree.embeddings)
    check_embedding(before, root.embedding, "root.embedding, of a tree to go on from")


def check_shape(name: str, x: jax.Array, expected: tuple[int, ...]) -> None:
    """Raise ValueError unless `x`, called `name` in the message, has the shape `expected`."""
    if jnp.shape(x) != expected:
        raise ValueError(
            f"{name}: got shape {jnp.shape(x)}, expected {expected}; lanes come first, in all "
            "inputs of a search alike."
        )


def check_embedding(before: Any, after: Any, name: str = "recurrent_fn's embedding") -> None:
    """Raise ValueError unless structure, shapes and dtypes are kept."""
    shapes = [jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), t) for t in (before, after)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{name}: got {shapes[1]}, expected {shapes[0]} as it was given; a "
            "node's embedding must keep its structure, shapes and dtypes."
        )
