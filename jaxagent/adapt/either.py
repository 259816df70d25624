"""LoRA or (IA)^3: both kinds in one pytree, so that arms of either are lanes of one program."""

from collections.abc import Sequence
from typing import Any

import jax

from jaxagent.adapt import ia3, lora


def init(key: jax.Array, params: Any, rank: int, targets: Sequence[str]) -> dict[str, Any]:
    """Adapters of both kinds, by name, as `lora.init` and `ia3.init` make them."""
    return {"lora": lora.init(key, params, rank, targets), "ia3": ia3.init(params)}


def merge(params: Any, adapters: dict[str, Any], is_lora: jax.Array) -> Any:
    """The parameters under one kind, LoRA's where `is_lora []` is 1, (IA)^3's where 0; the other rests."""
    low_rank = jax.tree.map(lambda x: is_lora * x, adapters["lora"])
    scales = jax.tree.map(lambda x: 1.0 + (1.0 - is_lora) * (x - 1.0), adapters["ia3"])
    return ia3.merge(lora.merge(params, low_rank), scales)
