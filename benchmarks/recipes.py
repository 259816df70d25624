"""What the settings that are taken unasked reach, and how long they take; JSON lines.

    python -m benchmarks.recipes                            # every pair below, each in a process of its own
    python -m benchmarks.recipes ppo:minatar/Breakout ...   # some of them
    python -m benchmarks.recipes --out FILE --seeds 8       # also append the lines to FILE
    python -m benchmarks.recipes --table                    # rows as the table of jaxagent/docs/train.md

A row is one `jaxagent.learn(agent, env, seeds=N)`: mean return of the last snapshots, with its interval over
seeds, the same on a scale from 0 (random play) to 1 (an expert; none of games, whose return is points
against random play), and wall and compile seconds of the run.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

PAIRS = (
    "ppo:classic/CartPole-v1",
    "ppo:classic/Acrobot-v1",
    "ppo:classic/Pendulum-v1",
    "ppo:minatar/Breakout",
    "ppo:memory/TMaze",
    "ppo:brax/inverted_pendulum",
    "pqn:classic/CartPole-v1",
    "pqn:classic/Acrobot-v1",
    "sac:classic/Pendulum-v1",
    "rainbow:minatar/Breakout",
    "muzero:classic/CartPole-v1",
    "muzero:minatar/Breakout",
    "alphazero:pgx/tic_tac_toe",
    "alphazero:pgx/connect_four",
)
ROWS = Path(__file__).with_name("results") / "recipes.jsonl"


def measure(pair: str, seeds: int, out: Path | None) -> None:
    """Train one pair and print its row."""
    import jaxagent
    from benchmarks.rows import emit
    from envs.returns import reference
    from jaxagent.evaluate.statistics import interval_of_mean

    agent, _, env = pair.partition(":")
    result = jaxagent.learn(agent, env, seeds=seeds, quiet=True)
    low, high = interval_of_mean(result.returns)
    score = None
    if result.env.num_players == 1:  # of a game, returns are points against random play
        with contextlib.suppress(KeyError, ValueError):  # an environment that nobody measured
            scale = reference(env)
            score = float((result.returns.mean() - scale.random) / (scale.expert - scale.random))
    row = {
        "agent": agent,
        "env": env,
        "seeds": seeds,
        "env_steps": int(result.curve["steps"][-1]),
        "return": float(result.returns.mean()),
        "interval": [float(low), float(high)],
        "score": score,
        "wall_seconds": result.summary["wall_seconds"],
        "compile_seconds": result.summary["compile_seconds"],
        "load": os.getloadavg()[0],
    }
    emit(row, out)


def table(path: Path) -> str:
    """Markdown of the newest row of each pair."""
    rows = {(row["agent"], row["env"]): row for row in map(json.loads, path.read_text().splitlines())}
    lines = [
        "| agent | environment | env steps | return | 0 random, 1 expert | s | of which compiling | load |"
    ]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows.values():
        low, high = row["interval"]
        score = "-" if row["score"] is None else f"{row['score']:.2f}"
        cells = [
            row["agent"],
            row["env"],
            f"{row['env_steps']:,}",
            f"{row['return']:.4g} [{low:.4g}, {high:.4g}]",
        ]
        cells += [score, f"{row['wall_seconds']:.0f}", f"{row['compile_seconds']:.0f}", f"{row['load']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure pairs one after another, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="*", default=PAIRS, help="AGENT:ENV")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--here", action="store_true", help="in this process, as a pair is measured")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if asked.table:
        print(table(asked.out or ROWS))
    elif asked.here:
        for pair in asked.pairs:
            measure(pair, asked.seeds, asked.out)
    else:
        options = ["--here", "--seeds", str(asked.seeds), *(["--out", str(asked.out)] if asked.out else [])]
        for pair in asked.pairs:
            subprocess.run([sys.executable, "-m", "benchmarks.recipes", pair, *options], check=True)


if __name__ == "__main__":
    main()
