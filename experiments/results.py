"""Result rows of finished runs, and what is made of them: `RESULTS.md` and a table of `README.md` here.

python -m experiments.results runs/icl_bma-cpu runs/icl_rational-cpu    # add rows, write both
python -m experiments.results                                           # write both anew
python -m experiments.results --smoke runs/memory-smoke                 # what the smoke preset computes

A fingerprint misses code that changed. So `experiments/smoke.json` has numbers of every smoke preset, which
the slow tests compare with a run of it; a row has those of its day, and is stale where they differ.

A room's `BELIEF` is what its authors make of the rows. It holds no number of its own: `{M5}` becomes what
was found of claim M5, `{=raw}` the IQM of an arm, `{seconds}` and `{seeds}` what they say, of preset `cpu`
or of another, `{cpu-full: M5}`.
"""

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

from experiments.cli import rooms
from jaxagent.config import fingerprint
from jaxagent.files import write_json
from jaxagent.report.fields import effects_by_task, standing_of
from jaxagent.study import registration
from jaxagent.train import manifest, metrics_log

RESULTS = Path(__file__).with_name("results")
PAGE = Path(__file__).with_name("RESULTS.md")
SMOKE = Path(__file__).with_name("smoke.json")
README = Path(__file__).with_name("README.md")
MARKS = "<!-- made of result rows by `python -m experiments.results` -->", "<!-- end of what is made -->"
COST = ("wall_seconds", "compile_seconds", "throughput")
SAID = (
    "claims",
    "preconditions",
    "scores",
    "arms",
    "spent",
    "budgets",
    "limits",
    "notes",
    "returns",
    "agent_scores",
)


def add(folder: Path) -> Path:
    """Write the row of a finished run; raises ValueError where there is no summary, or it is no preset's.

    An earlier row of the preset stays under the time at which its run began, marked as superseded. A
    confirmed one gives way to no exploratory run, and to no second run of the claims that it froze.
    """
    path = folder / "summary.json"
    if not path.is_file():
        raise ValueError(f"{folder}: got no summary.json, expected a finished run; resume it first.")
    summary = json.loads(path.read_text())
    if row_of_other_settings(summary):
        raise ValueError(
            f"{folder}: got settings that are not those of preset {summary['preset']!r} now, "
            "expected a run of the preset as it is; rows are of presets."
        )
    about = manifest.read(folder)
    row = {key: summary[key] for key in (*manifest.ASKED, *COST, *SAID) if key in summary}
    row |= {"started": about["started"], "xla_flags": about.get("xla_flags", "")}
    row["command"] = re.sub(r" --out \S+", "", row["command"])  # a path says nothing elsewhere
    row["smoke"] = smoke_numbers().get(row["experiment"]) if _is_of_this_code(row) else None
    is_development = row["preset"] != "smoke" and registration.is_development(row)
    target = RESULTS / f"{row['experiment']}-{row['preset']}{'-development' if is_development else ''}.json"
    target.parent.mkdir(exist_ok=True)
    old = json.loads(target.read_text()) if target.exists() else row
    if old["started"] != row["started"]:
        _refuse_instead_of(old, row)
        began = re.sub(r"\D", "", old["started"])[:12]
        write_json(target.with_stem(f"{target.stem}-{began}"), old | {"superseded": row["started"]})
    write_json(target, row)
    return target


def _is_of_this_code(row: dict[str, Any]) -> bool:
    """Whether no code has changed since the commit that a row was made at."""
    code = rooms.code_of(rooms.room(row["experiment"]))
    try:
        return not registration.has_changed(README.parents[1], row["git"]["commit"], code)
    except (OSError, KeyError):
        return False


def smoke_numbers() -> dict[str, dict[str, Any]]:
    """What smoke presets compute, by experiment, as `numbers_of`."""
    return json.loads(SMOKE.read_text()) if SMOKE.exists() else {}


def numbers_of(folder: Path) -> dict[str, dict[str, Any]]:
    """What a run computed: of every stage the training numbers of its last line, `[lanes]` each; scores."""
    last = {line["stage"]: line for line in metrics_log.read(folder / "metrics.jsonl")}
    trained = {
        stage: {name: value for name, value in line.items() if name.startswith("train/")}
        for stage, line in last.items()
    }
    return trained | {"scores": json.loads((folder / "summary.json").read_text()).get("scores", {})}


def are_alike(a: Any, b: Any) -> bool:
    """Whether two of `numbers_of` are of one program: equal but for what another machine rounds otherwise."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(are_alike(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(are_alike, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-2, abs_tol=1e-4)
    return a == b


def note_smoke(folder: Path) -> Path:
    """Write what the smoke preset computes, of a finished run of it; ValueError for another's."""
    about = manifest.read(folder)
    if (
        about.get("preset") != "smoke"
        or not (folder / "summary.json").is_file()
        or row_of_other_settings(about)
    ):
        raise ValueError(f"{folder}: got another run, expected a finished one of a smoke preset as it is.")
    write_json(SMOKE, dict(sorted({**smoke_numbers(), about["experiment"]: numbers_of(folder)}.items())))
    return SMOKE


def row_of_other_settings(row: dict[str, Any]) -> bool:
    """Whether a row, or summary, was made with other settings than its preset's now.

    Development seeds are no other settings: such a row says so, and stands beside that of claim seeds.
    """
    preset = rooms.room(row["experiment"]).config.PRESETS.get(row["preset"])
    if preset is None or fingerprint(preset) == row["fingerprint"]:
        return preset is None
    return not (registration.is_development(row) and registration.differs_in_seeds_alone(preset, row))


def _refuse_instead_of(old: dict[str, Any], row: dict[str, Any]) -> None:
    """Raise ValueError where a confirmed row must stay."""
    then, now = (one.get("frozen", {"is_confirmed": False}) for one in (old, row))
    if then["is_confirmed"] and (not now["is_confirmed"] or now["commit"] == then["commit"]):
        raise ValueError(
            f"{row['experiment']}, {row['preset']}: got another run of claims that have a confirmed row, "
            "expected none: claim seeds run once. Freeze claims with new seeds to run again."
        )


def read() -> list[dict[str, Any]]:
    """All rows, in the order of their files' names."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def page(rows: list[dict[str, Any]]) -> str:
    """The page: what each experiment asks, its presets, and every verdict of every row."""
    source = "Generated by `python -m experiments.results` from `experiments/results/`."
    lines = [
        "# Results",
        "",
        f"{source} A preset without a row was not run to the end on claim seeds, or not as it is now.",
    ]
    for name in rooms.names():
        module = rooms.room(name).config
        lines += ["", f"## {name}", "", module.DESCRIPTION, ""]
        lines += [f"`jaxagent run {name} --preset cpu`; presets {', '.join(module.PRESETS)}."]
        own = [row for row in rows if row["experiment"] == name]
        if told := belief(name, own):
            lines += ["", f"**What we believe now.** {told}"]
        for row in own:
            lines += [
                "",
                _about(row),
                "",
                "| claim | verdict | value | by task | margin | seeds show | seeds |",
            ]
            lines += ["| --- | --- | --- | --- | --- | --- | --- |", *map(_verdict, row["claims"])]
    return "\n".join(lines) + "\n"


def belief(name: str, rows: list[dict[str, Any]]) -> str:
    """What the authors of a room make of its rows; nothing where there are none.

    Raises KeyError for a preset or an arm without a row, ValueError for a claim that its row has not.
    """
    text = " ".join(getattr(rooms.room(name).config, "BELIEF", "").split())
    if not rows:
        return ""
    newest = {row["preset"]: row for row in rows if "superseded" not in row}
    newest |= {r["preset"]: r for r in rows if "superseded" not in r and not registration.is_development(r)}

    def number(found: re.Match) -> str:
        preset, _, what = found[1].rpartition(": ")
        return _number(newest[preset or "cpu"], what)

    return re.sub(r"\{([^{}]+)\}", number, text)


def _number(row: dict[str, Any], what: str) -> str:
    if what.startswith("="):
        return f"{row['arms'][what[1:]]['iqm']:.2f}"
    if what == "seconds":
        return f"{row['wall_seconds']:.0f} s"
    if what == "seeds":
        return str(max(claim["seeds"] or 0 for claim in row["claims"]))
    claims = {claim["id"]: claim for claim in row["claims"]}
    if what not in claims:
        raise ValueError(
            f"BELIEF of {row['experiment']}: got claim {what!r}, expected one of the newest row of "
            f"{row['preset']}, {sorted(claims)}; add the row that has it, or mend the text."
        )
    return f"{claims[what]['verdict']}: {_value(claims[what], 2)}"


def _value(claim: dict[str, Any], digits: int) -> str:
    """The difference of a judged claim with its interval."""
    low, high = claim["interval"]
    value = "-" if claim["difference"] is None else f"{claim['difference']:.{digits}g}"
    return value if low is None else f"{value} [{low:.{digits}g}, {high:.{digits}g}]"


def overview(rows: list[dict[str, Any]]) -> str:
    """README's table: what each experiment asks, and how the verdicts of its presets stand."""
    lines = ["| experiment | asks | rows |", "| --- | --- | --- |"]
    for name in rooms.names():
        own = [row for row in rows if row["experiment"] == name and "superseded" not in row]
        told = "<br>".join(map(_counted, own)) or "no row"
        lines.append(f"| `{name}` | {rooms.room(name).config.DESCRIPTION} | {told} |")
    return "\n".join(lines)


def _counted(row: dict[str, Any]) -> str:
    verdicts = [claim["verdict"] for claim in row["claims"]]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    standing = "confirmed" if row.get("frozen", {}).get("is_confirmed") else "exploratory"
    standing = "development seeds" if registration.is_development(row) else standing
    flags = [flag.partition(":")[0].strip(" .").lower() for flag in (_stale(row), _rules(row)) if flag]
    stale = "".join(f"; {flag}" for flag in flags)
    return f"`{row['preset']}` {row['wall_seconds']:.0f} s, {standing}{stale}: {counts}"


def in_readme(text: str, table: str) -> str:
    """README's text with the table between its marks. Raises ValueError where there are none."""
    before, found, rest = text.partition(MARKS[0])
    _, ends, after = rest.partition(MARKS[1])
    if not (found and ends):
        raise ValueError(f"README.md: got no {MARKS}, expected both, around the table; put them back.")
    return f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{after}"


def _about(row: dict[str, Any]) -> str:
    flags = f" with `{row['xla_flags']}`" if row.get("xla_flags") else ""
    state = ", uncommitted changes" if row["git"].get("dirty") else ""
    versions = ", ".join(f"{k} {v}" for k, v in row["versions"].items() if k in ("jax", "python"))
    old = f"Superseded by the run of {row['superseded'][:16]}. " if "superseded" in row else ""
    old += "Of development seeds, by which settings were chosen. " if registration.is_development(row) else ""
    device, standing = row["device"].get("kind", "cpu"), standing_of(row)
    return (
        f"{old}{_stale(row)}{_again(row)}{standing[:1].upper()}{standing[1:]}.{_rules(row)} Preset "
        f"`{row['preset']}`, {row['started'][:10]}, {device}{flags}, config {row['fingerprint']}{state}, "
        f"{versions}, {row['wall_seconds']:.0f} s wall "
        f"({row['compile_seconds']:.0f} s compiling):"
    )


def _stale(row: dict[str, Any]) -> str:
    """Whether the preset is no longer what the row was made with; an old row is superseded anyway."""
    if "superseded" in row:
        return ""
    if row_of_other_settings(row):
        return "Stale: its preset is another now. "
    then, now = row.get("smoke"), smoke_numbers().get(row["experiment"])
    is_known = then is not None and now is not None
    return "Stale: the code computes other numbers now. " if is_known and not are_alike(then, now) else ""


def _again(row: dict[str, Any]) -> str:
    """Why the numbers that tell whether its code still stands were noted anew, of a row that says so."""
    return f"{row['smoke_noted_again']} " if "smoke_noted_again" in row and "superseded" not in row else ""


def _rules(row: dict[str, Any]) -> str:
    """What the judge did not know yet when the row was made."""
    knew = all("by_task" in claim for claim in row["claims"])
    return "" if knew else " Judged by older rules: IQMs pooled over tasks, ends of the scale not looked at."


def _verdict(claim: dict[str, Any]) -> str:
    what = f"{claim['id']} {claim['statement']} ({claim['kind']}{', gated' if claim['gated'] else ''})"
    what += f"; {claim['budget']}" if claim.get("budget") else ""
    smallest = claim.get("smallest_effect")
    cells = [what, f"**{claim['verdict']}**", _value(claim, 3), effects_by_task(claim) or "-"]
    cells += [f"{claim['margin']:g}", "-" if smallest is None else f"{smallest:.3g}", str(claim["seeds"])]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Add the rows of the runs named, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of finished runs")
    parser.add_argument("--smoke", action="store_true", help="note what these smoke runs computed")
    asked = parser.parse_args()
    for folder in asked.runs:
        print(note_smoke(folder) if asked.smoke else add(folder))
    rows = read()
    PAGE.write_text(page(rows))
    README.write_text(in_readme(README.read_text(), overview(rows)))
    print(PAGE, README)


if __name__ == "__main__":
    main()
