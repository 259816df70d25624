# %% [markdown]
# # Memory
#
# A T-maze shows at its beginning where the prize lies, and asks at its end. What acts on what it sees now cannot
# know: half of its prizes are luck. A GRU remembers; so does the action-state transformer (`memory="transformer"`).

# %%
import jaxagent

SETTINGS = {"change": {"length": 4}, "seeds": 2, "num_updates": 48}
reflex = jaxagent.learn("ppo", "memory/TMaze", **SETTINGS)
remembers = jaxagent.learn("ppo", "memory/TMaze", memory="gru", **SETTINGS)
print("reflex ", reflex.returns.round(2))
print("GRU    ", remembers.returns.round(2))
