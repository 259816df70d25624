"""Wrappers of games: two players as one agent."""

from envs.types import Environment, Params
from envs.wrappers.wrapper import WrappedParams, Wrapper


class SelfPlay(Wrapper):
    """A game of two whose one agent moves both sides; the reward is the mover's."""

    def step(self, key, state, action, params):
        mover = self.current_player(state)
        obs, state, reward, *flags = super().step(key, state, action, params)
        return obs, state, reward[mover], *flags


def self_play(env: Environment, params: Params) -> tuple[SelfPlay, WrappedParams]:
    """One agent for both players; `current_player` still says whose the observation is.

    A return that is good for the mover is bad for the next one if the other player moves then.
    Raises ValueError for a game of another number of players.
    """
    if env.num_players != 2:
        raise ValueError(
            f"{env.name}: got {env.num_players} players, expected 2; self-play needs a game of two."
        )
    return SelfPlay(env, (), "self-play", num_players=1), WrappedParams(params, ())
