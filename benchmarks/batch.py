"""Steps in processes of their own under one clock: rows are kept the moment they exist, and it resumes.

A step is a command of this Python that prints its rows, a JSON object a line. Whatever ends it, its rows
stand in FOLDER/rows.jsonl, and a last row says how it ended: "done", "failed", "cut" at its limit,
"interrupted", or "not run" where a module is missing. What is done is not done again; what failed or was
cut is tried once more when the batch is begun again.
"""

import contextlib
import datetime
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROWS = "rows.jsonl"
TICK = 0.1  # seconds between two looks at a process
RESERVE = 2.0  # seconds of a batch for what comes behind its last step
TRIES = 2
LAST_LINES = 8
FAILURES = ("failed", "cut")


def nothing(text: str) -> dict[str, Any]:
    """No more of a step's last row."""
    del text
    return {}


class Step(NamedTuple):
    """One process of a batch."""

    name: str
    command: tuple[str, ...]  # arguments of this Python; prints its rows
    rehearsal: tuple[str, ...]  # the same, tiny
    least: float  # seconds: it is not started with fewer left
    share: float  # of the time that is left, beside the shares of the steps behind it
    needs: tuple[str, ...] = ()  # modules without which it is not run
    grace: float = 2.0  # seconds from being asked to stop to its limit, at most a quarter of it
    resumes: bool = False  # goes on where it was cut, and so may be cut as often as it takes
    told: Callable[[str], dict[str, Any]] = nothing  # what its whole output says, for its last row


class Batch(NamedTuple):
    """What all steps of a batch share."""

    folder: Path
    root: Path  # where commands run
    about: Mapping[str, Any]  # of every row: rows that differ in it are another batch's
    noted: Mapping[str, Any]  # of every row, too
    environment: Mapping[str, str]
    deadline: float  # of `time.monotonic`

    @property
    def left(self) -> float:
        """Seconds for steps."""
        return self.deadline - RESERVE - time.monotonic()

    @property
    def marks(self) -> dict[str, Any]:
        """What is added to every row."""
        return {**self.noted, **self.about}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of this batch."""
        found = read(self.folder / ROWS)
        return [row for row in found if all(row.get(key) == value for key, value in self.about.items())]


# --- rows -----------------------------------------------------------------------------------------


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a file; a line that a kill tore is left out."""
    return rows_of(path.read_text(errors="replace")) if path.exists() else []


def rows_of(text: str) -> list[dict[str, Any]]:
    """JSON objects among the lines of a text."""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            found += [row] if isinstance(row, dict) else []
    return found


def append(path: Path, row: dict[str, Any]) -> None:
    """Write a row to disk, on a line of its own whatever stands before."""
    with open(path, "a+b") as file:
        is_torn = file.tell() > 0 and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
        file.write(b"\n" * is_torn + json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def endings(rows: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The last row of each time that a step was begun."""
    return [row for row in rows if row["step"] == name and "status" in row]


def is_open(rows: Sequence[dict[str, Any]], step: Step) -> bool:
    """Whether a step has to be done, or may be tried again."""
    statuses = [row["status"] for row in endings(rows, step.name)]
    # One that goes on where it was cut may be cut at any number of times.
    counted = [status for status in statuses if status in FAILURES and not (step.resumes and status == "cut")]
    return "done" not in statuses and len(counted) < TRIES


# --- time -----------------------------------------------------------------------------------------


def limit_of(step: Step, later: Iterable[Step], left: float) -> float:
    """Seconds that a step may take: its share of what is left, at least what it needs; 0: not to be begun."""
    if left < step.least:
        return 0.0
    shares = step.share + sum(other.share for other in later)
    return min(left, max(step.least, left * step.share / shares))


def carry_out(batch: Batch, steps: Sequence[Step], say: Callable[[str], None] = print) -> None:
    """Run what is open, in order, while there is time. Raises KeyboardInterrupt once its row stands."""
    waiting = [step for step in steps if is_open(batch.rows, step)]
    for place, step in enumerate(waiting):
        number = 1 + max((row["try"] for row in batch.rows if row["step"] == step.name), default=0)
        if missing := [name for name in step.needs if importlib.util.find_spec(name) is None]:
            why = f"needs {', '.join(missing)}, which is not installed"
            _end(batch, step, {"status": "not run", "why": why, "try": number}, say)
        elif limit := limit_of(step, waiting[place + 1 :], batch.left):
            say(f"{step.name}: at most {limit:.0f} s of {batch.left:.0f} s")
            ending = run(batch, step, limit, number, say)
            _end(batch, step, ending, say)
            if ending["status"] == "interrupted":
                raise KeyboardInterrupt
        else:
            say(f"{step.name}: not begun, needs {step.least:.0f} s of {max(batch.left, 0):.0f} s")


def _end(batch: Batch, step: Step, ending: dict[str, Any], say: Callable[[str], None]) -> None:
    today = datetime.date.today().isoformat()
    append(batch.folder / ROWS, {"step": step.name} | ending | {"date": today} | batch.marks)
    say(f"{step.name}: {', '.join(filter(None, (ending['status'], ending['why'])))}")


# --- processes ------------------------------------------------------------------------------------


def run(batch: Batch, step: Step, limit: float, number: int, say: Callable[[str], None]) -> dict[str, Any]:
    """One process with its children; keeps its rows as they come, and returns how it ended."""
    logs = batch.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    out, err = (logs / f"{step.name.replace('/', '-')}-{number}.{kind}" for kind in ("out", "err"))
    began, kept = time.monotonic(), 0

    def keep(row: dict[str, Any]) -> None:
        nonlocal kept
        kept += 1
        append(batch.folder / ROWS, row | {"step": step.name, "try": number} | batch.marks)
        say(f"  {brief(row)}")

    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, *step.command],
            cwd=batch.root,
            env=dict(batch.environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,  # a group of its own: its children end with it
        )
        status, why = follow(process, out, limit, min(step.grace, limit / 4), keep)
    texts = [path.read_text(errors="replace") for path in (err, out)]
    lines = [[line for line in text.splitlines() if not rows_of(line)] for text in texts]
    ending = {"status": status, "why": why, "try": number, "rows": kept}
    ending |= {"seconds": round(time.monotonic() - began, 1), "limit_s": round(limit, 1)}
    if status != "done":
        ending["last_lines"] = [line for of in lines for line in of[-LAST_LINES:]]
    return ending | step.told(texts[1])


def follow(
    process: subprocess.Popen, out: Path, limit: float, grace: float, keep: Callable[[dict[str, Any]], None]
) -> tuple[str, str]:
    """Hand on rows until a process ends or is ended, it and all of its group: a status and why."""
    began, place, is_asked = time.monotonic(), 0, False
    try:
        while process.poll() is None and (spent := time.monotonic() - began) < limit:
            place = _handed_on(out, place, keep)
            if spent >= limit - grace and not is_asked:
                is_asked = _signal(process, signal.SIGTERM)
            time.sleep(TICK)
    except KeyboardInterrupt:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(grace)
        return "interrupted", "stopped from outside"
    finally:
        code = process.poll()
        _signal(process, signal.SIGKILL)
        process.wait()
        _handed_on(out, place, keep, is_last=True)
    if code == 0:
        return "done", ""
    if code is None or is_asked:
        return "cut", f"at its limit of {limit:.0f} s"
    return "failed", f"exit code {code}" if code > 0 else signal.Signals(-code).name


def _handed_on(out: Path, place: int, keep: Callable[[dict[str, Any]], None], is_last: bool = False) -> int:
    """Keep the rows among the whole lines behind a place in a file; returns the place behind them."""
    with open(out, "rb") as file:
        file.seek(place)
        text = file.read()
    end = len(text) if is_last else text.rfind(b"\n") + 1
    for row in rows_of(text[:end].decode(errors="replace")):
        keep(row)
    return place + end


def _signal(process: subprocess.Popen, number: int) -> bool:
    """Signal a process and its children, those that outlived it too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    return True


# --- tables ---------------------------------------------------------------------------------------

KNOWN = ("step", "try", "date", "device", "versions", "source", "setting", "commit", "rehearsal")
ENDING = ("status", "why", "rows", "seconds", "limit_s", "last_lines")


def brief(row: Mapping[str, Any]) -> str:
    """A row's own fields in a line."""
    return ", ".join(f"{key} {_short(value)}" for key, value in row.items() if key not in KNOWN)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(f'{key} {_short(part)}' for key, part in value.items())})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def summary(batch: Batch, steps: Sequence[Step]) -> str:
    """How all steps stand, and the rows of each one's newest try, as Markdown."""
    rows = batch.rows
    lines = ["| step | status | seconds | limit | |", "| --- | --- | --- | --- | --- |"]
    behind = []
    for step in steps:
        ended = endings(rows, step.name)
        last = ended[-1] if ended else {"status": "not begun"}
        told = {key: value for key, value in last.items() if key not in (*ENDING, *KNOWN)}
        cells = [step.name, last["status"], last.get("seconds", "-"), last.get("limit_s", "-")]
        cells.append("; ".join(part for part in (last.get("why"), brief(told)) if part))
        lines.append(f"| {' | '.join(map(str, cells))} |")
        own = [row for row in rows if row["step"] == step.name and "status" not in row]
        newest = max((row["try"] for row in own), default=0)
        behind += [f"- {step.name}: {brief(row)}" for row in own if row["try"] == newest]
        behind += [f"    {line}" for line in last.get("last_lines", ())]
    return "\n".join([*lines, "", *behind, ""])
