"""The pages of experiments/examples run as they stand, and say what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
PAGES = sorted(path.stem for path in (HOME / "experiments" / "examples").glob("*.py"))


def numbers(pattern, text):
    """The numbers that a line of the output holds."""
    (line,) = re.findall(f"^{pattern}.*$", text, flags=re.MULTILINE)
    return [float(x) for x in re.findall(r"-?\d+\.\d*|-?\d+\.?(?=[\s\]])", line.split(")")[0])]


def finds_the_theory(text):
    moves = re.findall(r"^at (\d): add (\d) .*theory: (\d|lost)$", text, flags=re.MULTILINE)
    assert len(moves) == 10
    assert all(move == theory for _, move, theory in moves if theory != "lost")


def runs_a_study(text):
    assert "ok  the saboteur leaves room" in text


def learns_cartpole(text):
    assert min(numbers("new episodes", text)) > 400


def reaches_the_end(text):
    assert "return 0.94" in text
    assert "return 0.9 " in text


def remembers(text):
    assert min(numbers("GRU", text)) > 0.9 > max(numbers("reflex", text))


def is_the_same_on_four(text):
    assert float(text.split("largest difference")[1]) < 1e-5


def ranks(text):
    assert re.search(r"^  6 ", text, flags=re.MULTILINE)


def tunes(text):
    assert numbers("LoRA", text)[0] > 100


CHECKS = {
    "search": finds_the_theory,
    "new_study": runs_a_study,
    "train_ppo": learns_cartpole,
    "own_environment": reaches_the_end,
    "memory": remembers,
    "several_devices": is_the_same_on_four,
    "sweep": ranks,
    "pretrain": tunes,
}


@pytest.mark.fast("new_study", "search")
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page, tmp_path):
    environment = {name: x for name, x in os.environ.items() if name != "XLA_FLAGS"}
    place = HOME / "experiments" / "examples" / f"{page}.py"
    run = subprocess.run(
        [sys.executable, str(place)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    CHECKS[page](run.stdout)


def test_every_page_is_listed_and_begins_with_words():
    text = (HOME / "experiments" / "examples" / "README.md").read_text()
    assert set(CHECKS) == set(PAGES)
    for page in PAGES:
        assert f"[{page}.py]({page}.py)" in text
        lines = (HOME / "experiments" / "examples" / f"{page}.py").read_text().splitlines()
        assert lines[0] == "# %% [markdown]"
        assert lines[1].startswith("# # ")
