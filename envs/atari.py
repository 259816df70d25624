"""Atari-100k: its 26 games with the scores of a random player and of a human, by rom id.

Source: Kaiser et al. 2020 (games, 100k agent steps = 400k frames); scores as in
`mila-iqia/spr` src/rlpyt_utils.py, the same in dqn_zoo atari_data.py and in Agarwal et al. 2021
(rliable): undiscounted, unclipped returns of whole games after up to 30 no-ops. Also what SPR was
published to reach, which a reproduction is set beside.
"""

from typing import NamedTuple

from envs.common.names import check_name

STEPS = 100_000  # agent steps of a run; reset transitions are none (`Transition.valid`)


class Scores(NamedTuple):
    """Mean returns of a game by which agents are normalised."""

    random: float
    human: float


ATARI_100K = {
    "alien": Scores(227.8, 7127.7),
    "amidar": Scores(5.8, 1719.5),
    "assault": Scores(222.4, 742.0),
    "asterix": Scores(210.0, 8503.3),
    "bank_heist": Scores(14.2, 753.1),
    "battle_zone": Scores(2360.0, 37187.5),
    "boxing": Scores(0.1, 12.1),
    "breakout": Scores(1.7, 30.5),
    "chopper_command": Scores(811.0, 7387.8),
    "crazy_climber": Scores(10780.5, 35829.4),
    "demon_attack": Scores(152.1, 1971.0),
    "freeway": Scores(0.0, 29.6),
    "frostbite": Scores(65.2, 4334.7),
    "gopher": Scores(257.6, 2412.5),
    "hero": Scores(1027.0, 30826.4),
    "jamesbond": Scores(29.0, 302.8),
    "kangaroo": Scores(52.0, 3035.0),
    "krull": Scores(1598.0, 2665.5),
    "kung_fu_master": Scores(258.5, 22736.3),
    "ms_pacman": Scores(307.3, 6951.6),
    "pong": Scores(-20.7, 14.6),
    "private_eye": Scores(24.9, 69571.3),
    "qbert": Scores(163.9, 13455.0),
    "road_runner": Scores(11.5, 7845.0),
    "seaquest": Scores(68.4, 42054.7),
    "up_n_down": Scores(533.4, 11693.2),
}


# Mean scores of SPR after 100k steps, 100 runs a game (Agarwal et al. 2021's release, as stored in
# eloialonso/iris results/data/SPR.json).
SPR = {
    "alien": 841.9,
    "amidar": 179.7,
    "assault": 565.6,
    "asterix": 962.5,
    "bank_heist": 345.4,
    "battle_zone": 14834.1,
    "boxing": 35.7,
    "breakout": 19.6,
    "chopper_command": 946.3,
    "crazy_climber": 36700.5,
    "demon_attack": 517.6,
    "freeway": 19.3,
    "frostbite": 1170.7,
    "gopher": 660.6,
    "hero": 5858.6,
    "jamesbond": 366.5,
    "kangaroo": 3617.4,
    "krull": 3681.6,
    "kung_fu_master": 14783.2,
    "ms_pacman": 1318.4,
    "pong": -5.4,
    "private_eye": 86.0,
    "qbert": 866.3,
    "road_runner": 12213.1,
    "seaquest": 558.1,
    "up_n_down": 10859.2,
}


def human_normalised(game: str, score: float) -> float:
    """Place a mean return between random play (0) and a human (1); `game` with or without `ale/`.

    Raises `UnknownName` for a game that is not of Atari-100k.
    """
    random, human = ATARI_100K[check_name("Atari-100k game", game.removeprefix("ale/"), ATARI_100K)]
    return (score - random) / (human - random)
