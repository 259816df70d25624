"""Streams: the layout by hand, the ids, and transitions as tokens."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxagent.tokens import stream
from jaxagent.tokens.component import Domain

DOMAIN = Domain(obs_size=2, action_size=1, action_cardinality=3, index=4, first_component=10)


def flatten(segment, domain=DOMAIN):
    segment = jnp.asarray(segment, jnp.int32)
    steps = np.arange(segment.size).reshape(segment.shape)[..., None]
    obs = 100 * steps + np.arange(domain.obs_size)
    action = 100 * steps + 50 + np.arange(domain.action_size)
    return stream.flatten(jnp.asarray(obs), jnp.asarray(action), segment, domain)


def test_the_layout_by_hand():
    tokens = flatten([[0, 0], [5, 6]])
    np.testing.assert_array_equal(tokens.value, [[0, 1, 50, 100, 101, 150], [200, 201, 250, 300, 301, 350]])
    np.testing.assert_array_equal(tokens.component, [10, 11, 12, 10, 11, 12])
    np.testing.assert_array_equal(tokens.kind, [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(tokens.time, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(tokens.order, [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(tokens.segment, [[0] * 6, [5, 5, 5, 6, 6, 6]])
    assert int(tokens.domain) == 4
    assert {x.dtype for x in jax.tree.leaves(tokens)} == {jnp.dtype("int32")}


def test_kinds_and_component_ids_of_a_wider_action():
    domain = Domain(obs_size=1, action_size=3, action_cardinality=0, index=0, first_component=7)
    np.testing.assert_array_equal(stream.component_ids(domain), [7, 8, 9, 10])
    np.testing.assert_array_equal(
        stream.kind_ids(domain), [stream.OBS, stream.ACTION, stream.ACTION, stream.ACTION]
    )


def test_transitions_become_bins_and_ids_in_the_order_of_the_stream():
    """Two reals (eight bins of width 1/4) and a category of three beside them."""
    unit = jnp.array([[[-1.0, 0.1, 2.0], [0.99, -0.3, 0.0]]])
    tokens = stream.of_transitions(unit, DOMAIN, num_bins=8)
    np.testing.assert_array_equal(tokens.value, [[0, 4, 8 + 2, 7, 2, 8 + 0]])
    same = stream.flatten(
        tokens.value.reshape(1, 2, 3)[..., :2], tokens.value[:, 2::3, None], jnp.zeros((1, 2)), DOMAIN
    )
    jax.tree.map(np.testing.assert_array_equal, tokens, same)
