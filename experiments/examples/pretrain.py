# %% [markdown]
# # Pretrain on your own data, then tune by LoRA
#
# The data of this page are what a PPO agent plays; yours are a file: `jaxagent.data.load` reads Minari, D4RL's
# layout in HDF5 or npz, and stores of this library.

# %%
import tempfile

import jaxagent

place = tempfile.mkdtemp()  # a folder of yours keeps what is written
expert = jaxagent.learn("ppo", "classic/CartPole-v1", seeds=1, num_updates=60)
print(expert)
expert.record(f"{place}/long", episodes=16)

# %% [markdown]
# The action-state transformer learns the next token of everything: states and actions, a token a scalar.

# %%
SIZE = {"num_updates": 400, "updates_per_chunk": 100, "episodes": 8}
base = jaxagent.learn("sequence", "classic/CartPole-v1", dataset=f"{place}/long", out=f"{place}/base", **SIZE)
print(base)

# %% [markdown]
# The pole is longer now. Three demonstrations tune the model by adapters of rank 4, its bins and all else as they
# were; a clone by an MLP has nothing but these three.

# %%
LONGER = {"change": {"length": 0.8}, "seeds": 2}
teacher = jaxagent.learn("ppo", "classic/CartPole-v1", num_updates=60, **LONGER)
teacher.record(f"{place}/few", episodes=3)
few = {"dataset": f"{place}/few", **SIZE, **LONGER}
tuned = jaxagent.learn(
    "sequence",
    "classic/CartPole-v1",
    begin=f"{place}/base",
    tuning="lora",
    targets="actions",
    learning_rate=5e-3,
    **few,
)
clone = jaxagent.learn("bc", "classic/CartPole-v1", **few)
for name, result in {"teacher": teacher, "before": base, "LoRA": tuned, "MLP": clone}.items():
    print(f"{name:8s} {result.returns.mean():6.1f}")
