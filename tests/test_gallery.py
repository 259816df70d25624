"""The figures that a summary describes: each kind as SVG, and a note for what is ill-formed."""

import base64
import io
import json
import math
import re
import xml.dom.minidom

import numpy as np
import pytest
from PIL import Image

from jaxagent.report import figures, gallery
from jaxagent.report import series as numbers
from jaxagent.report.html import write_report

HOSTILE = "<script>alert('x')</script>\"&$\\frac"
NAMES = {"title": "Title", "caption": "Caption.", "x_label": "across", "y_label": "upward"}


def curves(**changes):
    x = [1.0, 10.0, 100.0]
    series = [
        {"label": "model", "x": x, "y": [[1.0, 2.0], [0.1, None], [0.01, 0.02]]},
        {"label": "bound", "x": x, "y": [1.0, 0.5, 0.1], "style": "dashed"},
    ]
    return {"kind": "curves", **NAMES, "series": series, "log_x": True, "log_y": True} | changes


def maps(**changes):
    panels = [{"title": f"panel {i}", "values": [[-1.0, 0.0, 1.0], [0.5, None, -0.5]]} for i in range(2)]
    ticks = {"x_ticks": [10, 20000, "end"], "y_ticks": ["D=4", "D=8"]}
    return {"kind": "maps", **NAMES, "panels": panels, "low": -1, "high": 1} | ticks | changes


def scatter(**changes):
    series = [{"label": f"arm {i}", "x": [0.0, 1.0, None], "y": [0.1, 0.8, 2.0]} for i in range(2)]
    return {"kind": "scatter", **NAMES, "series": series, "diagonal": True} | changes


def tree(**changes):
    """A root with two children, of which the first was looked at twice and decided for."""
    parents, labels, visits = (-1, 0, 0, 1), ("", "left", "right", "up"), (4, 2, 1, 1)
    numbers = zip(parents, labels, visits, (0.25, 0.5, -1.0, 0.75), strict=True)
    nodes = [
        {"parent": p, "label": a, "visits": n, "value": v, "prior": 0.5, "is_chosen": a in ("", "left", "up")}
        for p, a, n, v in numbers
    ]
    return {"kind": "tree", "title": "Title", "caption": "Caption.", "nodes": nodes} | changes


KINDS = {"curves": curves, "maps": maps, "scatter": scatter, "tree": tree}


def svgs(html):
    return re.findall(r"<svg .*?</svg>", html, flags=re.DOTALL)


def texts(svg):
    """The words of a figure, in order."""
    nodes = xml.dom.minidom.parseString(svg).getElementsByTagName("text")
    return [node.firstChild.data.strip() for node in nodes if node.firstChild]


def pixels(svg):
    """Colours of each map's cells, and of the bar's: arrays [rows, columns, 3]."""
    data = re.findall(r'href="data:image/png;base64,([^"]*)"', svg)
    images = [Image.open(io.BytesIO(base64.b64decode(one))) for one in data]
    return [np.asarray(image.convert("RGB")).astype(int) for image in images]


def rgb(color):
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


# --- each kind -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("curves", {"model", "bound", "across", "upward"}),
        ("maps", {"panel 0", "panel 1", "10", "20k", "end", "D=4", "D=8", "across", "upward"}),
        ("scatter", {"arm 0", "arm 1", "y = x", "across", "upward"}),
        ("tree", {"left", "right", "up", "4", "0.25", "-1"}),
    ],
)
def test_each_kind_is_drawn_with_its_labels(kind, words):
    html = gallery.render([KINDS[kind]()])
    (svg,) = svgs(html)
    assert "could not be drawn" not in html
    assert 'aria-label="Title"' in svg
    assert words <= set(texts(svg)), texts(svg)
    assert "Caption." in html
    assert len(svg) < 60_000


def test_same_numbers_give_the_same_bytes():
    entries = [make() for make in KINDS.values()]
    assert gallery.render(entries) == gallery.render(json.loads(json.dumps(entries)))


def test_ids_are_unique_across_figures():
    ids = [set(re.findall(r' id="([^"]+)"', s)) for s in svgs(gallery.render([maps(), scatter()]))]
    assert sum(map(len, ids)) == len(set().union(*ids))


def test_strings_are_escaped():
    names = dict.fromkeys(("title", "caption", "x_label", "y_label", "color_label"), HOSTILE)
    entries = [make(**names) for make in KINDS.values()]
    entries[0]["series"][0]["label"] = HOSTILE
    entries[1]["panels"][0]["title"] = HOSTILE
    entries[1]["x_ticks"] = [HOSTILE] * 3
    entries += [{"title": HOSTILE, "kind": HOSTILE}, curves(title=HOSTILE, series=HOSTILE)]
    entries += [scatter(series=[{"label": HOSTILE, "x": [HOSTILE], "y": [1]}])]
    html = gallery.render(entries)
    assert "<script" not in html
    assert len(svgs(html)) == len(KINDS)
    assert html.count("could not be drawn") == 3
    for svg in svgs(html):
        xml.dom.minidom.parseString(svg)


def test_a_missing_cell_is_grey_and_a_map_is_colored_by_its_value():
    html = gallery.render([maps()])
    cells = pixels(svgs(html)[0])[0]
    np.testing.assert_allclose(cells[1, 1], rgb(figures.MASKED), atol=2)
    np.testing.assert_allclose(cells[0, 0], rgb(figures.COLORS[0]), atol=2)
    np.testing.assert_allclose(cells[0, 1], 255, atol=4)  # zero is white
    np.testing.assert_allclose(cells[0, 2], rgb(figures.COLORS[1]), atol=2)
    assert "Grey: no value." in html
    full = maps(panels=[{"title": "", "values": [[0.0, 1.0, 0.5]] * 2}], low=0)
    assert "Grey" not in gallery.render([full])


def test_wide_maps_are_averaged_to_sixty_columns():
    values = np.arange(3 * 600.0).reshape(3, 600)
    values[0, :10] = np.nan
    (_, thin), *_ = numbers.check_panels([("a", values)], 0, 1800, range(600), ())
    assert thin.shape == (3, 60)
    assert np.isnan(thin[0, 0])
    np.testing.assert_allclose(thin[1, 0], values[1, :10].mean())
    np.testing.assert_allclose(thin[2].mean(), values[2].mean())
    svg = figures.heat_maps([("a", values)], "t", "x", "y", low=0, high=1e3, x_ticks=range(600))
    assert pixels(svg)[0].shape[:2] == (3, 60)
    named = [int(text) for text in texts(svg)[: texts(svg).index("a")] if text.isdigit()]
    assert named[0] == 0
    assert 3 <= len(named) <= 12
    assert len(set(np.diff(named))) == 1


def test_scatter_draws_at_most_600_points():
    rng = np.random.default_rng(0)
    series = [
        {"label": str(i), "x": rng.normal(size=n).tolist(), "y": rng.normal(size=n).tolist()}
        for i, n in enumerate((1, 700, 3000))
    ]
    html = gallery.render([scatter(series=series)])
    kept = numbers.every_so_many([numbers.check_points(**one) for one in series], 600)
    counts = [len(x) for _, x, _ in kept]
    assert counts[0] == 1
    assert 590 <= sum(counts) <= 600
    assert "600 of 3701 points are drawn." in html
    assert len(svgs(html)[0]) < 60_000


# --- logarithmic axes ----------------------------------------------------------------------------


def test_log_y_drops_what_is_not_positive():
    x = np.arange(1.0, 7.0)
    y = np.array([1.0, 0.0, 0.1, -3.0, 0.01, np.inf])
    keep = np.isfinite(y) & (y > 0)
    holes = np.where(keep, y, np.nan)
    drawn = [figures.learning_curves([("a", x, v)], "t", "x", "y", log_y=True) for v in (y, holes)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != figures.learning_curves([("a", x, y)], "t", "x", "y")
    shown_x, shown_y = numbers.drawable(np.array([0.0, 1.0, np.inf]), np.ones((3, 1)), True, True)
    assert shown_x.tolist() == [1.0]
    assert shown_y.tolist() == [[1.0]]


@pytest.mark.parametrize("y", [[-1.0, 0.0], [None, None], [2.0, 2.0], [1.0, 1.5], [1e-12, 1.0], []])
def test_any_values_fit_on_logarithmic_axes(y):
    html = gallery.render([curves(series=[{"label": "a", "x": [1.0, 2.0][: len(y)], "y": y}])])
    assert "could not be drawn" not in html
    assert len(svgs(html)) == 1


def test_a_band_stays_positive_on_a_logarithmic_axis():
    y = np.abs(np.random.default_rng(0).normal(size=(50, 64))) ** 4 + 1e-3
    svg = figures.learning_curves([("a", np.arange(50), y)], "t", "x", "y", log_y=True)
    ticks = [float(text) for text in texts(svg)[:-4] if text not in ("0", "x", "y")]
    assert min(ticks) >= 1e-4


def test_the_beginning_keeps_its_points_on_a_logarithmic_axis():
    x = np.arange(1.0, 10_001.0)
    thin, _ = numbers.thin_out(x, x[:, None], 100, True)
    assert len(thin) <= 100
    assert thin[:3].tolist() == [1.0, 2.0, 3.0]


def test_of_a_large_tree_the_most_visited_are_drawn():
    many = [{"parent": -1, "label": "", "visits": 101, "value": 0.0, "prior": 1.0}]
    many += [
        {"parent": 0, "label": f"a{i}", "visits": 100 - i, "value": 0.5, "prior": 0.01} for i in range(100)
    ]
    many.append({"parent": 100, "label": "deep", "visits": 1, "value": 0.5, "prior": 1.0})
    words = texts(svgs(gallery.render([tree(nodes=many)]))[0])
    assert {"a0", "a62"} <= set(words)
    assert not {"a63", "deep"} & set(words)


# --- what is ill-formed --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("text", "got a JSON string for a figure"),
        (None, "got a JSON null for a figure"),
        ({"title": "Odd"}, "Odd: .*got kind None; expected one of curves, maps, scatter, tree"),
        ({"title": "Odd", "kind": ["maps"]}, "Odd: .*got kind"),
        (tree(nodes=[{"parent": 0}]), "Title: .*expected the fields of trees.Node"),
        (tree(nodes=[tree()["nodes"][1]]), "Title: .*got parent 0 of node 0"),
        (curves(title="Odd", series=None), "Odd: .*got a JSON null for series"),
        (curves(title="Odd", series=[]), "Odd: .*got no series"),
        (curves(title="Odd", series=[3]), "Odd: .*got a JSON int for each of series"),
        (curves(series=[{"label": "a", "x": [1, 2], "y": [1]}]), r"Title: .*got x of shape \(2,\)"),
        (curves(series=[{"label": "a", "x": [1, 2], "y": [[1], [1, 2]]}]), "got y of 'a'"),
        (curves(series=[{"label": "a", "x": [1], "y": [10**400]}]), "got y of 'a'"),
        (curves(series=[{"label": "a", "x": [1], "y": [1], "style": "wavy"}]), "got style 'wavy'"),
        (curves(log_y="yes"), "got log_y 'yes'; expected true or false"),
        (maps(low=None), "got low=None"),
        (maps(low=1, high=-1), "got low=1 and high=-1"),
        (maps(low="0"), "got low='0'"),
        (maps(x_ticks=[1]), "got 1 x_ticks; expected 3"),
        (maps(y_ticks="ab"), "got a JSON string for y_ticks"),
        (maps(panels=[{"title": "a", "values": []}]), r"got panels of shapes \[\(0,\)\]"),
        (maps(panels=[{"values": [[1]]}, {"values": [[1, 2]]}]), "got panels of shapes"),
        (scatter(series=[{"label": "a", "x": [1], "y": [[1]]}]), r"expected x \[n\] and y \[n\];"),
        (scatter(diagonal=1), "got diagonal 1"),
    ],
)
def test_an_ill_formed_figure_becomes_a_note(entry, said):
    html = gallery.render([entry, scatter()])
    note = re.search(r'<p class="note">(.*?)</p>', html, flags=re.DOTALL).group(1)
    note = note.replace("&#x27;", "'")
    assert re.search(said, note), note
    assert "expected" in note
    assert "fix" in note
    assert len(svgs(html)) == 1  # the other one


@pytest.mark.parametrize("entries", [{"kind": "maps"}, "figures", 3])
def test_figures_that_are_no_list_become_a_note(entries):
    assert "The figures could not be drawn" in gallery.render(entries)


def test_extreme_numbers_are_drawn_or_noted():
    wild = [math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324]
    x = list(range(len(wild)))
    entries = [
        curves(series=[{"label": "a", "x": x, "y": wild}], log_x=False, log_y=False),
        scatter(series=[{"label": "a", "x": wild, "y": wild}]),
        maps(panels=[{"title": "a", "values": [wild[:3], wild[3:]]}]),
    ]
    html = gallery.render(entries)
    assert html.count("<svg ") + html.count("could not be drawn") == 3


def test_too_many_are_counted():
    many = curves(series=curves()["series"] * 10)
    assert "4 more series are not drawn." in gallery.render([many])
    panels = maps(panels=maps()["panels"] * 7)
    assert "2 more panels are not drawn." in gallery.render([panels])
    assert "1 more figure(s) are not drawn." in gallery.render([3] * 25)


# --- on the page ---------------------------------------------------------------------------------


def page_of(folder, **summary):
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text("{}")
    content = {
        "arms": {"model": {"iqm": 0.5, "interval": [0.4, 0.6]}},
        "tasks": ["urn"],
        "scores": {"model": {"urn": [0.5, 0.6]}},
        "returns": {"model": {"urn": [5.0, 6.0]}},
    }
    (folder / "summary.json").write_text(json.dumps(content | summary))
    return write_report(folder).read_text(encoding="utf-8")


def test_the_figures_stand_after_the_scores(tmp_path):
    page = page_of(tmp_path / "run", figures=[make() for make in KINDS.values()])
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles[titles.index("Scores") + 1] == "Figures of the paper"
    section = page.split("<h2>Figures of the paper</h2>")[1].split("</section>")[0]
    assert len(svgs(section)) == len(KINDS)
    assert "could not be drawn" not in page


@pytest.mark.parametrize("summary", [{}, {"figures": []}, {"figures": None}])
def test_a_page_without_figures_has_no_such_section(tmp_path, summary):
    assert "Figures of the paper" not in page_of(tmp_path / "run", **summary)


def test_scores_can_be_named(tmp_path):
    usual = page_of(tmp_path / "usual")
    assert "0 = random, 1 = expert" in usual
    assert "Normalised score of every seed" in usual
    own = page_of(tmp_path / "own", score_label="KL, nats", score_title="Nearest predictor")
    assert "0 = random" not in own
    assert "normalised score" not in own.lower()
    assert "Score of every seed" in own
    assert "Return of every seed" in own
    intervals, by_task = svgs(own.split("<h2>Scores</h2>")[1])[:2]
    assert 'aria-label="Nearest predictor"' in intervals
    assert "KL, nats" in texts(intervals)
    assert "KL, nats" in texts(by_task)


def test_a_long_label_is_broken_into_lines(tmp_path):
    label = "squared difference from the predictor to the model (less: nearer)"
    svg = svgs(page_of(tmp_path / "run", score_label=label).split("<h2>Scores</h2>")[1])[1]
    lines = [text for text in texts(svg) if text in label and text != "model"]
    assert len(lines) >= 2
    assert " ".join(lines) == label
