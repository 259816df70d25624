"""Imports point one way; the source is read with `ast`, nothing is imported."""

import ast
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("jaxagent", "envs", "kernels", "experiments")
THIRD_PARTY_ENVS = {"gymnax", "brax", "ale_py", "pgx", "craftax", "xminigrid", "gymnasium", "mctx"}
GROUND = {"envs.types", "envs.common", "envs.returns"}  # of envs, for jaxagent
FORBIDDEN_CALLS = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
DEVICE_NAMES = {"pmap", "shard_map", "device_put", "pmean", "psum", "local_devices", "NamedSharding"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""}
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def top(name: str) -> str:
    return name.split(".")[0]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


ALL = [p for package in PACKAGES for p in sources(package)]


ROOMS = {p.parent.name for p in (ROOT / "experiments").glob("*/config.py")}


def is_room_of_another(name: str, room: str) -> bool:
    """Whether an import is of a room, seen from another or from what serves all of them."""
    parts = name.split(".")
    return parts[0] == "experiments" and len(parts) > 1 and parts[1] in ROOMS - {room}


def violations(path: Path) -> list[str]:
    """Arrows of `path` that run the wrong way."""
    package, found = path.relative_to(ROOT).parts[0], imports(path)
    bad = []
    if package in ("envs", "kernels"):
        bad += [i for i in found if top(i) in ("jaxagent", "experiments")]
    if package == "kernels":
        bad += [i for i in found if top(i) == "envs"]
    part = path.relative_to(ROOT).parts[:2]
    if package == "jaxagent":
        bad += [i for i in found if top(i) == "experiments"]
    if package == "jaxagent" and part[1] not in ("study", "api", "__init__.py"):  # the last is the door
        bad += [i for i in found if i.startswith(("jaxagent.study", "jaxagent.api"))]
        bad += [
            i
            for i in found
            if top(i) == "envs" and not any(i == g or i.startswith(f"{g}.") for g in GROUND) and i != "envs"
        ]
    if part == ("jaxagent", "study"):
        bad += [i for i in found if i.startswith("jaxagent.api")]
    if package == "experiments":
        bad += [i for i in found if is_room_of_another(i, part[1])]
    if part == ("jaxagent", "agents"):
        bad += [i for i in found if i.startswith("jaxagent.train")]
    if part == ("jaxagent", "train"):
        bad += [i for i in found if i.startswith("jaxagent.agents")]
    if part == ("jaxagent", "objectives"):
        bad += [i for i in found if i.startswith(("jaxagent.nn", "flax"))]
    if part != ("envs", "adapters"):
        bad += [i for i in found if top(i) in THIRD_PARTY_ENVS]
    return bad + [i for i in found if top(i) in FORBIDDEN_CALLS]


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_imports_point_one_way(path):
    assert violations(path) == []


def test_a_wrong_arrow_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    for where, line in (
        ("envs/a.py", "from jaxagent import keys"),
        ("jaxagent/agents/a.py", "from jaxagent.train import loops"),
        ("jaxagent/train/a.py", "import jaxagent.agents.sequence"),
        ("jaxagent/b.py", "from envs import vector"),
        ("jaxagent/c.py", "from envs.registry import make"),
        ("experiments/a.py", "import gymnax"),
        ("jaxagent/d.py", "import pickle"),
        ("jaxagent/train/b.py", "from jaxagent.study import agents"),
        ("experiments/pasta/a.py", "from experiments.plan.config import CPU"),
        ("experiments/cli/a.py", "import experiments.plan.study"),
    ):
        path = tmp_path / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line)
        assert violations(path), where


def device_names(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {n.attr for n in nodes if isinstance(n, ast.Attribute)} & DEVICE_NAMES


def test_one_file_knows_devices():
    users = {name_of(p) for p in ALL if device_names(p) and "doctor" not in p.name}
    assert users == {"jaxagent/train/parallel.py"}


def test_importing_starts_no_backend_and_sets_no_flag():
    program = (
        "import os, jax; before = dict(os.environ)\n"
        "import jaxagent.library, jaxagent.train.run, experiments.quickstart.study, envs\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, xla_bridge._backends\n"
        "assert dict(os.environ) == before\n"
        "assert not jax.config.jax_enable_x64\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=120)


def test_functions_stay_readable():
    """Readers forgive length, not depth: no function of the library is longer than 90 lines."""
    long = [
        f"{name_of(p)}:{n.lineno} {n.name}"
        for p in ALL
        for n in ast.walk(ast.parse(p.read_text()))
        if isinstance(n, ast.FunctionDef) and n.end_lineno - n.lineno >= 90
    ]
    assert long == []


LINES = {  # of a room: what is more belongs to the library
    "alphazero": 330,
    "atari100k": 421,
    "example": 120,
    "icl_bma": 620,
    "icl_rational": 540,
    "memory": 323,  # of which 40 are presets for Craftax
    "reinforce": 269,  # a corpus, a pretraining and six ways to begin
    "muzero": 406,  # five models of a task, played with five numbers of simulations
    "pasta": 1835,  # six objectives, two granularities, seven ways to adapt, tests, learning from rewards
    "plan": 385,
    "populations": 210,
    "quickstart": 496,
    "spr": 898,  # two programs: a probe, and agents on games
    "whole": 575,  # twelve arms of three kinds, their pretrainings and presets
}
NEW_PAPER = 210


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_has_the_two_files_and_keeps_its_budget(room):
    place = ROOT / "experiments" / room
    assert (place / "study.py").exists()
    assert sum(len(p.read_text().splitlines()) for p in place.glob("*.py")) <= LINES.get(room, NEW_PAPER)


def test_rooms_build_no_stage_and_spell_no_shape():
    bad = [
        p for p in sources("experiments") for word in ("Work(", "ShapeDtypeStruct") if word in p.read_text()
    ]
    assert bad == []


def test_few_lines_are_kept_from_the_formatter():
    lines = [
        line for p in ALL + sources("tests") + sources("benchmarks") for line in p.read_text().splitlines()
    ]
    assert sum(line.endswith("# fmt: " + "skip") for line in lines) <= 30
    assert not any("# fmt: " + "off" in line for line in lines)


def test_parts_of_the_slow_tier_hold_every_file_once():
    from conftest import of_part

    files = [f"tests/slow/test_{i}.py" for i in range(10)]
    parts = [of_part(files, f"{i}/4") for i in (1, 2, 3, 4)]
    assert sorted(f for part in parts for f in part) == files
    for wrong in ("0/4", "5/4"):
        with pytest.raises(pytest.UsageError):
            of_part(files, wrong)


class Item:
    """What the tiers read of a collected test."""

    def __init__(self, id_, *fast):
        self.nodeid, self.callspec, self.marks = f"tests/a.py::test_b[{id_}]", SimpleNamespace(id=id_), []
        self.get_closest_marker = lambda name: pytest.mark.fast(*fast).mark
        self.add_marker = self.marks.append


def test_ids_that_are_not_named_fast_are_slow():
    from conftest import mark_slow

    items = [Item(name, "two") for name in ("one", "two", "three")]
    mark_slow(items)
    assert [[mark.name for mark in item.marks] for item in items] == [["slow"], [], ["slow"]]
    with pytest.raises(pytest.UsageError, match=r"fast ids \['four'\], expected some of \['one'\]"):
        mark_slow([Item("one", "four")])


def test_every_folder_of_tests_has_a_budget():
    from conftest import BUDGET

    folders = {p.parent.name for p in (ROOT / "tests").glob("*/test_*.py")} - {"slow"}
    assert set(BUDGET) == folders | {"tests"}
    assert sum(BUDGET.values()) <= 1100  # CPU seconds; ten minutes on two cores
