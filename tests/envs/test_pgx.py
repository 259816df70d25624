"""The pgx adapter against pgx: states, masks, rewards, illegal actions, clocks and pictures."""

import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need

import envs
from envs.common.foreign import foreign
from envs.common.names import UnknownName
from envs.pictures import boards
from envs.types import contains

need("pgx")

pgx = pytest.importorskip("pgx")
adapter = pytest.importorskip("envs.adapters.pgx")

FAST = ("tic_tac_toe", "connect_four")
NAMES = tuple(adapter.FACTS)
TWO_PLAYERS = tuple(n for n in NAMES if n != "2048")
# Backgammon's mover plays several dice, and the winner of a betting round may be asked twice.
ALTERNATING = tuple(n for n in TWO_PLAYERS if n not in ("backgammon", "leduc_holdem"))


def cases(names=NAMES):
    return [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in names]


@functools.cache
def made(name):
    env, params = envs.make(f"pgx/{name}")
    return env, params, jax.jit(env.reset), jax.jit(env.step)


def legal_action(rng, env, state, params):
    return jnp.array(rng.choice(np.flatnonzero(env.legal_actions(state, params))), jnp.int32)


def assert_equal_trees(ours, theirs, what):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=what)


def test_names_are_those_of_pgx():
    left_out = {
        "sparrow_mahjong": "three players",
        "minatar-asterix": "gymnax has the MinAtar games",
        "minatar-breakout": "gymnax",
        "minatar-freeway": "gymnax",
        "minatar-seaquest": "gymnax",
        "minatar-space_invaders": "gymnax",
    }
    ours = {env_id.split("/")[1] for env_id in envs.registered("pgx")}
    assert ours == set(NAMES)
    assert ours | set(left_out) == set(pgx.available_envs())
    assert not ours & set(left_out)


@pytest.mark.fast("tic_tac_toe")
@pytest.mark.foreign_oracle
@pytest.mark.parametrize("name", cases())
def test_step_equals_pgx(name):
    """Reset and 25 legal moves beside pgx's own chain of states; a finished game starts anew."""
    env, params, reset, step = made(name)
    oracle = foreign(pgx.make)(name)
    oracle_init, oracle_step = jax.jit(foreign(oracle.init)), jax.jit(foreign(oracle.step))
    rng = np.random.default_rng(0)
    obs, state = reset(jax.random.key(0), params)
    truth = oracle_init(jax.random.key(0))
    for i in range(25):
        assert_equal_trees(state.game, truth, f"move {i}")
        np.testing.assert_array_equal(obs, np.asarray(truth.observation, np.float32))
        np.testing.assert_array_equal(env.legal_actions(state, params), truth.legal_action_mask)
        assert int(env.current_player(state)) == int(truth.current_player)
        assert contains(env.obs_spec, obs)
        action, key = legal_action(rng, env, state, params), jax.random.key(100 + i)
        obs, state, reward, terminated, truncated, info = step(key, state, action, params)
        truth = oracle_step(truth, action, jax.random.clone(key))
        true_reward = truth.rewards if env.num_players == 2 else truth.rewards[0]
        np.testing.assert_array_equal(reward, true_reward)
        assert reward.dtype == jnp.float32
        assert bool(terminated) == bool(truth.terminated)
        assert not truncated
        assert not truth.truncated
        assert info == {}
        if terminated:
            obs, state = reset(jax.random.key(200 + i), params)
            truth = oracle_init(jax.random.key(200 + i))


# --- whole games ----------------------------------------------------------------------------------


@functools.cache
def random_games(name, num_games=4):
    """Return, length and last player of games of uniformly drawn legal moves: leaves `[B, ...]`."""
    env, params, *_ = made(name)

    def move(carry):
        state, total, key, _, _ = carry
        key, key_action, key_step = jax.random.split(key, 3)
        mask = env.legal_actions(state, params)
        action = jax.random.categorical(key_action, jnp.where(mask, 0.0, -jnp.inf))
        mover = env.current_player(state)
        _, state, reward, terminated, truncated, _ = env.step(key_step, state, action, params)
        return state, total + reward, key, mover, terminated | truncated

    def game(key):
        key_reset, key_game = jax.random.split(key)
        _, state = env.reset(key_reset, params)
        total = jnp.zeros((2,) if env.num_players == 2 else (), jnp.float32)
        first = (state, total, key_game, env.current_player(state), jnp.array(False))
        state, total, _, mover, _ = jax.lax.while_loop(lambda c: ~c[4], move, first)
        return total, state.time, mover, state.game.terminated

    return jax.device_get(jax.jit(jax.vmap(game))(jax.random.split(jax.random.key(1), num_games)))


@pytest.mark.fast("tic_tac_toe")
@pytest.mark.parametrize("name", cases())
def test_random_legal_play_ends_by_the_rules_and_in_the_stated_time(name):
    _, lengths, _, terminated = random_games(name)
    assert terminated.all()
    assert (lengths <= adapter.FACTS[name].longest).all()
    if name in ("tic_tac_toe", "connect_four", "kuhn_poker"):  # short enough to see all lengths
        assert lengths.min() >= {"tic_tac_toe": 5, "connect_four": 7, "kuhn_poker": 2}[name]


@pytest.mark.parametrize("name", cases(TWO_PLAYERS))
def test_the_winner_gets_what_the_loser_pays(name):
    totals, *_ = random_games(name)
    np.testing.assert_array_equal(totals.sum(-1), 0)
    stakes = {"backgammon": (1, 2, 3), "kuhn_poker": (1, 2), "leduc_holdem": range(14)}
    draws = (0,) if name not in ("go_9x9", "go_19x19", "hex") else ()
    assert set(abs(totals).ravel()) <= {float(x) for x in (*stakes.get(name, (1,)), *draws)}
    assert abs(totals).sum() > 0 or name in ("chess", "gardner_chess", "animal_shogi", "shogi")


@pytest.mark.parametrize("moves", [(0, 3, 1, 4, 2), (0, 3, 1, 4, 8, 5)])
def test_three_in_a_row_win(moves):
    """The mover of the last move wins, whichever player id he has."""
    _, params, reset, step = made("tic_tac_toe")
    for seed in range(4):
        _, state = reset(jax.random.key(seed), params)
        for i, move in enumerate(moves):
            winner = int(state.game.current_player)
            _, state, reward, terminated, *_ = step(
                jax.random.key(0), state, jnp.array(move, jnp.int32), params
            )
            assert bool(terminated) == (i == len(moves) - 1)
            expected = np.zeros(2)
            if terminated:
                expected[[winner, 1 - winner]] = 1, -1
            np.testing.assert_array_equal(reward, expected)


@pytest.mark.slow
def test_2048_pays_the_sum_of_merged_tiles():
    env, params, reset, step = made("2048")
    assert env.num_players == 1
    _, state = reset(jax.random.key(0), params)
    board = jnp.array([[1, 1, 3, 3], [2, 0, 0, 0], [0] * 4, [0] * 4], jnp.int32)
    state = state._replace(game=state.game.replace(_board=board.ravel(), legal_action_mask=jnp.ones(4, bool)))
    _, after, reward, terminated, *_ = step(jax.random.key(0), state, jnp.int32(0), params)
    assert reward.shape == ()
    assert float(reward) == 4 + 16  # 2 + 2 and 8 + 8, slid to the left
    np.testing.assert_array_equal(after.game._board[:2], [2, 4])
    assert not terminated


@pytest.mark.slow
def test_a_chess_game_of_512_moves_is_a_draw_and_no_truncation():
    _, params, reset, step = made("chess")
    _, state = reset(jax.random.key(0), params)
    late = state.game._x._replace(step_count=jnp.array(511, jnp.int32))
    state = state._replace(game=state.game.replace(_x=late), time=jnp.array(511, jnp.int32))
    action = jnp.array(np.flatnonzero(state.game.legal_action_mask)[0], jnp.int32)
    _, state, reward, terminated, truncated, _ = step(jax.random.key(0), state, action, params)
    assert terminated
    assert not truncated
    np.testing.assert_array_equal(reward, [0, 0])


# --- the mover ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases(ALTERNATING))
def test_players_alternate(name):
    env, params, reset, step = made(name)
    rng = np.random.default_rng(1)
    _, state = reset(jax.random.key(5), params)
    for i in range(12):
        mover = int(env.current_player(state))
        action = legal_action(rng, env, state, params)
        _, state, _, terminated, *_ = step(jax.random.key(i), state, action, params)
        if terminated:
            break
        assert int(env.current_player(state)) == 1 - mover


def test_who_begins_is_drawn():
    env, params, reset, _ = made("tic_tac_toe")
    first = {int(env.current_player(reset(jax.random.key(i), params)[1])) for i in range(16)}
    assert first == {0, 1}


def test_the_observation_is_the_movers():
    """Plane 0 has the mover's marks, plane 1 the opponent's."""
    _, params, reset, step = made("tic_tac_toe")
    _, state = reset(jax.random.key(0), params)
    obs, state, *_ = step(jax.random.key(0), state, jnp.int32(4), params)
    assert float(obs[1, 1, 1]) == 1
    assert float(obs.sum()) == 1
    obs, *_ = step(jax.random.key(0), state, jnp.int32(0), params)
    assert float(obs[1, 1, 0]) == 1
    assert float(obs[0, 0, 1]) == 1
    assert float(obs.sum()) == 2


@pytest.mark.parametrize("name", cases())
def test_only_dice_and_new_tiles_use_the_key(name):
    env, params, reset, step = made(name)
    assert env.is_step_random == (name in adapter.RANDOM_STEP)
    rng = np.random.default_rng(2)
    _, state = reset(jax.random.key(7), params)
    differs = False
    for i in range(8):
        action = legal_action(rng, env, state, params)
        one = step(jax.random.key(i), state, action, params)
        for other in (1000 + i, 2000 + i):
            two = step(jax.random.key(other), state, action, params)
            pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
            differs |= any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)
        state = one[1]
        if one[3]:
            break
    assert differs == env.is_step_random


# --- illegal actions and the clock ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "penalty"),
    [
        ("tic_tac_toe", -1),
        pytest.param("backgammon", -3, marks=pytest.mark.slow),
        pytest.param("go_9x9", -1, marks=pytest.mark.slow),
    ],
)
def test_an_illegal_action_loses_at_once(name, penalty):
    env, params, reset, step = made(name)
    rng = np.random.default_rng(3)
    _, state = reset(jax.random.key(0), params)
    action = legal_action(rng, env, state, params)
    _, state, *_ = step(jax.random.key(0), state, action, params)
    mover = int(env.current_player(state))
    illegal = jnp.array(np.flatnonzero(~np.asarray(env.legal_actions(state, params)))[0], jnp.int32)
    _, lost, reward, terminated, truncated, _ = step(jax.random.key(1), state, illegal, params)
    assert terminated
    assert not truncated
    assert float(reward[mover]) == penalty
    assert float(reward[1 - mover]) == -penalty
    assert np.asarray(env.legal_actions(lost, params)).all()
    # Afterwards nothing happens and nothing is paid; only the clock goes on.
    _, after, reward, terminated, *_ = step(jax.random.key(2), lost, illegal, params)
    assert terminated
    np.testing.assert_array_equal(reward, [0, 0])
    assert int(after.time) == int(lost.time) + 1
    still = lost.game.replace(rewards=after.game.rewards)
    assert_equal_trees(after.game, still, "a finished game")


def test_truncation_comes_at_the_limit_alone():
    env, params = envs.make("pgx/connect_four", max_steps=4)
    assert env.max_steps == 4
    step = jax.jit(env.step)
    _, state = env.reset(jax.random.key(0), params)
    flags = []
    for i in range(6):
        _, state, _, terminated, truncated, _ = step(jax.random.key(i), state, jnp.int32(i), params)
        assert not terminated
        flags.append(bool(truncated))
        assert int(state.time) == i + 1
    assert flags == [False] * 3 + [True] * 3


def test_the_limit_is_a_task_of_its_own_under_vmap():
    env, params, reset, _ = made("tic_tac_toe")
    limits = params._replace(max_steps=jnp.array([1, 2], jnp.int32))
    _, state = reset(jax.random.key(0), params)
    step = jax.jit(jax.vmap(env.step, in_axes=(None, None, None, 0)))
    truncated = step(jax.random.key(0), state, jnp.int32(0), limits)[4]
    np.testing.assert_array_equal(truncated, [True, False])


def test_overrides_are_checked():
    with pytest.raises(UnknownName, match="max_step"):
        envs.make("pgx/tic_tac_toe", max_step=3)
    for bad in (0, -1, 2.5, float("nan"), True, "3"):
        with pytest.raises(ValueError, match=r"max_steps: got .*expected"):
            envs.make("pgx/tic_tac_toe", max_steps=bad)


@pytest.mark.parametrize("name", cases())
def test_invariants_hold_and_see_a_broken_state(name):
    env, params, reset, step = made(name)
    rng = np.random.default_rng(4)
    _, state = reset(jax.random.key(0), params)
    for i in range(3):
        assert all(bool(x) for x in env.invariants(state, params).values())
        action = legal_action(rng, env, state, params)
        _, state, *_ = step(jax.random.key(i), state, action, params)
    nothing = jnp.zeros_like(state.game.legal_action_mask)
    broken = state._replace(game=state.game.replace(legal_action_mask=nothing))
    assert not env.invariants(broken, params)["a_move_exists"]


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases())
def test_pictures_show_each_move_and_do_not_turn_with_the_mover(name):
    """Most boards of pgx are turned to the mover; the picture must hold still."""
    env, params, reset, step = made(name)
    rng = np.random.default_rng(0)
    _, state = reset(jax.random.key(0), params)
    picture = env.render(state, params)
    for i in range(6):
        action = legal_action(rng, env, state, params)
        _, state, _, terminated, *_ = step(jax.random.key(i), state, action, params)
        last, picture = picture, env.render(jax.device_get(state), params)
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape == last.shape
        changed = (picture != last).any(-1).mean()
        assert changed > 0
        if name not in ("2048", "kuhn_poker", "leduc_holdem"):  # there, much changes at once
            assert changed < 0.12
        if terminated:
            break


def captured(monkeypatch, painter, env, state, params):
    """What the adapter hands to a painter."""
    seen = []
    blank = np.zeros((40, 40, 3), np.uint8)
    monkeypatch.setattr(boards, painter, lambda *args: seen.append(args) or blank)
    env.render(state, params)
    return seen[0]


@pytest.mark.slow
@pytest.mark.foreign_oracle
@pytest.mark.parametrize("name", ["chess", "gardner_chess"])
def test_chess_pictures_agree_with_fen(name, monkeypatch):
    if name == "chess":
        from pgx.experimental.chess import to_fen
    else:
        from pgx.gardner_chess import _to_fen as to_fen
    env, params, reset, step = made(name)
    rng = np.random.default_rng(0)
    _, state = reset(jax.random.key(0), params)
    for i in range(7):
        pieces, owner = captured(monkeypatch, "paint_chess", env, state, params)
        names = np.where(owner > 0, pieces, np.char.lower(pieces))
        rows = str(foreign(to_fen)(state.game)).split()[0].split("/")
        for row, fen in zip(names, rows, strict=True):
            squares = "".join(" " * int(x) if x.isdigit() else x for x in fen)
            assert [n or " " for n in row] == list(squares)
        action = legal_action(rng, env, state, params)
        _, state, *_ = step(jax.random.key(i), state, action, params)


@pytest.mark.slow
@pytest.mark.foreign_oracle
@pytest.mark.parametrize("name", ["othello", "backgammon"])
def test_pictures_show_pgx_absolute_boards(name, monkeypatch):
    from pgx.backgammon import _get_abs_board as backgammon_board
    from pgx.othello import _get_abs_board as othello_board

    env, params, reset, step = made(name)
    rng = np.random.default_rng(0)
    _, state = reset(jax.random.key(0), params)
    for i in range(10):
        if name == "othello":
            (ours,) = captured(monkeypatch, "paint_othello", env, state, params)
            truth = np.asarray(othello_board(state.game))
        else:
            points, bar, off, _ = captured(monkeypatch, "paint_backgammon", env, state, params)
            ours = np.concatenate([points, bar * [1, -1], off * [1, -1]])
            truth = np.asarray(backgammon_board(state.game))
        np.testing.assert_array_equal(ours.ravel(), truth)
        action = legal_action(rng, env, state, params)
        _, state, *_ = step(jax.random.key(i), state, action, params)


def test_hex_pictures_keep_the_colors_of_stones(monkeypatch):
    """Also after the second player's swap, which mirrors the first stone and takes it over."""
    env, params, reset, step = made("hex")
    _, state = reset(jax.random.key(0), params)
    expected = np.zeros((11, 11), int)
    for i, (move, side) in enumerate([(2 * 11 + 7, 1), (40, -1), (41, 1)]):
        _, state, *_ = step(jax.random.key(i), state, jnp.int32(move), params)
        expected[divmod(move, 11)] = side
        (board,) = captured(monkeypatch, "paint_hex", env, state, params)
        np.testing.assert_array_equal(board, expected)
    _, state = reset(jax.random.key(0), params)
    for i, move in enumerate((2 * 11 + 7, 11 * 11)):
        _, state, *_ = step(jax.random.key(i), state, jnp.int32(move), params)
    expected = np.zeros((11, 11), int)
    expected[7, 2] = -1
    (board,) = captured(monkeypatch, "paint_hex", env, state, params)
    np.testing.assert_array_equal(board, expected)


def test_painters_put_pieces_where_they_are():
    board = np.zeros((6, 7), int)
    board[5, 2], board[4, 6] = 1, -1
    picture = boards.paint_connect_four(board)
    cell = picture.shape[0] / 6
    at = {}
    for row, column in np.ndindex(6, 7):
        at[row, column] = picture[round((row + 0.5) * cell), round((column + 0.5) * cell)]
    np.testing.assert_array_equal(at[5, 2], (214, 56, 44))
    np.testing.assert_array_equal(at[4, 6], (244, 206, 52))
    assert sum(not np.array_equal(color, boards.PAPER) for color in at.values()) == 2


def test_painters_hold_the_largest_scores():
    crowd = np.zeros(24, int)
    crowd[3], crowd[20] = 15, -15
    full = boards.paint_backgammon(crowd, (0, 0), (0, 0), [6, 6, 6, 6])
    assert full.std() > 0
    tiles = boards.paint_2048(np.full((4, 4), 131072))
    assert tiles.shape == (300, 300, 3)
    chips = boards.paint_poker(["J", "K"], "?", [13, 13])
    assert chips.std() > 0


def test_import_is_silent():
    code = (
        "import envs; env, params = envs.make('pgx/tic_tac_toe'); import jax;"
        "env.reset(jax.random.key(0), params)"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize("name", cases(tuple(adapter.SYMMETRIES)))
def test_a_symmetry_of_the_board_leaves_the_game_what_it_is(name):
    """The same game played in the mirror shows the same boards, masks and rewards, mirrored."""
    env, params, reset, step = made(name)
    cells, moves = env.symmetries
    rng = np.random.default_rng(0)
    which = rng.integers(1, len(moves))
    for row in (*cells, *moves):
        assert sorted(row) == list(range(len(row)))
    (obs, state), (turned, other) = (reset(jax.random.key(0), params) for _ in range(2))
    for _ in range(8):
        boards_seen = [np.asarray(x).reshape(cells.shape[1], -1) for x in (obs, turned)]
        np.testing.assert_array_equal(boards_seen[1], boards_seen[0][cells[which]])
        legal, legal_turned = (np.asarray(env.legal_actions(s, params)) for s in (state, other))
        np.testing.assert_array_equal(legal_turned, legal[moves[which]])
        move = int(rng.choice(np.flatnonzero(legal)))
        place = int(np.flatnonzero(moves[which] == move)[0])
        obs, state, reward, terminated, *_ = step(jax.random.key(1), state, jnp.int32(move), params)
        turned, other, reward_turned, *_ = step(jax.random.key(1), other, jnp.int32(place), params)
        np.testing.assert_array_equal(reward, reward_turned)
        if terminated:
            break
