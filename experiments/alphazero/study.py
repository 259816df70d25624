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

    jaxagent run alphazero --preset cpu        # under 10 minutes on 2 cores
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from envs.vector import VectorEnv
from envs.wrappers import self_play
from experiments.alphazero import matches
from experiments.alphazero.config import Config, GameConfig
from experiments.alphazero.matches import Game
from jaxagent import keys
from jaxagent.agents import planning
from jaxagent.agents.alphazero import alphazero
from jaxagent.evaluate.claims import Claim, Precondition
from jaxagent.evaluate.matches import opposed
from jaxagent.evaluate.statistics import normalise
from jaxagent.report.figure import Curve, curves, level, line, maps
from jaxagent.study import agents, films
from jaxagent.study.study import Fit, Found, Measure, Study
from jaxagent.study.verdicts import Scores, between
from jaxagent.train import loops, optimizer
from jaxagent.types import View

ARMS = {
    "search": "trained with Gumbel's search, plays with it",
    "raw": "the same network without search",
    "puct": "trained with PUCT from noisy priors, plays with Gumbel's search",
    "saboteur": "its search took losses for wins in training; plays with the right search",
    "untrained": "search over a random network",
}
# Arm -> the fit whose network it plays, whether as it ends ("" as it began), and how.
PLAYERS = {
    "search": ("gumbel", -1, "search"),
    "raw": ("gumbel", -1, "raw"),
    "puct": ("puct", -1, "search"),
    "saboteur": ("saboteur", -1, "search"),
    "untrained": ("gumbel", 0, "search"),
}
LIMITS = (
    "A network plays one game, from its usual beginning, for minutes; it is no strong engine.",
    "All arms search equally long when they play; the raw network is cheaper by as much.",
    "Updates, learning rate and depths were chosen on development seeds (1000 and up).",
)
DRAW = 0.5  # points of a player against itself
FLOOR, CEILING = 0.4, 0.95  # of mean scores: untrained search below, the raw network below
POOL = 8  # fresh games that a lane keeps ready
CURVES = tuple(
    Curve(f"train/loss/{loss}", ("train/*",), title, "env_steps", label, "moves (all seeds)")
    for loss, title, label in (
        ("policy", "How far the policy is from search", "cross-entropy, nats"),
        ("value", "How far the value is from outcomes", "squared error"),
    )
)


def study(config: Config) -> Study:
    """Networks of a game by three kinds of search, then all of them against all opponents."""
    steps: list[Fit | Measure] = []
    for game in config.games:
        fits = fits_of(config, game)
        steps += [*fits.values(), Measure(f"evaluate/{game.name}", partial(evaluate, config, game, fits))]
    return Study(
        ARMS,
        [game.name for game in config.games],
        steps,
        partial(scores, config),
        claims(config),
        partial(checks, config),
        partial(figures, config),
        CURVES,
        LIMITS,
        label="points against the reference (0: as random play, 1: as the reference)",
        extras=lambda found, table: {
            "points": {game.name: found[f"evaluate/{game.name}"]["points"] for game in config.games}
        },
    )


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


def fits_of(config: Config, game: GameConfig) -> dict[str, Fit]:
    """A lane a seed; networks of a seed begin alike and draw alike."""
    made, fit = matches.game_of(game), game.fit
    env, task = self_play(made.env, made.task)
    gumbel = matches.gumbel_search(fit.search)
    plans = {
        "gumbel": gumbel,
        "puct": planning.puct_search(fit.search, qtransform=planning.values_of_games),
        "saboteur": planning.taking_losses_for_wins(gumbel),
    }

    def one(name: str, plan: planning.Plan) -> Fit:
        loop = loops.on_policy(
            alphazero(env, made.network, plan, fit),
            VectorEnv(env, pool_size=POOL),
            optimizer.adam(optimizer.linear_decay(fit), fit.max_gradient_norm),
            fit,
            see=View,
            is_normalized=False,
            in_turn=True,
        )
        # A search copies its trees under vmap: lanes in turn, too.
        return agents.seeded(
            f"train/{game.name}/{name}", loop, task, fit, config.seeds, f"games/{game.name}", in_turn=True
        )

    return {name: one(name, plan) for name, plan in plans.items()}


def evaluate(
    config: Config, game: GameConfig, fits: dict[str, Fit], folder: Path, place: Path
) -> dict[str, Any]:
    """Every arm and seed against every opponent; snapshots are rated; one game is painted."""
    del place
    made, purpose, seeds = matches.game_of(game), f"games/{game.name}", jnp.array(tuple(config.seeds))
    kept = {name: fit.load(folder) for name, fit in fits.items()}
    of_seeds = keys.per_index(keys.derive(0, f"{purpose}/match"), seeds)
    points = {
        arm: matches.results(
            made,
            matches.player(config, made, how),
            agents.take(kept[name], row),
            config.evaluation.games,
            of_seeds,
        )
        for arm, (name, row, how) in PLAYERS.items()
    }
    opponents = matches.between_opponents(config, made, keys.derive(0, f"{purpose}/between"))
    film(config, made, agents.take(kept["gumbel"], -1, 0), folder)
    return {
        "points": {arm: x.mean(-1).tolist() for arm, x in points.items()},
        "unbeaten": {arm: (x > 0).mean(-1).tolist() for arm, x in points.items()},
        "between": opponents.tolist(),
        "ratings": matches.rate_snapshots(config, made, kept["gumbel"], opponents),
    }


def film(config: Config, game: Game, network: Any, folder: Path) -> None:
    """A game of a network, with search, against the reference."""
    sides = matches.player(config, game, "search"), matches.opponent(game)
    table = opposed(game.env, *sides, jnp.zeros((1,), jnp.int32))
    both = network, jnp.int32(game.config.levels[-1])
    name = game.config.name
    films.write(
        folder,
        f"search--{name}",
        game.env,
        table,
        both,
        game.task,
        keys.derive(0, f"games/{name}/picture"),
        label=f"0: search, 1: {game.config.reference} ",
        see=View,
        fps=1,
    )


def scores(config: Config, found: Found) -> Scores:
    """Scores `[games, seeds]` by arm; `[1, seeds]` by (metric, arm) of one game."""
    done = {game.name: found[f"evaluate/{game.name}"] for game in config.games}

    def against_reference(one: dict[str, Any], arm: str) -> np.ndarray:
        return normalise(np.array(one["points"][arm])[:, -1], one["between"][0][-1], DRAW)

    table: dict[Any, np.ndarray] = {
        arm: np.stack([against_reference(one, arm) for one in done.values()]) for arm in ARMS
    }
    for name, metric in (("tic_tac_toe", "unbeaten"), ("connect_four", "points")):
        if name in done:
            table[metric, "search"] = np.array(done[name][metric]["search"])[None, :, -1]
    return table


def checks(config: Config, found: Found, table: Scores) -> list[Precondition]:
    """The reference is far above random play and even with itself; arms leave room."""
    result = [
        between("search over a random network is weak", float(table["untrained"].mean()), high=FLOOR),
        between("the raw network leaves room", float(table["raw"].mean()), high=CEILING),
    ]
    for game in config.games:
        opponents, what = np.array(found[f"evaluate/{game.name}"]["between"]), "points a game"
        beats, itself = (
            f"{game.name}: {game.reference} {does}" for does in ("beats random play", "is even with itself")
        )
        result.append(between(beats, opponents[0, -1], high=0.2, what=what))
        result.append(between(itself, opponents[-1, -1], DRAW - 0.1, DRAW + 0.1, what))
    return result


def figures(config: Config, found: Found) -> list[dict[str, Any]]:
    """Elo against moves, and who got how many points from whom."""
    result = []
    for game in config.games:
        done = found[f"evaluate/{game.name}"]
        elo, moves, points = done["ratings"]["elo"], done["ratings"]["moves"], done["points"]
        lines = [line(f"network, {how}", moves, elo[how]) for how in ("search", "raw")]
        lines += [
            level(name, moves, rated) for name, rated in zip(game.opponents, elo["opponents"], strict=True)
        ]
        caption = "Random play is 0; fixed opponents dashed; a line a seed."
        result.append(curves(f"Elo while learning {game.name}", caption, "moves of a seed", "Elo", lines))
        arms = list(points)[::-1]
        caption = "Mean over seeds and games: 1 for a win, 0.5 for a draw."
        panel = {game.name: [np.mean(points[arm], axis=0) for arm in arms]}
        result.append(
            maps(
                f"Points at {game.name}",
                caption,
                panel,
                x_label="opponent",
                y_label="",
                x_ticks=game.opponents,
                y_ticks=arms,
                low=0.0,
                high=1.0,
                color_label="points a game",
            )
        )
    return result
