"""Whole games in an emulator: as many of every lane, each to its end, whatever its length."""

import itertools
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.types import Transition
from jaxagent.evaluate import emulator


class State(NamedTuple):
    seed: jax.Array
    obs: jax.Array  # time
    game: jax.Array
    is_over: jax.Array


class Games:
    """Game g of a lane lasts `seed + g` steps, every one of which gives the action."""

    def __init__(self, is_truncated=False, episodic_life=False, max_steps=50):
        self.env = SimpleNamespace(
            name="games",
            max_steps=max_steps,
            default_params={"length": np.array(1)},
            options=SimpleNamespace(episodic_life=episodic_life),
        )
        self.is_truncated = is_truncated

    def start(self, seeds, tasks):
        assert tasks["length"].shape == seeds.shape
        zeros = jnp.zeros_like(seeds)
        return State(seeds, zeros, zeros, zeros > 0)

    def step(self, key, state, action):
        valid = ~state.is_over
        time = jnp.where(valid, state.obs + 1, 0)
        game = jnp.where(valid, state.game, state.game + 1)
        ends = valid & (time == state.seed + game)
        reward = jnp.where(valid, action, 0).astype(jnp.float32)
        ended = (ends & False, ends) if self.is_truncated else (ends, ends & False)
        return State(state.seed, time, game, ends), Transition(time, reward, *ended, time, valid)


def act(obs, count):
    return jnp.full(obs.shape, 2, jnp.int32)


@pytest.mark.parametrize("is_truncated", [False, True])
def test_returns_are_of_the_first_games_of_every_lane(is_truncated):
    found = emulator.returns(Games(is_truncated), act, jnp.array([1, 5, 20]), 3)
    np.testing.assert_array_equal(found, 2.0 * (np.array([1, 5, 20]) + np.arange(3)[:, None]))


def test_a_game_without_an_end_is_an_error():
    with pytest.raises(ValueError, match="games: got 1 of 2 games"):
        emulator.returns(Games(max_steps=4), act, jnp.array([1, 30]), 1)


def test_lost_lives_are_no_ends_of_games():
    with pytest.raises(ValueError, match="expected whole games"):
        emulator.returns(Games(episodic_life=True), act, jnp.array([1]), 1)


def test_play_tells_the_policy_what_is_seen_and_when():
    seen = []

    def watch(obs, count):
        seen.append((int(count), np.asarray(obs).tolist()))
        return act(obs, count)

    steps = list(itertools.islice(emulator.play(Games(), watch, jnp.array([2, 9])), 4))
    assert seen == [(0, [0, 0]), (1, [1, 1]), (2, [2, 2]), (3, [0, 3])]
    assert [t.valid.tolist() for _, t in steps] == [[1, 1], [1, 1], [False, 1], [1, 1]]
