"""Compiled programs are dropped before a process runs out of regions to map, and come back."""

import jax
import jax.numpy as jnp
import pytest

from jaxagent.train import mappings


@pytest.fixture
def twice():
    """A compiled function, and how often its Python body ran."""
    traced = []

    @jax.jit
    def double(x):
        traced.append(x.shape)
        return 2.0 * x

    double(jnp.ones(3))
    return double, traced


@pytest.mark.parametrize(("limit", "is_dropped"), [("10", True), ("1000000000", False), ("?", False)])
def test_programs_are_dropped_where_half_of_the_regions_are_used(
    tmp_path, monkeypatch, twice, limit, is_dropped
):
    double, traced = twice
    (tmp_path / "limit").write_text(limit)
    (tmp_path / "maps").write_text("region\n" * 6)
    monkeypatch.setattr(mappings, "LIMIT", tmp_path / "limit")
    monkeypatch.setattr(mappings, "MAPS", tmp_path / "maps")
    assert mappings.relieve() is is_dropped
    assert float(double(jnp.ones(3)).sum()) == 6.0
    assert len(traced) == 1 + is_dropped


def test_where_there_is_no_linux_nothing_is_dropped(tmp_path, monkeypatch, twice):
    monkeypatch.setattr(mappings, "LIMIT", tmp_path / "none")
    assert not mappings.relieve()
