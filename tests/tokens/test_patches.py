"""Patches by hand: boards, frames of 8 bits, vectors; what does not fit is padded with zeros."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.tokens.patches import Patches, of_boards


def test_boards_by_hand():
    board = jnp.arange(20.0).reshape(1, 5, 4, 1)
    expected = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15], [16, 17, 0, 0], [18, 19, 0, 0]]
    np.testing.assert_array_equal(of_boards(board, 2)[0], expected)
    patches = Patches((5, 4, 1), 2)
    assert (patches.count, patches.size) == (6, 4)
    lead = jnp.broadcast_to(board, (2, 3, 5, 4, 1))
    np.testing.assert_array_equal(patches.cut(lead), np.broadcast_to(np.asarray(expected), (2, 3, 6, 4)))


def test_vectors_are_cut_in_a_row():
    patches = Patches((5,), 2)
    assert (patches.count, patches.size) == (3, 2)
    np.testing.assert_array_equal(patches.cut(jnp.arange(5.0)), [[0, 1], [2, 3], [4, 0]])
    assert (Patches((5,), 5).count, Patches((5,), 5).size) == (1, 5)


def test_pixels_are_shares_of_white_with_their_frames_last():
    frames = np.arange(2 * 2 * 4, dtype=np.uint8).reshape(2, 2, 4)
    patches = Patches((2, 2, 4), 2, is_pixels=True)
    assert (patches.count, patches.size) == (2, 8)
    cut = np.asarray(patches.cut(jnp.asarray(frames))) * 255.0
    first = frames[:, :, :2].transpose(1, 2, 0).reshape(-1)
    np.testing.assert_allclose(cut[0], first, rtol=1e-6)


def test_observations_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"got observations \(3, 4, 4, 2\), expected"):
        Patches((5, 4, 2), 2).cut(jnp.zeros((3, 4, 4, 2)))
