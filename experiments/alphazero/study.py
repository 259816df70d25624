"""AlphaZero: a network learns two solved games from its own search (Silver et al. 2018).

Method. One network moves both sides. At every move a search with the true rules improves on its
policy; positions go to a replay, and the network learns, under the board's symmetries, what search
chose and who won. The search is Gumbel's (Danihelka et al. 2022) or PUCT. Opponents: random play,
alpha-beta of two depths at connect four, a perfect player at tic-tac-toe. A score is points a game:
1 for a win, 0.5 for a draw.

Claims. Z1: the trained network plays better with search than without. Z2: with search it never
loses at tic-tac-toe to a perfect player. Z3: it beats the saboteur, whose search in training took
the opponent's losses for its own. Aside: learning adds to search (Z4), it is at least even with
alpha-beta (Z5), Gumbel's search teaches at least as well as PUCT from few simulations (Z6).

    jaxagent run alphazero --preset cpu        # about 20 minutes on 2 cores shared with another run
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.alphazero.config import Config, GameConfig
from jaxagent import keys
from jaxagent.agents import planning
from jaxagent.evaluate.claims import Claim, Precondition
from jaxagent.evaluate.matches import opposed
from jaxagent.report.figure import Curve, curves, level, line, maps
from jaxagent.study import agents, films, games
from jaxagent.study.agents import Fits
from jaxagent.study.budget import Spent
from jaxagent.study.study import Found, Player, Study
from jaxagent.study.verdicts import Scores, all_between, iqm_by_task
from jaxagent.types import View

ARMS = {
    "search": "trained with Gumbel's search, plays with it",
    "raw": "the same network without search",
    "puct": "trained with PUCT from noisy priors, plays with Gumbel's search",
    "saboteur": "its search took losses for wins in training; plays with the right search",
    "untrained": "search over a random network",
}
TRIALS = {"gumbel": 4, "puct": 3}  # settings of search and learning, on seeds 1000 to 1002
# Arm -> the fit whose network plays, which of its snapshots (0: before any update), and how.
PLAYERS = {
    "search": ("gumbel", -1, "search"),
    "raw": ("gumbel", -1, "raw"),
    "puct": ("puct", -1, "search"),
    "saboteur": ("saboteur", -1, "search"),
    "untrained": ("gumbel", 0, "search"),
}
LIMITS = (
    "A network learns one game for minutes; it is no strong engine. Matches begin after drawn moves.",
    "All arms search equally long when they play; the raw network is cheaper by as much.",
    "Updates, learning rate and depths were chosen on development seeds (1000 and up).",
)
aside = partial(Claim, gated=False)
CLAIMS = (
    Claim("Z1", "search helps the trained network", "superiority", "search", "raw", margin=0.08),
    Claim("Z3", "it beats the saboteur's network", "superiority", "search", "saboteur", margin=0.08),
    aside("Z4", "learning adds to search", "superiority", "search", "untrained", margin=0.08),
    aside("Z6", "Gumbel teaches at least as well as PUCT", "non_inferiority", "search", "puct", margin=0.1),
    Claim("Z2", "it never loses at tic-tac-toe", "threshold", "search", metric="unbeaten", margin=0.98),
    aside("Z5", "it is at least even with alpha-beta", "threshold", "search", margin=0.5),
)
EVEN = 0.5  # points of a player against itself
FLOOR, ROOM = 0.25, (0.03, 0.9)  # of points: untrained search below, the raw network between
by_moves = partial(Curve, stages=("train/*",), x="env_steps", x_label="moves (all seeds)")
CURVES = (
    by_moves("train/loss/policy", title="How far the policy is from search", y_label="cross-entropy, nats"),
    by_moves("train/loss/value", title="How far the value is from outcomes", y_label="squared error"),
)


def study(config: Config) -> Study:
    """Networks of a game by three kinds of search, then all of them against all opponents."""
    names = [game.name for game in config.games]
    return Study(
        ARMS,
        config.tasks,
        agents.task_steps(config, config.games, fits_of, evaluate),
        partial(scores, config),
        CLAIMS,
        partial(checks, config),
        partial(figures, config),
        CURVES,
        LIMITS,
        label="points a game (0.5: even)",
        shared_seeds=True,
        is_partial=True,
        spent=spent(config),
        player=partial(player, config),
        extras=lambda found, table: {"points": {name: found[f"evaluate/{name}"]["points"] for name in names}},
    )


def spent(config: Config) -> dict[str, Spent]:
    """Training at the compared games, and networks that are asked before a move."""
    searched = 1 + config.evaluation.search.num_simulations
    return {
        arm: Spent(
            tuple(f"train/{game.name}/{kind}" for game in config.compared) if row else (),
            searched if how == "search" else 1,
            TRIALS.get(kind),
        )
        for arm, (kind, row, how) in PLAYERS.items()
    }


def fits_of(config: Config, game: GameConfig) -> Fits:
    """A lane a seed; networks of a seed begin alike and draw alike."""
    made = games.game_of(game)
    gumbel = planning.gumbel_search(game.fit.search)
    puct = planning.puct_search(game.fit.search, exploration=2.5, qtransform=planning.values_of_games)
    plans = {"gumbel": gumbel, "puct": puct, "saboteur": planning.taking_losses_for_wins(gumbel)}
    fits = {}
    for name in game.kinds:
        loop, task = games.self_play_loop(made.env, made.task, made.network, plans[name], game.fit)
        # A search copies its trees under vmap: lanes in turn, too.
        stage, purpose = f"train/{game.name}/{name}", f"games/{game.name}"
        fits[name] = agents.seeded(stage, loop, task, game.fit, config.seeds, purpose, in_turn=True)
    return fits


def evaluate(config: Config, game: GameConfig, fits: Fits, folder: Path, place: Path) -> dict[str, Any]:
    """Every arm and seed against every opponent; snapshots are rated; one game is painted."""
    del place
    made, kept = games.game_of(game), {name: fit.load(folder) for name, fit in fits.items()}
    of_seeds = keys.per_index(made.key("match"), jnp.array(tuple(config.seeds)))
    points = {}
    for arm, (name, row, how) in PLAYERS.items():
        if name not in kept:
            continue
        player, networks = games.player(config.evaluation, made, how), agents.take(kept[name], row)
        points[arm] = games.results(made, player, networks, config.evaluation.games, of_seeds)
    opponents = games.between_opponents(config.evaluation, made)
    film(config, made, agents.take(kept["gumbel"], -1, 0), folder)
    return {
        "points": {arm: x.mean(-1).tolist() for arm, x in points.items()},
        "unbeaten": {arm: (x > 0).mean(-1).tolist() for arm, x in points.items()},
        "between": opponents.tolist(),
        "ratings": games.rate_snapshots(config.evaluation, made, kept["gumbel"], opponents, config.seeds),
    }


def player(config: Config, folder: Path, arm: str, task: str) -> Player:
    """An arm as it ended at a game, with the opponent of a task."""
    name, opponent = task.split(", ")
    game, (kind, row, how) = agents.task_of(config.games, name), PLAYERS[arm]
    made, networks = games.game_of(game), agents.take(fits_of(config, game)[kind].load(folder), row)
    policy, arena = games.player(config.evaluation, made, how), partial(games.matches, made, opponent)
    return Player(made.env, made.task, policy, networks, config.seeds, reads="view", arena=arena)


def film(config: Config, game: games.Game, network: Any, folder: Path) -> None:
    """A game of a network, with search, against the reference."""
    players = games.player(config.evaluation, game, "search"), games.opponent(game)
    both = opposed(game.env, *players, jnp.zeros((1,), jnp.int32))
    name, label = f"search--{game.config.name}", f"0: search, 1: {game.config.opponents[-1]} "
    params, key = (network, game.levels[-1]), game.key("picture")
    films.write(folder, name, game.env, both, params, game.task, key, label=label, see=View, fps=1)


def scores(config: Config, found: Found) -> Scores:
    """Points a game `[tasks, seeds]` by arm; `[1, seeds]` by (metric, arm) of one game."""
    done = {game.name: found[f"evaluate/{game.name}"] for game in config.games}
    table: dict[Any, np.ndarray] = {
        arm: np.concatenate([np.array(done[g.name]["points"][arm]).T[1:] for g in config.compared])
        for arm in ARMS
    }
    if "tic_tac_toe" in done:
        table["unbeaten", "search"] = np.array(done["tic_tac_toe"]["unbeaten"]["search"])[None, :, -1]
    return table


def checks(config: Config, found: Found, table: Scores) -> list[Precondition]:
    """Every opponent is far above random play and even with itself; arms leave room."""
    untrained, raw = (iqm_by_task(config.tasks, table[arm]) for arm in ("untrained", "raw"))
    result = [
        all_between("search over a random network is weak", untrained, high=FLOOR),
        all_between("the raw network leaves room", raw, *ROOM),
    ]
    for game in config.games:
        between = np.array(found[f"evaluate/{game.name}"]["between"])
        random, itself = (
            dict(zip(game.opponents[1:], of.tolist(), strict=True))
            for of in (between[1:, 0], between.diagonal()[1:])
        )
        result += [
            all_between(f"{game.name}: opponents beat random play", random, low=0.8),
            all_between(f"{game.name}: they are even with themselves", itself, EVEN - 0.1, EVEN + 0.1),
        ]
    return result


def figures(config: Config, found: Found) -> list[dict[str, Any]]:
    """Elo against moves, and who got how many points from whom."""
    result = []
    draw = partial(maps, x_label="opponent", y_label="", low=0.0, high=1.0, color_label="points a game")
    for game in config.games:
        done = found[f"evaluate/{game.name}"]
        elo, moves, points = done["ratings"]["elo"], done["ratings"]["moves"], done["points"]
        lines = [line(f"network, {how}", moves, elo[how]) for how in ("search", "raw")]
        opponents = zip(game.opponents, elo["opponents"], strict=True)
        lines += [level(name, moves, rating) for name, rating in opponents]
        caption = "Random play is 0; fixed opponents dashed; a line a seed."
        result.append(curves(f"Elo while learning {game.name}", caption, "moves of a seed", "Elo", lines))
        arms = list(points)[::-1]
        caption = "Mean over seeds and games: 1 for a win, 0.5 for a draw."
        panel = {game.name: [np.mean(points[arm], axis=0) for arm in arms]}
        result.append(draw(f"Points at {game.name}", caption, panel, x_ticks=game.opponents, y_ticks=arms))
    return result
