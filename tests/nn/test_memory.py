"""Memories: a step at a time equals one pass, episodes do not meet, nothing comes from the future."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.config import MemoryConfig
from jaxagent.nn import memory as memories
from jaxagent.nn.memory import LinearRecurrence, memory

T, B, N, D = 7, 3, 2, 8
KINDS = {
    "none": MemoryConfig("none", D),
    "stack": MemoryConfig("stack", D, context=3),
    "gru": MemoryConfig("gru", D),
    "lru": MemoryConfig("lru", D, num_layers=2),
}
REACH = {"none": 1, "stack": 3, "gru": T + 1, "lru": T + 1}  # steps that features see, the last included


class Case:
    """A memory, its parameters, inputs, and where episodes of several lengths begin."""

    def __init__(self, kind):
        self.memory = memory(KINDS[kind], N)
        key_params, key_x, key_next = jax.random.split(jax.random.key(0), 3)
        self.params = jax.jit(self.memory.init)(key_params)
        self.x = jax.random.normal(key_x, (T, B, N))
        self.next_x = jax.random.normal(key_next, (T, B, N))
        # Lane 0: one episode that was begun before; 1: lengths 1, 2 and 4; 2: begins at once.
        self.is_first = jnp.zeros((T, B), bool).at[jnp.array([0, 1, 3]), 1].set(True).at[0, 2].set(True)
        self.unroll, self.step = jax.jit(self.memory.unroll), jax.jit(self.memory.step)
        blank = self.memory.init_carry(B)
        _, self.carry = self.unroll(self.params, blank, self.next_x, jnp.zeros((T, B), bool))


@functools.cache
def case(kind):
    return Case(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_at_a_time_equals_one_pass(kind):
    c = case(kind)
    features, carry = c.unroll(c.params, c.carry, c.x, c.is_first)
    stepped = c.carry
    for t in range(T):
        one, stepped = c.step(c.params, stepped, c.x[t], c.is_first[t])
        np.testing.assert_allclose(one, features[t], rtol=1e-5, atol=2e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), stepped, carry)
    assert features.shape == (T, B, D)


@pytest.mark.parametrize("kind", KINDS)
def test_features_see_their_episode_up_to_now_and_no_further(kind):
    c = case(kind)

    @jax.jit
    def seen(t):
        def total(carry, x):
            features, _ = c.memory.unroll(c.params, carry, x, c.is_first)
            return features[t] @ jnp.linspace(1.0, 2.0, D)  # the sum of what is normed is constant

        by_carry, by_x = jax.jacrev(total, (0, 1))(c.carry, c.x)  # [B, ...]
        carries = [jnp.abs(leaf).reshape(B, B, -1).max(-1) for leaf in jax.tree.leaves(by_carry)]
        return jnp.abs(by_x).max(-1), jnp.stack(carries).max(0) if carries else jnp.zeros((B, B))

    first = np.asarray(c.is_first)
    for t in range(T):
        by_x, by_carry = map(np.asarray, seen(t))  # [B of features, T, B], [B, B]
        for lane in range(B):
            begun = [s for s in range(t + 1) if first[s, lane]]
            start = max([t + 1 - REACH[kind], *begun[-1:]])
            expected = np.zeros((T, B), bool)
            expected[max(start, 0) : t + 1, lane] = True
            np.testing.assert_array_equal(by_x[lane] > 0, expected)
            remembers = not begun and t < REACH[kind] - 1
            np.testing.assert_array_equal(by_carry[lane] > 0, np.arange(B) == (lane if remembers else -1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_peek_is_what_would_come_next(kind):
    c = case(kind)
    features, peeked = jax.jit(c.memory.peek)(c.params, c.carry, c.x, c.is_first, c.next_x)
    np.testing.assert_allclose(
        features, c.unroll(c.params, c.carry, c.x, c.is_first)[0], rtol=1e-5, atol=2e-6
    )
    carry, on = c.carry, jnp.zeros(B, bool)
    for t in range(T):
        _, carry = c.step(c.params, carry, c.x[t], c.is_first[t])
        next_features, _ = c.step(c.params, carry, c.next_x[t], on)
        np.testing.assert_allclose(peeked[t], next_features, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["stack", "gru", "lru"])
def test_a_carry_of_other_lanes_is_refused(kind):
    c = case(kind)
    with pytest.raises(ValueError, match=r"carry of \[3\] lanes for inputs of 2"):
        c.memory.unroll(c.params, c.carry, c.x[:, :2], c.is_first[:, :2])


def test_a_gru_by_hand():
    c = case("gru")
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(c.params))
    h, x = np.zeros(D), np.asarray(c.x[:, 2], np.float64)
    expected = []
    for t in range(T):
        z = np.tanh(x[t] @ p["stem"]["kernel"] + p["stem"]["bias"])
        i = np.split(z @ p["input"]["kernel"] + p["input"]["bias"], 3)
        r = np.split(h @ p["recurrent"], 3)
        reset, update = (1.0 / (1.0 + np.exp(-i[k] - r[k])) for k in (0, 1))
        new = np.tanh(i[2] + reset * (r[2] + p["bias"]))
        h = (1 - update) * new + update * h
        expected.append(h)
    got = c.unroll(c.params, c.carry, c.x, c.is_first)[0][:, 2]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    gates = np.split(p["recurrent"], 3, axis=1)
    for gate in gates:
        np.testing.assert_allclose(gate @ gate.T, np.eye(D), atol=1e-5)


def test_a_linear_recurrence_by_hand_in_complex_numbers():
    layer = LinearRecurrence(D)
    key_init, key_x, key_state = jax.random.split(jax.random.key(1), 3)
    x, state = jax.random.normal(key_x, (T, B, D)), jax.random.normal(key_state, (B, 2, D))
    is_first = case("lru").is_first
    params = layer.init(key_init, x, state, is_first)
    y, states = jax.jit(layer.apply)(params, x, state, is_first)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), jax.device_get(params["params"]))
    eigenvalue = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"]))
    low, high = memories.RADII
    assert ((np.abs(eigenvalue) >= low - 1e-6) & (np.abs(eigenvalue) <= high + 1e-6)).all()
    assert (np.angle(eigenvalue) < memories.PHASE).all()
    gamma = np.sqrt(1 - np.abs(eigenvalue) ** 2)
    b = p["b"][:, :D] + 1j * p["b"][:, D:]
    h = np.asarray(state[:, 0]) + 1j * np.asarray(state[:, 1])
    for t in range(T):
        h = np.where(np.asarray(is_first)[t][:, None], 0.0, eigenvalue * h) + gamma * (np.asarray(x[t]) @ b)
        out = h.real @ p["c"][:D] + h.imag @ p["c"][D:] + np.asarray(x[t]) * p["d"]
        np.testing.assert_allclose(y[t], out, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(states[t, :, 0], h.real, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(states[t, :, 1], h.imag, rtol=1e-4, atol=1e-5)
