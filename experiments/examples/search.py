# %% [markdown]
# # Search with a model of your own
#
# The model is a `recurrent_fn`, as mctx has it: from a state and an action to a reward, a discount, and the prior
# and value of the state after. Here it is the true rule of a small game: add 1, 2 or 3 to a counter, and whoever
# says 10 wins.

# %%
import jax
import jax.numpy as jnp

import jaxagent.mcts as mctx

TARGET, MOVES = 10, 3


def recurrent_fn(params, key, action, counter):
    counter = counter + action + 1
    is_over = counter >= TARGET
    reward = jnp.where(counter == TARGET, 1.0, jnp.where(is_over, -1.0, 0.0))
    return mctx.RecurrentFnOutput(
        reward=reward,
        discount=jnp.where(is_over, 0.0, -1.0),  # the other player moves next
        prior_logits=jnp.zeros((len(counter), MOVES)),
        value=jnp.zeros(len(counter)),
    ), counter


# %% [markdown]
# All games from 0 to 9 at once, as lanes of one search.

# %%
counters = jnp.arange(TARGET)
root = mctx.RootFnOutput(prior_logits=jnp.zeros((TARGET, MOVES)), value=jnp.zeros(TARGET), embedding=counters)
search = jax.jit(lambda key: mctx.muzero_policy((), key, root, recurrent_fn, 1024, dirichlet_fraction=0.0))
output = search(jax.random.key(0))
for counter, weights in zip(counters, output.action_weights.round(2), strict=True):
    best = (TARGET - int(counter)) % 4  # leaves the other a multiple of 4
    print(f"at {counter}: add {int(weights.argmax()) + 1}  {weights}  theory: {best or 'lost'}")

# %% [markdown]
# What is below the action taken may be kept for the next move (`tree=mctx.subtree(tree, action)`), actions may be
# drawn from a policy (`sampled_model`), and several leaves evaluated at once (`num_leaves=`).
