"""One self-contained page for a run folder: `report.html`, readable offline, by itself, for ever.

Everything is inline: CSS, SVG figures, pictures as data URIs; there is no script. Every string of
the run is escaped. What a run does not have yet is said on the page, so that an interrupted run
has a report too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxagent.report import figures, gallery
from jaxagent.report.elements import (
    DASH,
    VERDICTS,
    absent,
    badge_of,
    card,
    escaped,
    folded,
    interval_of,
    noted,
    shown,
    table_of,
)
from jaxagent.report.fields import (
    count_of,
    dict_at,
    dicts_at,
    effects_by_task,
    items_of,
    number_of,
    numbers_of,
    pair_of,
    standing_of,
)
from jaxagent.report.page import CSS, PAGE
from jaxagent.report.render import write_atomically
from jaxagent.report.run_folder import PICTURE_TYPES, Run, read_run
from jaxagent.report.training_curves import draw_curves

HOW_TO_READ = (
    "Arms are the agents that are compared: trained alike, on the same seeds, but for what their line says. "
    "A score is a mean return, 0 of random play and 1 of an expert, unless the axis says otherwise. IQM is "
    "the mean of the middle half of the seeds, task by task, then averaged over tasks. P(improvement) is the "
    "chance that a seed of one arm scores more than one of the other. A claim passes where the interval "
    "of the difference lies above 0 and the difference is no less than its margin."
)
TRAININGS = {"train": "", "sweep": ": a sweep", "tune": ": a search of settings"}  # kind -> end of the title
MAX_PICTURES = 48
MAX_PICTURE_BYTES = 4_000_000


def write_report(folder: str | Path, page: Path | None = None) -> Path:
    """Writes the page of a run, finished or not, as `report.html` into its folder or as `page`."""
    run = read_run(Path(folder))
    content = render_page(run).encode("utf-8", errors="replace")
    return write_atomically(page or run.folder / "report.html", lambda file: file.write(content))


def render_page(run: Run) -> str:
    """Composes the page from its sections, in reading order; training alone claims nothing."""
    claims = _trained(run) is None
    sections = [
        ("Claims", _claims, claims),
        ("Ranking", _ranking, "ranking" in run.summary),
        ("Scores", _scores, True),
        ("Figures of the paper" if claims else "Snapshots", _paper_figures, bool(run.summary.get("figures"))),
        ("The agents at work", _pictures, claims or bool(run.pictures)),
        ("Learning curves", draw_curves, True),
        ("Preconditions", _preconditions, claims),
        ("Budgets", _budgets, True),
        ("Limits", _limits, claims or bool(run.summary.get("limits"))),
        ("How to redo this run", _redo, True),
    ]
    body = "".join(_section(title, draw, run) for title, draw, is_shown in sections if is_shown)
    name = run.summary.get("experiment") or run.manifest.get("experiment") or run.folder.name
    name = _trained(run) or name
    return PAGE.substitute(title=escaped(name), css=CSS, header=_header(run, name), body=body)


def _trained(run: Run) -> str | None:
    """What was trained, where a run does no more: its source is train/AGENT/ENV, or sweep/ or tune/ such."""
    kind, _, rest = str(run.manifest.get("source", "")).partition("/")
    if kind not in TRAININGS or "/" not in rest:
        return None
    return " on ".join(rest.split("/", 1)) + TRAININGS[kind]


# --- sections ------------------------------------------------------------------------------------


def _header(run: Run, name: Any) -> str:
    """Title, one sentence, one badge per verdict with its count, and the notes."""
    claims = dicts_at(run.summary, "claims")
    counts = {verdict: sum(_verdict(claim) == verdict for claim in claims) for verdict in VERDICTS}
    badges = " ".join(badge_of(verdict, f"{n} {verdict}") for verdict, n in counts.items() if n)
    facts = [
        ("preset", run.summary.get("preset") or run.manifest.get("preset")),
        ("started", run.manifest.get("started")),
        ("seconds", run.summary.get("wall_seconds")),
        ("fingerprint", _short_hash(run.manifest.get("fingerprint"))),
        ("verdicts", standing_of(run.manifest) if "frozen" in run.manifest else None),
    ]
    line = " · ".join(f"{key} {shown(value)}" for key, value in facts if value is not None)
    notes = "".join(map(noted, run.notes))
    return (
        f"<h1>{escaped(name)}</h1>"
        f"{_asked(run)}"
        f'<p class="headline">{_headline(run, claims)}</p>'
        f'<p class="badges">{badges}</p><p class="muted">{line}</p>{notes}'
    )


def _asked(run: Run) -> str:
    """What the experiment asks, and how its page is read; nothing of a training, which claims nothing."""
    asks = run.manifest.get("asks")
    if not asks or _trained(run) is not None:
        return ""
    asks = str(asks)
    return f'<p>{escaped(asks[:1].upper() + asks[1:])}</p><p class="muted">{escaped(HOW_TO_READ)}</p>'


def _headline(run: Run, claims: Sequence[Mapping]) -> str:
    """The result in one sentence."""
    if not run.summary:
        last = run.metrics[-1] if run.metrics else {}
        where = f"{shown(last.get('stage'))}, update {shown(last.get('step'))}"
        reached = f"it has reached {where}" if last else "nothing has been logged"
        return f"This run is unfinished: there is no summary yet; {reached}."
    failed = sum(not row.get("passed") for row in dicts_at(run.summary, "preconditions"))
    warning = f" {failed} precondition(s) failed." if failed else ""
    if not claims:
        return f"The run is finished{'' if _trained(run) else '; it states no claim'}.{warning}"
    passed = [claim for claim in claims if _verdict(claim) == "PASS"]
    gated = [claim for claim in claims if claim.get("gated")]
    gate = ""
    if gated:
        held = sum(_verdict(claim) == "PASS" for claim in gated)
        gate = f", {held} of {len(gated)} gated"
    return f"{len(passed)} of {len(claims)} claims pass{gate}.{warning}"


def _ranking(run: Run) -> str:
    """The combinations of a sweep, best first."""
    rows = []
    for place, row in enumerate(dicts_at(run.summary, "ranking"), start=1):
        told = "behind the best" if row.get("is_apart") else "not told apart from the best"
        settings = escaped(row.get("name", "")) + (f'<div class="muted">{told}</div>' if place > 1 else "")
        rows.append(
            [shown(place), settings, f"{shown(row.get('mean'))}<br>{interval_of(row.get('interval'))}"]
        )
    note = "Mean over seeds and its interval; behind the best: the paired interval of the lead excludes 0."
    return table_of(("", "settings", "mean"), rows) + f'<p class="muted">{note}</p>'


def _claims(run: Run) -> str:
    claims = dicts_at(run.summary, "claims")
    if not claims:
        return absent("No claims have been judged.")
    head = ("verdict", "claim", "difference", "margin", "P(improvement)", "p", "seeds", "seeds show")
    rows = [_claim_row(claim) for claim in claims]
    note = (
        "Difference: point estimate and interval of the IQM difference, averaged over tasks (or of the "
        "quantity that the claim names). Seeds show: the smallest effect that they would have shown with "
        "80 % power. INCONCLUSIVE is not a pass; fewer than 5 seeds are at most DIRECTIONAL."
    )
    return table_of(head, rows, numeric_from=2) + f'<p class="muted">{note}</p>'


def _claim_row(claim: Mapping[str, Any]) -> list[str]:
    kind = " · ".join(
        [escaped(claim.get("id", "")), escaped(claim.get("kind", ""))]
        + (["gated"] if claim.get("gated") else [])
    )
    reason = claim.get("reason")
    statement = f'{escaped(claim.get("statement", ""))}<div class="muted">{kind}</div>'
    effects = effects_by_task(claim)
    lines = (reason, effects and f"by task: {effects}", claim.get("budget"))
    statement += "".join(f'<div class="muted">{escaped(line)}</div>' for line in lines if line)
    difference = f"{shown(claim.get('difference'))}<br>{interval_of(claim.get('interval'))}"
    names = ("margin", "probability_of_improvement", "p_value", "seeds", "smallest_effect")
    verdict, statement = _verdict(claim), f'<div class="prose">{statement}</div>'
    return [badge_of(verdict, verdict), statement, difference] + [
        shown(count_of(claim.get(name))) for name in names
    ]


def _scores(run: Run) -> str:
    arms = dict_at(run.summary, "arms")
    scores, tasks = dict_at(run.summary, "scores"), _task_names(run)
    if not arms and not scores:
        return absent("No scores yet.")
    names = list(arms) or list(scores)
    parts = [_interval_figure(run, names, tasks)]
    if scores and tasks:
        parts.append(_task_figure(run, names, tasks))
    figure_row = f'<div class="grid">{"".join(parts)}</div>'
    decoding = run.summary.get("decoding")
    note = f'<p class="muted">Decoding: {escaped(decoding)}</p>' if decoding else ""
    tables = _return_table(run, names, tasks) + note + _seed_tables(run, names, tasks)
    return figure_row + tables + _lines(run.summary.get("notes"))


def _interval_figure(run: Run, names: Sequence[str], tasks: Sequence[str]) -> str:
    """IQM and interval per arm; of one task a dot is a seed, of several the next figure has them."""
    arms, scores = dict_at(run.summary, "arms"), dict_at(run.summary, "scores")
    rows = []
    for name in names:
        arm = dict_at(arms, name)
        low, high = pair_of(arm.get("interval"))
        seeds = numbers_of(dict_at(scores, name).get(tasks[0])) if len(tasks) == 1 else []
        rows.append((name, number_of(arm.get("iqm")), low, high, seeds))
    label = _score_label(run)
    own = {"x_label": label, "marks": (0.0,)} if label else {}
    title = str(run.summary.get("score_title") or "IQM over tasks and seeds")
    svg = figures.score_intervals(rows, title, **own)
    caption = "Line: IQM of the seeds; band: its 95 % interval; dots: seeds."
    if len(tasks) != 1:
        caption = "Line: IQM of each task's seeds, averaged over tasks; band: its 95 % interval."
    return card(svg, caption)


def _task_figure(run: Run, names: Sequence[str], tasks: Sequence[str]) -> str:
    scores, label = dict_at(run.summary, "scores"), _score_label(run)
    cells = [[numbers_of(dict_at(scores, arm).get(task)) for arm in names] for task in tasks]
    own = {"y_label": label} if label else {}
    svg = figures.per_task_bars(tasks, names, cells, title="Scores by task", **own)
    return card(svg, "Bar: IQM of the seeds; thin line: their range; dots: seeds.")


def _score_label(run: Run) -> str:
    """What a score is, where the summary says it; empty: normalised, 0 = random, 1 = expert."""
    return str(run.summary.get("score_label") or "")


def _return_table(run: Run, names: Sequence[str], tasks: Sequence[str]) -> str:
    """Arms x tasks: mean raw return with the mean normalised score below it."""
    arms, scores = dict_at(run.summary, "arms"), dict_at(run.summary, "scores")
    returns = dict_at(run.summary, "returns")
    rows = []
    for name in names:
        arm = dict_at(arms, name)
        description = escaped(arm.get("description", ""))
        about = f'{escaped(name)}<div class="muted prose">{description}</div>'
        iqm = f"{shown(arm.get('iqm'))}<br>{interval_of(arm.get('interval'))}"
        own_returns, own_scores = dict_at(returns, name), dict_at(scores, name)
        cells = [_score_cell(own_returns.get(task), own_scores.get(task)) for task in tasks]
        rows.append([about, iqm, *cells])
    for kind in ("random", "expert"):
        cells = [dict_at(dict_at(run.summary, "references"), task).get(kind) for task in tasks]
        if any(cell is not None for cell in cells):
            rows.append([f"<i>{kind}</i>", DASH] + [shown(cell) for cell in cells])
    head = ["arm", "IQM", *tasks]
    score = "mean score" if _score_label(run) else "mean normalised score"
    what = f"mean return over seeds, {score} below" if returns else "mean score"
    note = f'<p class="muted">Tasks: {what}. IQM: over tasks and seeds, with its interval.</p>'
    return table_of(head, rows, numeric_from=1) + note


def _score_cell(returns: Any, scores: Any) -> str:
    numbers = [numbers_of(values) for values in (returns, scores)]
    means = [np.mean(values) if values else None for values in numbers]
    if means[0] is None:
        return shown(means[1])
    return f'{shown(means[0])}<div class="muted">{shown(means[1])}</div>'


def _seed_tables(run: Run, names: Sequence[str], tasks: Sequence[str]) -> str:
    """Every seed's number, folded away: one table for scores, one for raw returns."""
    tables = ""
    score = "Score" if _score_label(run) else "Normalised score"
    for title, key in ((score, "scores"), ("Return", "returns")):
        table = dict_at(run.summary, key)
        cells = {(arm, task): dict_at(table, arm).get(task) for arm in names for task in tasks}
        count = max((len(items_of(values)) for values in cells.values()), default=0)
        if count == 0:
            continue
        rows = [
            [escaped(arm), escaped(task)] + [shown(value) for value in items_of(values)]
            for (arm, task), values in cells.items()
        ]
        head = ["arm", "task", *(f"seed {seed}" for seed in range(count))]
        tables += folded(f"{title} of every seed", table_of(head, rows, numeric_from=2))
    return tables


def _paper_figures(run: Run) -> str:
    """The figures that the experiment describes in its summary."""
    return gallery.render(run.summary.get("figures"))


def _pictures(run: Run) -> str:
    """Animated agents, one row a task when the file names tell it."""
    if not run.pictures:
        return absent("No pictures were drawn.")
    arms = list(dict_at(run.summary, "arms"))
    groups: dict[str, list[tuple[int, str, Path]]] = {}
    for path in run.pictures[:MAX_PICTURES]:
        task, label = _split_name(path.stem, _task_names(run))
        rank = arms.index(label) if label in arms else len(arms)
        groups.setdefault(task, []).append((rank, label, path))
    ordered = sorted(groups, key=lambda task: _position(task, _task_names(run)))
    html = "".join(_picture_row(task, sorted(groups[task])) for task in ordered)
    hidden = len(run.pictures) - MAX_PICTURES
    if hidden > 0:
        html += noted(f"{hidden} more picture(s) are in the folder pictures.")
    return html


def _picture_row(task: str, entries: Iterable[tuple[int, str, Path]]) -> str:
    title = f"<h3>{escaped(task)}</h3>" if task else ""
    cards = "".join(_picture(path, label, task) for _, label, path in entries)
    return f'{title}<div class="pictures">{cards}</div>'


def _picture(path: Path, label: str, task: str) -> str:
    """One picture as a data URI with its caption; a very large file stays outside the page."""
    if path.stat().st_size > MAX_PICTURE_BYTES:
        return noted(f"{path.name} is too large to embed.")
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    alt = escaped(f"{label or path.stem} in {task}" if task else label or path.stem)
    source = f"data:{PICTURE_TYPES[path.suffix]};base64,{data}"
    image = f'<img alt="{alt}" src="{source}">'
    return f"<figure>{image}<figcaption>{escaped(label)}</figcaption></figure>"


def _split_name(stem: str, tasks: Sequence[str]) -> tuple[str, str]:
    """Splits "finetune--CartPole-v1" into its task and the rest, whichever way round."""
    known = [task for task in tasks if task and task.replace("/", "-") in stem]
    if not known:
        return "", stem.replace("--", " · ").replace("_", " ")
    task = max(known, key=len)
    rest = stem.replace(task.replace("/", "-"), "", 1).strip("-_. ")
    return task, rest.replace("--", " · ") or task


def _preconditions(run: Run) -> str:
    rows = dicts_at(run.summary, "preconditions")
    if not rows:
        return absent("No preconditions were recorded.")
    cells = []
    for row in rows:
        badge = badge_of("PASS", "passed") if row.get("passed") else badge_of("FAIL", "failed")
        cells.append([badge, escaped(row.get("name", "")), escaped(row.get("detail", ""))])
    return table_of(("", "check", "detail"), cells)


def _budgets(run: Run) -> str:
    """What every arm was given, and where the time went."""
    html = _arm_budgets(run) + _throughput(run) + _stage_times(run)
    return html or absent("No budgets yet.")


def _arm_budgets(run: Run) -> str:
    arms, spent, budgets = (dict_at(run.summary, name) for name in ("arms", "spent", "budgets"))
    known = {"description", "iqm", "interval"}
    table = {
        name: {k: v for k, v in dict_at(arms, name).items() if k not in known}
        | {**dict_at(spent, name), **dict_at(budgets, name)}
        for name in dict.fromkeys([*arms, *budgets])
    }
    table = {name: row for name, row in table.items() if row}  # what spent nothing has no row
    columns = list(dict.fromkeys(key for row in table.values() for key in row))
    if not columns:
        return ""
    head = ["arm or stage", *(column.replace("_", " ") for column in columns)]
    rows = [
        [escaped(name), *(shown(count_of(row.get(key))) for key in columns)] for name, row in table.items()
    ]
    return table_of(head, rows, numeric_from=1)


def _throughput(run: Run) -> str:
    """Rates of each training stage: medians, compilation apart; MFU is of the matrix peak."""
    table = {name: row for name, row in dict_at(run.summary, "throughput").items() if row}
    if not table:
        return ""
    keys = list(next(iter(table.values())))
    head = ["training", *(key.replace("_", " ") for key in keys)]
    rows = [[escaped(n), *(shown(row.get(key)) for key in keys)] for n, row in table.items()]
    return table_of(head, rows, numeric_from=1)


def _stage_times(run: Run) -> str:
    times = dict_at(run.summary, "stage_seconds")
    rows = [
        [label, shown(run.summary.get(key))]
        for label, key in (("whole run", "wall_seconds"), ("of it compiling", "compile_seconds"))
        if run.summary.get(key) is not None
    ] + [[escaped(stage), shown(seconds)] for stage, seconds in times.items()]
    if not rows:
        return ""
    return folded("Seconds by stage", table_of(("stage", "seconds"), rows, numeric_from=1))


def _limits(run: Run) -> str:
    return _lines(run.summary.get("limits")) or absent("No limits were stated.")


def _lines(values: Any) -> str:
    """Sentences as a list, nothing where there are none."""
    rows = [f"<li>{escaped(str(value))}</li>" for value in items_of(values)]
    return "<ul>" + "".join(rows) + "</ul>" if rows else ""


def _redo(run: Run) -> str:
    """The command, everything that can change the numbers, and the whole configuration."""
    manifest = run.manifest
    command = manifest.get("command") or run.summary.get("command")
    versions = dict_at(manifest, "versions") or dict_at(run.summary, "versions")
    facts = {
        "device": _join(dict_at(manifest, "device")),
        "precision": manifest.get("precision"),
        "git": _join(dict_at(manifest, "git")),
        "XLA flags": manifest.get("xla_flags"),
        "cores": manifest.get("cores"),
        "started": manifest.get("started"),
        "fingerprint": manifest.get("fingerprint"),
        "versions": _join(versions),
    }
    rows = [[escaped(key), shown(value)] for key, value in facts.items() if value not in (None, "")]
    html = f"<pre>{escaped(command)}</pre>" if command else absent("The command is not recorded.")
    html += table_of(("", ""), rows) if rows else ""
    if manifest.get("config"):
        text = json.dumps(manifest["config"], indent=2, ensure_ascii=False)
        html += folded("Configuration", f"<pre>{escaped(text)}</pre>")
    return html


# --- pieces of HTML ------------------------------------------------------------------------------


def _section(title: str, draw: Callable[[Run], str], run: Run) -> str:
    """One section; a malformed part of the run is reported in place and spares the others."""
    try:
        body = draw(run)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OSError) as error:
        body = noted(f"This section could not be drawn: {error}")
    return f"<section><h2>{escaped(title)}</h2>{body}</section>"


# --- reading the run ---------------------------------------------------------------------------


def _task_names(run: Run) -> list[str]:
    return [str(task) for task in items_of(run.summary.get("tasks"))]


def _position(name: str, names: Sequence[str]) -> int:
    return names.index(name) if name in names else len(names)


def _verdict(claim: Mapping[str, Any]) -> str:
    return str(claim.get("verdict", "VOID")).upper()


def _join(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {'-' if value is None else value}" for key, value in facts.items())


def _short_hash(fingerprint: Any) -> str | None:
    return str(fingerprint)[:12] if fingerprint else None
