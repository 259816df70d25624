"""The front page is short, its links lead somewhere, and its commands exist."""

import re
from pathlib import Path

import pytest

from experiments import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "experiments" / "README.md",
    ROOT / "experiments" / "examples" / "README.md",
]
PAGES += sorted((ROOT / "jaxagent" / "docs").glob("*.md"))


def test_the_readme_has_at_most_900_words():
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page):
    known = set(cli._parser()._subparsers._group_actions[0].choices)
    asked = set(
        re.findall(r"(?:`|^|\bor )(?:\.venv/bin/)?jaxagent ([a-z]+)", page.read_text(), flags=re.MULTILINE)
    )
    assert asked <= known, asked - known
