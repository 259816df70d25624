"""Playing policies in an emulator, which steps on the host: whole games, and films of them."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxagent.train import emulator_loop, parallel


def play(vector: Any, act: Callable, seeds: jax.Array) -> Iterator[tuple[Any, Any]]:
    """Step the lanes for ever: yields `(state, transition)`, on the host.

    `act(state's obs [B, ...], count) -> actions int32 [B]` is compiled by the caller; `seeds [B]`
    are the emulator's own.
    """
    state = emulator_loop.start(vector, seeds)
    step = parallel.on_host(jax.jit(lambda state, action: vector.step(None, state, action)))
    for count in itertools.count():
        action = np.asarray(act(parallel.to_device(state.obs), np.int32(count)))
        # Waited for: whoever has seen enough may drop the emulator, which must not be at work then.
        state, transition = jax.block_until_ready(step(state, action))
        yield state, transition


def returns(vector: Any, act: Callable, seeds: jax.Array, num_games: int) -> np.ndarray:
    """Undiscounted returns `[num_games, B]` of the first games of every lane, each to its end.

    As many of every lane, so that short games do not count more. The vector must not end games at
    lost lives. Raises ValueError where it does, and where games have no end.
    """
    if vector.env.options.episodic_life:
        raise ValueError(
            f"{vector.env.name}: got episodic_life=True, expected whole games; "
            "fix: envs.make(name, episodic_life=False)"
        )
    by_game = np.full((num_games, len(seeds)), np.nan)
    running, done = np.zeros(len(seeds)), np.zeros(len(seeds), int)
    limit = num_games * (vector.env.max_steps + 1)
    for _, transition in itertools.islice(play(vector, act, seeds), limit):
        running += np.asarray(transition.reward)
        ended = np.flatnonzero(np.asarray(transition.terminated | transition.truncated))
        for lane in ended[done[ended] < num_games]:
            by_game[done[lane], lane] = running[lane]
        running[ended] = 0.0
        done[ended] += 1
        if (done >= num_games).all():
            return by_game
    raise ValueError(
        f"{vector.env.name}: got {int(np.isfinite(by_game).sum())} of {by_game.size} games to their "
        f"ends in {limit} steps, expected all; is env.max_steps a game's?"
    )
