"""A preset of an experiment by the command line, begun or gone on with where it stopped; a JSON line.

    python -m benchmarks.presets spr gpu-short --runs FOLDER    # the run is FOLDER/spr-gpu-short
    python -m benchmarks.presets spr gpu-short --out FILE       # also append the line to FILE
    python -m benchmarks.presets spr gpu-short --episodes 16    # fields, as `jaxagent run` takes them

The row has seconds, verdicts and the rates of training stages, as the run's `summary.json` has them. SIGTERM
stops the run at its next chunk border, from where another call goes on.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from experiments import cli
from jaxagent import folders


def row_of(run: Path) -> dict[str, Any]:
    """What is told of a finished run."""
    summary = json.loads((run / "summary.json").read_text())
    return {
        "row": "preset",
        "experiment": summary["experiment"],
        "preset": summary["preset"],
        "command": summary["command"],
        "fingerprint": summary["fingerprint"],
        "precision": summary["precision"],
        "wall_seconds": summary["wall_seconds"],
        "compile_seconds": summary["compile_seconds"],
        "claims": {claim["id"]: claim["verdict"] for claim in summary["claims"]},
        "throughput": summary["throughput"],
    }


def main() -> int:
    """Run and print; returns the exit code of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment")
    parser.add_argument("preset")
    parser.add_argument("--runs", type=Path, default=cli.RUNS, help="the folder of the run's folder")
    parser.add_argument("--out", type=Path, help="also append the row to this file")
    given, fields = parser.parse_known_args()
    run = given.runs / f"{given.experiment}-{given.preset}"
    command = ["run", given.experiment, "--preset", given.preset, "--out", str(run), *fields]
    if folders.kind_of(run) == "run":
        command = ["resume", str(run)]
    if code := cli.main(command):
        return code
    from benchmarks.rows import emit  # imports JAX, which reads what the command line has set by now

    emit(row_of(run), given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
