"""Whether two run folders hold the same results: scores, metrics, and the state after every stage.

    python -m benchmarks.same_results BEFORE AFTER [BEFORE AFTER ...]

For a change that must not change a number: run the same presets on the commit before and after it.
Exit code 1 where any differs. Clocks, texts and the configuration's fingerprint are not compared.
"""

import argparse
import json
import sys
from pathlib import Path

from jaxagent.train import metrics_log

MISSING = "missing"


def results(run: Path) -> dict[str, str]:
    """What is compared of a run, by name."""
    summary = json.loads((run / "summary.json").read_text())
    found = {"metrics": metrics_log.digest(run / "metrics.jsonl")}
    for arm, scores in summary["scores"].items():
        found[f"scores of {arm}"] = json.dumps(scores, sort_keys=True)
    for claim in summary["claims"]:
        found[f"claim {claim['id']}"] = json.dumps([claim["verdict"], claim["difference"]])
    for done in sorted(run.glob("stages/**/done.json")):
        name = done.parent.relative_to(run / "stages")
        found[f"state after {name}"] = json.loads(done.read_text())["state_sha256"]
    return found


def differences(before: Path, after: Path) -> list[str]:
    """Names of results that differ or are on one side only."""
    old, new = results(before), results(after)
    return [name for name in sorted(old | new) if old.get(name, MISSING) != new.get(name, MISSING)]


def main() -> int:
    """Compare pairs of runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="BEFORE AFTER")
    runs = parser.parse_args().runs
    if len(runs) % 2:
        parser.error(f"got {len(runs)} folders, expected pairs")
    code = 0
    for before, after in zip(runs[::2], runs[1::2], strict=True):
        differing = differences(before, after)
        count = len(results(before))
        print(f"{after}: {'same' if not differing else 'DIFFERENT'}, {count - len(differing)} of {count}")
        print("".join(f"    {name}\n" for name in differing), end="")
        code |= bool(differing)
    return code


if __name__ == "__main__":
    sys.exit(main())
