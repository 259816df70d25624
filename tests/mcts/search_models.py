"""Random models to search with, for this library and for mctx, and searches of both."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

STATE = 8


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def problem(library, batch_size, num_actions, seed=0, tied=False, discount=0.97):
    """A root and a model; tied priors are rounded so that many actions have equal scores."""
    mix, shift = normal(seed, STATE, STATE), normal(seed + 1, num_actions, STATE)
    head, reading = normal(seed + 2, STATE, num_actions), normal(seed + 3, 2, STATE)

    def judge(z):
        prior = z @ head
        return jnp.round(prior / 4.0) if tied else prior, jnp.tanh(z @ reading[0])

    def model(params, key, action, z):
        z = jnp.tanh(z @ mix + shift[action])
        prior, value = judge(z)
        step = library.RecurrentFnOutput(
            reward=jnp.tanh(z @ reading[1]),
            discount=jnp.full(value.shape, discount, jnp.float32),
            prior_logits=prior,
            value=value,
        )
        return step, z

    first = normal(seed + 4, batch_size, STATE)
    prior, value = judge(first)
    return library.RootFnOutput(prior_logits=prior, value=value, embedding=first), model


def stochastic_problem(library, batch_size, num_actions, num_outcomes, seed=0):
    root, model = problem(library, batch_size, num_actions, seed)
    chance = normal(seed + 5, STATE, num_outcomes)
    jump = normal(seed + 6, num_outcomes, STATE)

    def decision(params, key, action, z):
        step, after = model(params, key, action, z)
        out = library.DecisionRecurrentFnOutput(chance_logits=after @ chance, afterstate_value=step.value)
        return out, after

    def outcome(params, key, chosen, after):
        # mctx calls it with outcomes out of range, whose result it drops.
        z = jnp.tanh(after + jump[jnp.clip(chosen, 0, num_outcomes - 1)])
        step, _ = model(params, key, jnp.zeros_like(chosen), z)
        out = library.ChanceRecurrentFnOutput(
            action_logits=step.prior_logits, value=step.value, reward=step.reward, discount=step.discount
        )
        return out, z

    return root, decision, outcome


def mask(batch_size, num_actions, seed):
    """Some actions invalid, never all of a lane."""
    invalid = np.random.default_rng(seed).random((batch_size, num_actions)) < 0.4
    invalid[np.arange(batch_size), np.arange(batch_size) % num_actions] = False
    return jnp.asarray(invalid, jnp.float32)


def run(library, policy, root, model, num_simulations, **options):
    """The output of one compiled search, key 7."""
    search = {"muzero": "muzero_policy", "gumbel": "gumbel_muzero_policy"}[policy]
    search = functools.partial(getattr(library, search), **options)
    return jax.jit(lambda key, root: search((), key, root, model, num_simulations))(jax.random.key(7), root)
