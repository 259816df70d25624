"""Windows of the last steps: cut from an episode, or kept while acting, they are the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.agents import window

T, n, m = 5, 3, 2


def episode(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(T, n)).astype(np.float32), rng.normal(size=(T, m)).astype(np.float32)


def kept_while_acting(obs, action, length):
    """Windows of one lane, as a policy sees them, of an episode that begins at every `is_first`."""
    carry, seen = window.empty(1, length, n, m), []
    step = jax.jit(window.see)
    for t in range(T):
        carry = step(carry, jnp.asarray(obs[t][None]), jnp.array([t == 0]))
        seen.append(jax.device_get(carry))
        carry = window.act(carry, jnp.asarray(action[t][None]))
    return jax.tree.map(lambda *x: np.concatenate(x), *seen)


@pytest.mark.parametrize("length", [1, 3])
def test_windows_of_data_are_those_of_acting(length):
    obs, action = episode()
    jax.tree.map(
        np.testing.assert_array_equal,
        window.of_episode(obs, action, length),
        kept_while_acting(obs, action, length),
    )


def test_a_window_ends_with_the_present_and_does_not_know_its_action():
    obs, action = episode()
    cut = window.of_episode(obs, action, 3)
    np.testing.assert_array_equal(cut.obs[3], obs[1:4])
    np.testing.assert_array_equal(cut.action[3], [*action[1:3], np.zeros(m)])
    np.testing.assert_array_equal(cut.is_known[:3], [[0, 0, 1], [0, 1, 1], [1, 1, 1]])
    np.testing.assert_array_equal(cut.obs[0, :2], 0.0)


def test_a_new_episode_knows_nothing_of_the_last():
    obs, action = episode()
    carry = jax.tree.map(lambda x: jnp.asarray(x[-1:]), window.of_episode(obs, action, 3))
    fresh = window.see(carry, jnp.ones((1, n)), jnp.array([True]))
    np.testing.assert_array_equal(fresh.is_known, [[False, False, True]])
    on = window.see(carry, jnp.ones((1, n)), jnp.array([False]))
    np.testing.assert_array_equal(on.is_known, [[True, True, True]])
