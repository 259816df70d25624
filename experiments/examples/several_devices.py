# %% [markdown]
# # Several devices
#
# Lanes lie on as many devices of a host as are asked for, and gradients are averaged between them. A CPU can
# play four, which is what tests do: the flag must be set before JAX starts.

# %%
import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"

import jax
import numpy as np

import jaxagent
from jaxagent.config import RuntimeConfig

SETTINGS = {"num_updates": 2, "updates_per_chunk": 1, "seeds": 1, "episodes": 8, "quiet": True}
one = jaxagent.learn("ppo", "classic/CartPole-v1", **SETTINGS)
four = jaxagent.learn("ppo", "classic/CartPole-v1", runtime=RuntimeConfig(devices=4), **SETTINGS)

# %% [markdown]
# One device equals four up to the order of a sum: after two updates the parameters differ by no more than
# rounding does. (Later chaos makes two agents of it, as good as each other.)

# %%
pairs = zip(jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True)
print("devices", len(jax.devices()), "largest difference", max(float(np.abs(a - b).max()) for a, b in pairs))
