"""UCT with random rollouts: values of known games, and tic-tac-toe's forced moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent import mcts

LENGTH = 5


def walk(params, key, action, place):
    """A corridor from 0 to 5: right pays 1 at its end; left of 0 ends with nothing."""
    place = place + jnp.where(action == 1, 1, -1)
    is_over = (place < 0) | (place >= LENGTH)
    reward = (place >= LENGTH).astype(jnp.float32)
    return reward, jnp.where(is_over, 0.0, 1.0), jnp.clip(place, 0, LENGTH - 1), None


def test_rollouts_have_the_ruin_probability_as_their_mean():
    """From place i, right wins before left with probability (i + 1) / 6 (gambler's ruin)."""
    place = jnp.arange(LENGTH, dtype=jnp.int32)
    keys = jax.random.split(jax.random.key(0), 4000)
    one = lambda k: mcts.rollout_value(walk, (), k, place, None, 2, 200)  # noqa: E731
    mean = jax.jit(lambda keys: jnp.mean(jax.vmap(one)(keys), axis=0))(keys)
    np.testing.assert_allclose(mean, (np.arange(LENGTH) + 1) / (LENGTH + 1), atol=0.03)


def root_of(state, num_actions):
    size = jax.tree.leaves(state)[0].shape[0]
    return mcts.RootFnOutput(
        prior_logits=jnp.zeros((size, num_actions)), value=jnp.zeros((size,)), embedding=state
    )


def test_uct_walks_to_the_reward():
    model = mcts.rollout_model(walk, 2, 60, 8)
    root = root_of(jnp.arange(LENGTH, dtype=jnp.int32), 2)
    found = jax.jit(lambda k: mcts.uct_policy((), k, root, model, 100))(jax.random.key(1))
    np.testing.assert_array_equal(found.action, np.ones(LENGTH))


LINES = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]])


def place_mark(params, key, action, board):
    """Tic-tac-toe from the mover's side: own marks 1, the other's -1."""
    board = board.at[jnp.arange(board.shape[0]), action].set(1)
    won = jnp.any(jnp.all(board[:, LINES] == 1, axis=2), axis=1)
    is_over = won | jnp.all(board != 0, axis=1)
    board = jnp.where(is_over[:, None], jnp.ones_like(board), -board)
    discount = jnp.where(is_over, 0.0, -1.0)
    # A game that is over goes on without effect: the discount hides what follows.
    return won.astype(jnp.float32), discount, board, (board != 0) & ~is_over[:, None]


@pytest.mark.fast("board0-2")
@pytest.mark.parametrize(
    ("board", "answer"),
    [
        ([1, 1, 0, -1, -1, 0, 0, 0, 0], 2),  # win
        ([-1, -1, 0, 1, 0, 0, 0, 0, 1], 2),  # block
        ([0, 0, 0, 0, -1, 1, -1, 1, 0], 2),  # block the diagonal
    ],
)
def test_uct_finds_the_forced_move_of_tic_tac_toe(board, answer):
    board = jnp.asarray([board], jnp.int32)
    model = mcts.rollout_model(place_mark, 9, 9, 4)
    found = jax.jit(
        lambda k: mcts.uct_policy((), k, root_of(board, 9), model, 300, invalid_actions=board != 0)
    )(jax.random.key(0))
    assert found.action[0] == answer
