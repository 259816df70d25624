"""Streams: the layout by hand, the ids, and which tokens are targets."""

import jax.numpy as jnp
import numpy as np
import pytest

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
    assert {x.dtype for x in tokens} == {jnp.dtype("int32")}


def test_kinds_and_component_ids_of_a_wider_action():
    domain = Domain(obs_size=1, action_size=3, action_cardinality=0, index=0, first_component=7)
    np.testing.assert_array_equal(stream.component_ids(domain), [7, 8, 9, 10])
    np.testing.assert_array_equal(
        stream.kind_ids(domain), [stream.OBS, stream.ACTION, stream.ACTION, stream.ACTION]
    )


@pytest.mark.parametrize(
    ("segment", "every_token", "actions"),
    [
        # One episode: all but the very first token.
        ([3, 3], [0, 1, 1, 1, 1, 1], [0, 0, 1, 0, 0, 1]),
        # A border: the first observation token of the new episode follows from nothing.
        ([0, 1], [0, 1, 1, 0, 1, 1], [0, 0, 1, 0, 0, 1]),
        # Padding, also next to padding.
        ([2, -1], [0, 1, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0]),
        ([-1, -1], [0] * 6, [0] * 6),
        ([0, -1, -1], [0, 1, 1] + [0] * 6, [0, 0, 1] + [0] * 6),
    ],
)
def test_target_weights_by_hand(segment, every_token, actions):
    tokens = flatten([segment])
    weight = stream.target_weights(tokens, actions_only=False)
    np.testing.assert_array_equal(weight, [every_token])
    assert weight.dtype == jnp.float32
    np.testing.assert_array_equal(stream.target_weights(tokens, actions_only=True), [actions])


def test_an_action_of_an_episodes_first_step_is_a_target_but_its_first_token_alone_is_not():
    """Without observation tokens the first action token after a border has no predecessor."""
    domain = Domain(obs_size=0, action_size=2, action_cardinality=0, index=0, first_component=0)
    tokens = flatten([[0, 1]], domain)
    np.testing.assert_array_equal(stream.target_weights(tokens, actions_only=True), [[0, 1, 0, 1]])


def test_rows_are_weighted_by_their_own_segments():
    tokens = flatten([[0, 0], [0, -1], [1, 2]])
    weight = stream.target_weights(tokens, actions_only=False)
    np.testing.assert_array_equal(weight.sum(1), [5, 2, 4])
