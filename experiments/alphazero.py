"""AlphaZero: a network learns two solved games from its own search (Silver et al. 2018).

Method. One network moves both sides. At every move a search with the true rules improves on its
policy; the network learns what search chose and who won. The search is Gumbel's (Danihelka et al.
2022) or PUCT. Opponents: random play, alpha-beta of a fixed depth, a perfect tic-tac-toe player.
A score of 0 is what random play gets against the reference opponent, 1 what that gets against
itself.

Claims. Z1: the trained network plays better with search than without. Z2: with search it never
loses at tic-tac-toe to a perfect player. Z3: it beats the saboteur, whose search in training took
the opponent's losses for its own. Aside: learning adds to search (Z4), connect four is won against
alpha-beta (Z5), Gumbel's search teaches at least as well as PUCT from few simulations (Z6).

    python -m experiments.alphazero --preset cpu        # under 10 minutes on 2 cores
"""

if __name__ == "__main__":  # the command line is parsed before JAX is imported
    from experiments.cli import run_module

    run_module("alphazero")

from functools import partial
from pathlib import Path
from typing import Any

import jax

from experiments.configs.alphazero import Config, GameConfig
from experiments.parts import game_ratings
from experiments.parts import game_report as report
from experiments.parts import game_study as study
from experiments.parts.comparison import judged
from experiments.parts.cost import Cost
from experiments.parts.experts import seeds_of
from jaxagent import keys
from jaxagent.evaluate.claims import Claim
from jaxagent.train.run import Stage, Work, read_done

PLAYERS = {  # arm -> the network it plays, and how
    "search": ("gumbel", "search"),
    "raw": ("gumbel", "raw"),
    "puct": ("puct", "search"),
    "saboteur": ("saboteur", "search"),
    "untrained": ("", "search"),
}


def claims(config: Config) -> list[Claim]:
    """What is claimed; margins were fixed before the claim seeds ran."""
    better, aside = partial(Claim, kind="superiority", arm_a="search"), {"gated": False}
    above = partial(Claim, kind="threshold", arm_a="search")
    result = [
        better("Z1", "search helps the trained network", arm_b="raw", margin=0.05),
        better("Z3", "it beats the saboteur's network", arm_b="saboteur", margin=0.2),
        better("Z4", "learning adds to search", arm_b="untrained", margin=0.2, **aside),
        Claim(
            "Z6",
            "Gumbel teaches at least as well as PUCT",
            "non_inferiority",
            "search",
            "puct",
            margin=0.1,
            **aside,
        ),
    ]
    games = [game.name for game in config.games]
    if "tic_tac_toe" in games:
        result.append(above("Z2", "it never loses at tic-tac-toe", metric="unbeaten", margin=0.98))
    if "connect_four" in games:
        result.append(
            above("Z5", "it beats alpha-beta at connect four", metric="points", margin=0.5, **aside)
        )
    return result


def stages(config: Config) -> list[Stage]:
    """The run, in order."""
    result = []
    for game in config.games:
        result += [
            Stage(f"train/{game.name}/{name}", partial(train, config, game, name)) for name in study.TRAINED
        ]
        result.append(Stage(f"evaluate/{game.name}", partial(evaluate, config, game)))
    return result


def train(config: Config, game: GameConfig, name: str, folder: Path) -> Work:
    """Self-play; a lane a seed."""
    del folder
    return study.train(config, game, name)


def evaluate(config: Config, game: GameConfig, folder: Path) -> Work:
    """Every arm and seed against every opponent; snapshots are rated; one game is painted."""

    def finish(state: Any, place: Path) -> dict[str, Any]:
        del state, place
        setting = study.setting_of(game)
        kept = {n: study.snapshots(config, setting, n, folder) for n in study.TRAINED}
        key = keys.derive(0, f"games/{game.name}/match")
        of_seeds = keys.per_index(key, jax.numpy.array(seeds_of(config)))
        final = {n: jax.tree.map(lambda x: x[-1], nets) for n, nets in kept.items()}
        final[""] = jax.tree.map(lambda x: x[0], kept["gumbel"])
        points = {
            arm: study.results(
                setting, study.player(config, setting, how), final[network], config.evaluation.games, of_seeds
            )
            for arm, (network, how) in PLAYERS.items()
        }
        between = study.references(config, setting, keys.derive(0, f"games/{game.name}/between"))
        study.paint(config, setting, final["gumbel"], folder)
        return {
            "points": {arm: x.mean(-1).tolist() for arm, x in points.items()},
            "unbeaten": {arm: (x > 0).mean(-1).tolist() for arm, x in points.items()},
            "between": between.tolist(),
            "ratings": game_ratings.rate_snapshots(config, setting, kept["gumbel"], between),
        }

    return Work(finish)


def costs(config: Config) -> list[Cost]:
    """Of every stage, for --dry-run."""
    rows = []
    for game in config.games:
        rows += [study.cost(config, game, name) for name in study.TRAINED]
        rows.append(Cost(f"evaluate/{game.name}", 0, 0.0, 0.0, 0.1, 60.0))
    return rows


def summary(config: Config, folder: Path, preset: str) -> dict[str, Any]:
    """Judge the claims; a failed precondition makes them VOID."""
    done = {g.name: read_done(folder, f"evaluate/{g.name}")["summary"] for g in config.games}
    scores = report.scores(config, done)
    return judged(
        claims=claims(config),
        scores=scores,
        preset=preset,
        preconditions=report.preconditions(config, done),
        shown={arm: scores[arm] for arm in PLAYERS},
        about=report.ABOUT,
        tasks=list(done),
    ) | report.extras(config, folder, done)
