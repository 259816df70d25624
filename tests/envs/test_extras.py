"""A missing source skips with its pip line, and fails where CI was to install it."""

import extras
import pytest
from extras import need


@pytest.fixture
def without_brax(monkeypatch):
    monkeypatch.setattr(extras, "missing_package", lambda family: "brax")


def test_a_missing_source_skips_with_its_pip_line(without_brax, monkeypatch):
    monkeypatch.setenv("JAXAGENT_REQUIRED_EXTRAS", "games,atari")
    with pytest.raises(pytest.skip.Exception, match=r"pip install 'jaxagent\[brax\]'"):
        need("brax")


def test_a_source_that_was_to_be_installed_fails(without_brax, monkeypatch):
    monkeypatch.setenv("JAXAGENT_REQUIRED_EXTRAS", "games,brax")
    with pytest.raises(pytest.fail.Exception, match="was to be installed"):
        need("brax")


def test_a_source_that_is_there_is_used(monkeypatch):
    monkeypatch.setenv("JAXAGENT_REQUIRED_EXTRAS", "brax")
    assert need("classic") is None
