# %% [markdown]
# # Train an agent
#
# One call trains PPO on CartPole, four seeds as lanes of one program, and leaves a run: a folder with its
# settings, metrics, checkpoints, film and page. Without `out=` it goes with the process.

# %%
import jaxagent

result = jaxagent.learn("ppo", "classic/CartPole-v1", seeds=4, num_updates=60)
print(result)

# %% [markdown]
# What it reached: snapshots are played without chance, over the same episodes for every seed.

# %%
print("env steps", result.curve["steps"])
print("mean return of the seeds", result.curve["returns"].mean(axis=1).round(1))
print("new episodes", result.evaluate(episodes=64).round(1))

# %% [markdown]
# Look at it.

# %%
print(result.plot("runs/examples/cartpole.png"), result.render("runs/examples/cartpole.gif"))

# %% [markdown]
# The policy of the best seed acts alone: a memory that begins, then actions. It can be jitted and scanned, and
# `policy.export(folder)` writes it as a program that needs none of this library's agents.

# %%
import jax
import jax.numpy as jnp

policy = result.policy()
carry = policy.init(2)
obs, is_first = jnp.zeros((2, 4)), jnp.ones(2, bool)
action, carry = jax.jit(policy.act)(carry, obs, is_first, jax.random.key(0))
print("actions", action)
