"""Moves by search against plain recursion without tables, bits, stacks or pruning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need

import envs
from envs.experts import boards, minimax
from envs.types import sample_action

need("pgx")


@functools.cache
def made(name):
    return envs.make(f"pgx/{name}")


def states_of(name, positions):
    """States `[B]` of pgx with the given boards, each an array of -1, 0, 1 and the side to move."""
    env, params = made(name)
    _, state = env.reset(jax.random.key(0), params)
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(positions), *x.shape)), state)
    x = state.game._x._replace(
        board=jnp.array([np.ravel(board) for board, _ in positions], jnp.int32),
        color=jnp.array([color for _, color in positions], jnp.int32),
    )
    return state._replace(game=state.game.replace(_x=x))


@functools.cache
def searched(depth):
    """Scores of a batch of connect-four states, compiled."""
    score = functools.partial(minimax.connect_four, depth=depth)
    return jax.jit(jax.vmap(score, (0, None)))


def scores_of(positions, depth):
    _, params = made("connect_four")
    return np.asarray(searched(depth)(states_of("connect_four", positions), params))


def rewards_of(name, policies, lanes, opening=0):
    """Rewards of whole games between two policies, `[B, 2]`; the first plies are drawn at random.

    A policy is `policy(key, state) -> action`, who begins is drawn at reset.
    """
    env, params = made(name)

    def game(key):
        key_reset, key_moves = jax.random.split(key)
        _, state = env.reset(key_reset, params)

        def move(carry, t):
            state, total = carry
            keys = jax.random.split(jax.random.fold_in(key_moves, t), 4)
            legal = env.legal_actions(state, params)
            random = sample_action(keys[0], env.action_spec, legal)
            moves = jnp.stack([policies[0](keys[1], state), policies[1](keys[2], state)])
            action = jnp.where(t < opening, random, moves[env.current_player(state)])
            _, state, reward, *_ = env.step(keys[3], state, action, params)
            return (state, total + reward), None  # after the end pgx stands still and pays zero

        start = state, jnp.zeros(2, jnp.float32)
        return jax.lax.scan(move, start, jnp.arange(env.max_steps - 1))[0][1]

    return np.asarray(jax.jit(jax.vmap(game))(jax.random.split(jax.random.key(5), lanes)))


def random_policy(name):
    env, params = made(name)
    return lambda key, state: sample_action(key, env.action_spec, env.legal_actions(state, params))


# --- the choice -----------------------------------------------------------------------------------


def test_best_draws_evenly_among_exact_ties_of_the_highest():
    scores = jnp.array([-jnp.inf, 3.0, 2.9999998, 3.0, -5.0, 3.0], jnp.float32)
    keys = jax.random.split(jax.random.key(0), 3000)
    actions = jax.jit(jax.vmap(minimax.best, (None, 0)))(scores, keys)
    assert actions.dtype == jnp.int32
    share = np.bincount(np.asarray(actions), minlength=6) / len(keys)
    np.testing.assert_allclose(share, [0, 1 / 3, 0, 1 / 3, 0, 1 / 3], atol=0.04)


def test_best_stays_among_the_actions_when_none_is_legal():
    keys = jax.random.split(jax.random.key(0), 200)
    actions = jax.vmap(minimax.best, (None, 0))(jnp.full(7, -jnp.inf), keys)
    assert set(np.asarray(actions).tolist()) == set(range(7))


# --- tic-tac-toe ----------------------------------------------------------------------------------

ROWS = ("012", "345", "678", "036", "147", "258", "048", "246")


def has_row(board, side):
    return any(all(board[int(cell)] == side for cell in row) for row in ROWS)


@functools.cache
def tic_tac_toe_scores(board, color):
    """Value of each cell for the mover, by recursion from a board that games reach."""
    scores = [-np.inf] * 9
    if has_row(board, 0) or has_row(board, 1):
        return scores
    for cell in range(9):
        if board[cell] >= 0:
            continue
        after = (*board[:cell], color, *board[cell + 1 :])
        replies = tic_tac_toe_scores(after, 1 - color)
        if has_row(after, color):
            scores[cell] = 1
        else:
            scores[cell] = -max(replies) if min(after) < 0 else 0
    return scores


def reachable(board=(-1,) * 9, color=0, seen=None):
    """All boards of all games, with the side to move."""
    seen = {} if seen is None else seen
    if board not in seen:
        seen[board] = color
        if not (has_row(board, 0) or has_row(board, 1)):
            for cell in range(9):
                if board[cell] < 0:
                    after = (*board[:cell], color, *board[cell + 1 :])
                    reachable(after, 1 - color, seen)
    return seen


def test_tic_tac_toe_equals_recursion_on_every_board_of_every_game():
    positions = list(reachable().items())
    assert len(positions) == 5478
    _, params = made("tic_tac_toe")
    states = states_of("tic_tac_toe", positions)
    scores = jax.jit(jax.vmap(minimax.tic_tac_toe, (0, None)))(states, params)
    assert scores.dtype == jnp.float32
    np.testing.assert_array_equal(scores, [tic_tac_toe_scores(*p) for p in positions])


def perfect(key, state):
    return minimax.best(minimax.tic_tac_toe(state, ()), key)


@pytest.mark.slow
def test_perfect_play_draws_with_itself_and_never_loses():
    np.testing.assert_array_equal(rewards_of("tic_tac_toe", (perfect, perfect), 64), 0)
    random = rewards_of("tic_tac_toe", (perfect, random_policy("tic_tac_toe")), 256)
    assert random[:, 0].min() == 0
    assert random[:, 0].mean() > 0.8


# --- connect four ---------------------------------------------------------------------------------

FOURS = [
    [(row + i * down, column + i * right) for i in range(4)]
    for row in range(6)
    for column in range(7)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1))
    if row + 3 * down < 6 and 0 <= column + 3 * right < 7
]
CELLS = tuple(np.moveaxis(np.array(FOURS), -1, 0))  # two [69, 4]: rows and columns
WEIGHT = np.array([0, 1, 2, 4])


def has_four(board, side):
    return bool((board[CELLS] == side).all(1).any())


def is_over(board):
    return has_four(board, 0) or has_four(board, 1) or (board >= 0).all()


def promise(board, side):
    mine, other = ((board[CELLS] == s).sum(1) for s in (side, 1 - side))
    return int(WEIGHT[mine[other == 0]].sum() - WEIGHT[other[mine == 0]].sum())


def drop(board, column, side):
    board = board.copy()
    row = int((board[:, column] < 0).sum()) - 1
    board[row, column] = side
    return board


def legal(board):
    return [] if is_over(board) else [c for c in range(7) if board[0, c] < 0]


def move_value(board, side, column, plies, depth, seen):
    """Full-width minimax: every move of every position down to the horizon."""
    after = drop(board, column, side)
    if has_four(after, side):
        seen.append(("win", plies))
        return 10_000 - plies
    if (after >= 0).all():
        seen.append(("draw", plies))
        return 0
    if plies == depth:
        return promise(after, side)
    other = 1 - side
    return -max(move_value(after, other, c, plies + 1, depth, seen) for c in legal(after))


def reference(positions, depth, seen):
    scores = np.full((len(positions), 7), -np.inf, np.float32)
    for row, (board, side) in zip(scores, positions, strict=True):
        for column in legal(board):
            row[column] = move_value(board, side, column, 1, depth, seen)
    return scores


def played(columns):
    """The position after moves given as digits, and the side to move."""
    board = np.full((6, 7), -1)
    for i, column in enumerate(columns):
        board = drop(board, int(column), i % 2)
    return board, len(columns) % 2


def random_position(rng, num_stones):
    """Random play that wins only where it must; drawn again until the game is not over."""
    while True:
        board, side = played("")
        for _ in range(num_stones):
            columns = legal(board)
            quiet = [c for c in columns if not has_four(drop(board, c, side), side)]
            if not columns:
                break
            board, side = drop(board, rng.choice(quiet or columns), side), 1 - side
        if not is_over(board):
            return board, side


@functools.cache
def random_positions():
    """From the first stones to the last, `[40]`."""
    rng = np.random.default_rng(0)
    return tuple(random_position(rng, n) for n in (*range(0, 30), *range(32, 42)))


@pytest.mark.fast("2")
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_alpha_beta_equals_full_width_minimax(depth):
    positions = random_positions()[:: 1 if depth < 4 else 4]
    seen = []
    want = reference(positions, depth, seen)
    # The search passes wins of either side at every ply, full boards and full columns.
    assert {plies for what, plies in seen if what == "win"} == set(range(1, depth + 1))
    assert any(what == "draw" for what, _ in seen)
    assert np.isinf(want).any()
    assert np.isfinite(want).any(1).all()
    scores = scores_of(positions, depth)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, want)


def recursive_alpha_beta(board, side, columns, alpha, beta, plies, depth):
    """Value, and how often a recursive search goes one ply down or, from an inner node, back up."""
    steps = 0
    for column in sorted(columns, key=lambda c: abs(c - 3)):
        if alpha >= beta:
            break
        after, below = drop(board, column, side), 0
        if has_four(after, side):
            value = 10_000 - plies
        elif plies == depth or (after >= 0).all():
            value = promise(after, side)
        else:
            value, below = recursive_alpha_beta(
                after, 1 - side, legal(after), -beta, -alpha, plies + 1, depth
            )
            value, below = -value, below + 1
        alpha, steps = max(alpha, value), steps + 1 + below
    return alpha, steps


@functools.partial(jax.jit, static_argnames="depth")
def counted(board, side, move, depth):
    """Value of one move of the root, and the steps of the loop."""
    start = minimax._start(minimax._stones(board.ravel(), side), move, depth)
    search, num_steps = jax.lax.while_loop(
        lambda carry: minimax._is_open(carry[0]),
        lambda carry: (minimax._step(carry[0], depth), carry[1] + 1),
        (start, jnp.zeros((), jnp.int32)),
    )
    return search.bound[1], num_steps


def test_the_search_visits_what_recursive_alpha_beta_visits():
    positions = [p for p in random_positions()[::4] if 3 in legal(p[0])]
    assert len(positions) > 3
    middle = jnp.array(1, jnp.int32)
    for board, side in positions:
        want = recursive_alpha_beta(board, side, [3], -20_000, 20_000, 1, depth=5)
        got = counted(jnp.array(board, jnp.int32), jnp.array(side, jnp.int32), middle, depth=5)
        assert tuple(map(int, got)) == want
    full_width = sum(7**ply for ply in range(5)) + sum(7**ply for ply in range(1, 4))
    board, side = played("")
    assert recursive_alpha_beta(board, side, [3], -20_000, 20_000, 1, 5)[1] < full_width / 10


def test_the_horizon_counts_the_lines_through_a_first_stone():
    np.testing.assert_array_equal(scores_of([played("")], 1)[0], [3, 4, 5, 7, 5, 4, 3])


@pytest.mark.slow
def test_vmap_equals_a_loop_and_jit_equals_eager():
    _, params = made("connect_four")
    positions = random_positions()[::8]
    states = states_of("connect_four", positions)
    one = jax.jit(functools.partial(minimax.connect_four, depth=3))
    each = [one(jax.tree.map(lambda x, i=i: x[i], states), params) for i in range(len(positions))]
    np.testing.assert_array_equal(scores_of(positions, 3), each)
    first = jax.tree.map(lambda x: x[0], states)
    np.testing.assert_array_equal(each[0], minimax.connect_four(first, params, depth=3))


def test_a_mirrored_board_has_mirrored_scores():
    positions = random_positions()
    mirrored = [(board[:, ::-1], side) for board, side in positions]
    np.testing.assert_array_equal(scores_of(mirrored, 4), scores_of(positions, 4)[:, ::-1])


def test_scores_are_the_movers_whatever_its_color():
    positions = random_positions()
    swapped = [(np.where(board < 0, -1, 1 - board), 1 - side) for board, side in positions]
    np.testing.assert_array_equal(scores_of(swapped, 3), scores_of(positions, 3))


def test_it_wins_at_once_where_it_can():
    scores = scores_of([played("303030")], 4)[0]
    assert scores[3] == 10_000 - 1  # a fourth on top of three
    assert (np.delete(scores, [0, 3]) == -(10_000 - 2)).all()  # the other has three in column 0
    assert abs(scores[0]) < 1000


def test_it_blocks_and_knows_what_comes_otherwise():
    scores = scores_of([played("30313")], 2)[0]
    assert (np.delete(scores, 3) == -(10_000 - 2)).all()
    assert abs(scores[3]) < 1000


def test_it_finds_a_win_in_two_moves_and_prefers_the_nearer_one():
    """Two on the ground with room on either side: a third beside them cannot be stopped."""
    board, side = played("3322")
    shallow, deep = scores_of([(board, side)], 2)[0], scores_of([(board, side)], 3)[0]
    assert abs(shallow).max() < 1000
    assert set(np.flatnonzero(deep == 10_000 - 3)) == {1, 4}
    assert abs(np.delete(deep, [1, 4])).max() < 1000
    after, side = played("332211")  # the other did not look: now 0 and 4 win at once
    now = scores_of([(after, side)], 3)[0]
    assert set(np.flatnonzero(now == now.max())) == {0, 4}
    assert now.max() == 10_000 - 1


def test_a_game_that_is_over_has_no_moves():
    won, _ = played("3030303")
    full = np.array([[(c // 2 + r) % 2 for c in range(7)] for r in range(6)])
    assert (full >= 0).all()
    assert np.isneginf(scores_of([(won, 1), (won, 0), (full, 0)], 2)).all()


def test_a_search_without_a_move_is_refused():
    with pytest.raises(ValueError, match="depth: got 0, expected at least 1"):
        minimax.connect_four(states_of("connect_four", [played("")]), (), depth=0)


def searching(depth):
    def policy(key, state):
        return minimax.best(minimax.connect_four(state, (), depth=depth), key)

    return policy


def scripted(key, state):
    del key
    return boards.connect_four(state, ())


@pytest.mark.slow
def test_two_plies_beat_random_play():
    players = searching(2), random_policy("connect_four")
    assert (rewards_of("connect_four", players, 64)[:, 0] > 0).mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("weaker", [scripted, searching(2)], ids=["scripted", "two_plies"])
def test_four_plies_beat_the_scripted_expert_and_two_plies(weaker):
    rewards = rewards_of("connect_four", (searching(4), weaker), 64, opening=2)[:, 0]
    assert (rewards > 0).mean() > 0.5
    assert (rewards < 0).mean() < 0.3


@pytest.mark.slow
def test_a_depth_that_is_an_array_is_that_depth():
    """Players of several depths in one program, whose arrays have room for the deepest."""
    positions = random_positions()[:3]
    state = jax.tree.map(lambda x: x[2], states_of("connect_four", positions))
    several = jax.jit(jax.vmap(lambda d: minimax.connect_four(state, None, depth=d, deepest=4)))
    found = several(jnp.arange(1, 5))
    for depth in range(1, 5):
        np.testing.assert_array_equal(found[depth - 1], scores_of(positions, depth)[2])
    with pytest.raises(ValueError, match="no more than deepest"):
        minimax.connect_four(state, None, depth=5, deepest=4)
