"""(IA)^3: learned scales of keys, values and hidden units as a second pytree (Liu et al. 2022)."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxagent.adapt.paths import kernels, name_of

OUTPUTS = ("key", "value")  # scaled where they come out
INPUTS = ("down",)  # scaled where they go in: the hidden units behind the activation


def init(params: Any) -> dict[str, jax.Array]:
    """Scales of one, by a kernel's name, so that adaptation starts at the base model.

    `[H, D / H]` for keys and for values, `[4 D]` for hidden units: 6 D a layer at `mlp_factor` 4.
    Raises ValueError where the model has none of the kernels.
    """
    scaled = kernels(params, OUTPUTS)
    scales = {name: jnp.ones(kernel.shape[1:]) for name, kernel in scaled.items()}
    inputs = kernels(params, INPUTS)
    return scales | {name: jnp.ones(kernel.shape[:1]) for name, kernel in inputs.items()}


def merge(params: Any, scales: dict[str, jax.Array]) -> Any:
    """Base parameters with their kernels scaled, which is what scaling the activations computes.

    The tree and shapes `[...]` are those of `params`; `scales` as `init` makes them. Raises
    ValueError for a scale that fits no parameter.
    """
    known = {name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    if strangers := sorted(set(scales) - known):
        raise ValueError(f"scales: got {strangers[:3]}, expected names among the parameters'.")

    def merged(path: Any, leaf: jax.Array) -> jax.Array:
        scale = scales.get(name_of(path))
        if scale is None:
            return leaf
        is_input = name_of(path).split("/")[-2] in INPUTS
        return leaf * (scale[:, None] if is_input else scale[None])

    return jax.tree_util.tree_map_with_path(merged, params)
