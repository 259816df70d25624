"""Keys: pure functions of (seed, purpose, step), the same in every process and at every size."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxagent import keys


def bits(key):
    return np.asarray(jax.random.key_data(key)).tolist()


def test_derive_by_hand_and_the_same_in_every_process():
    # crc32("123456789") is the check value of CRC-32; Python's own hash() is salted per process.
    expected = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), np.uint32(0xCBF43926)), 3)
    assert bits(keys.derive(7, "123456789", 3)) == bits(expected)
    assert bits(keys.derive(7, "123456789")) != bits(expected)


def test_seed_purpose_and_step_all_matter():
    arguments = [(s, p, t) for s in (0, 1) for p in ("env", "init", "init2") for t in (0, 1, 2)]
    found = {tuple(bits(keys.derive(*a))) for a in arguments}
    assert len(found) == len(arguments)
    assert bits(keys.derive(0, "env")) == bits(keys.derive(0, "env", 0))


def test_step_may_be_traced():
    traced = jax.jit(lambda t: keys.derive(1, "env", t))(jnp.array(5, jnp.int32))
    assert bits(traced) == bits(keys.derive(1, "env", 5))


def test_a_lane_keeps_its_key_whatever_the_number_of_lanes():
    two = bits(keys.per_index(jax.random.key(0), jnp.arange(2)))
    five = bits(keys.per_index(jax.random.key(0), jnp.arange(5)))
    assert five[:2] == two
    assert len({tuple(k) for k in five}) == 5
    assert bits(keys.per_index(jax.random.key(0), jnp.array([3, 1]))) == [five[3], five[1]]
    assert bits(keys.per_index(jax.random.key(1), jnp.arange(2))) != two
