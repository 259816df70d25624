# %% [markdown]
# # A sweep
#
# Numbers that the program computes with are lanes of one program: three learning rates and two clips, two seeds
# each, are twelve agents that compile once. Each is as it would be alone.

# %%
import jaxagent

swept = jaxagent.sweep(
    "ppo",
    "classic/CartPole-v1",
    {"learning_rate": [3e-4, 1e-3, 3e-3], "clip": [0.1, 0.3]},
    seeds=2,
    num_updates=36,
)
print(swept)

# %% [markdown]
# Settings were compared on the seeds that they were chosen on, so the best is trained on others before a claim.

# %%
from jaxagent.study.config import SeedConfig

again = jaxagent.learn("ppo", "classic/CartPole-v1", seeds=SeedConfig(10, 2), num_updates=36, **swept.best)
print(swept.best, again)
