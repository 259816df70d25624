"""Networks: flax.linen modules behind plain functions; caches and adapters are arguments."""
