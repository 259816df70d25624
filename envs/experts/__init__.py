"""Scripted experts: controllers of the true state, for pictures and for tests of what is reachable.

`EXPERTS[env_id](state, params) -> action`, one lane each: int32 `[]` or float32 `[A]`. Where
another source has the same fields in its state, one expert serves both.
"""

from collections.abc import Callable
from typing import Any

import jax

from envs.common.names import check_name
from envs.experts import boards, bsuite, classic, grids, memory, minatar, robots
from envs.memory import cards

MINIGRID = (
    "BlockedUnlockPickUp",
    "DoorKey-5x5",
    "DoorKey-6x6",
    "DoorKey-8x8",
    "DoorKey-16x16",
    "Empty-5x5",
    "Empty-6x6",
    "Empty-8x8",
    "Empty-16x16",
    "EmptyRandom-5x5",
    "EmptyRandom-6x6",
    "EmptyRandom-8x8",
    "EmptyRandom-16x16",
    "FourRooms",
    "LockedRoom",
    "Unlock",
    "UnlockPickUp",
)
MEMORY = ("MemoryS8", "MemoryS16", "MemoryS32", "MemoryS64", "MemoryS128")

EXPERTS: dict[str, Callable[[Any, Any], jax.Array]] = {
    "brax/inverted_double_pendulum": robots.inverted_double_pendulum,
    "brax/inverted_pendulum": robots.inverted_pendulum,
    "brax/reacher": robots.reacher,
    "classic/CartPole-v1": classic.cartpole,
    "classic/Acrobot-v1": classic.acrobot,
    "classic/Pendulum-v1": classic.pendulum,
    "classic/MountainCar-v0": classic.mountain_car,
    "classic/MountainCarContinuous-v0": classic.mountain_car_continuous,
    "gymnax/CartPole-v1": classic.cartpole,
    "gymnax/Acrobot-v1": classic.acrobot,
    "gymnax/Pendulum-v1": classic.pendulum,
    "gymnax/MountainCar-v0": classic.mountain_car,
    "gymnax/MountainCarContinuous-v0": classic.mountain_car_continuous,
    "gymnax/Breakout-MinAtar": minatar.breakout,
    "gymnax/Freeway-MinAtar": minatar.freeway,
    "gymnax/Catch-bsuite": bsuite.catch,
    "gymnax/DeepSea-bsuite": bsuite.deep_sea,
    "gymnax/FourRooms-misc": grids.four_rooms,
    "memory/RepeatFirst": cards.RepeatFirst().answer,
    "memory/RepeatPrevious": cards.RepeatPrevious().answer,
    "memory/CountRecall": cards.CountRecall().answer,
    "memory/Autoencode": cards.Autoencode().answer,
    "memory/TMaze": memory.tmaze,
    "memory/PositionCartPole": classic.cartpole,
    "memory/NoisyPendulum": classic.pendulum,
    "minatar/Asterix": minatar.asterix,
    "minatar/Breakout": minatar.breakout,
    "minatar/Freeway": minatar.freeway,
    "minatar/Seaquest": minatar.seaquest,
    "minatar/SpaceInvaders": minatar.space_invaders,
    "pgx/connect_four": boards.connect_four,
    "pgx/tic_tac_toe": boards.tic_tac_toe,
    **{f"xminigrid/MiniGrid-{name}": grids.minigrid for name in MINIGRID},
    **{f"xminigrid/MiniGrid-{name}": grids.memory for name in MEMORY},
}


def expert(env_id: str) -> Callable[[Any, Any], jax.Array]:
    """The scripted expert of an environment, as in `EXPERTS`; raises `UnknownName` where there is none."""
    return EXPERTS[check_name("environment with a scripted expert", env_id, EXPERTS)]
