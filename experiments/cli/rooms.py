"""Rooms: where the configuration and the study of a paper lie, inside this repository or outside.

A room is a folder with `config.py` (presets, importable without JAX) and `study.py`. The rooms of
this repository are named; any other is given by its path.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from envs.common.names import UnknownName, check_name
from jaxagent import folders
from jaxagent.api.config import config_of

HOME = Path(__file__).parents[1]


class Room(NamedTuple):
    """One paper's folder."""

    name: str
    source: str  # a name, or a path as it was given
    package: str  # what is imported

    @property
    def is_outside(self) -> bool:
        """Whether it was given by a path, not by the name of one here."""
        return self.source != self.name

    @property
    def config(self) -> Any:
        """The module with `Config`, `DESCRIPTION` and `PRESETS`."""
        return importlib.import_module(f"{self.package}.config")

    def study(self, config: Any) -> Any:
        """The study of a configuration; imports JAX."""
        return importlib.import_module(f"{self.package}.study").study(config)


class Training(NamedTuple):
    """What `jaxagent train`, sweep and tune run: what a room is, without a folder of its own."""

    source: str  # as `jaxagent.api.config.source_of` has it

    @property
    def name(self) -> str:
        """What manifests and pages call it: train, sweep or tune."""
        return self.source.split("/")[0]

    @property
    def is_outside(self) -> bool:
        """No: it is of the library."""
        return False

    @property
    def config(self) -> Any:
        """What a room's configuration module has."""
        made = config_of(self.source)
        about = " on ".join(self.source.split("/", 2)[1:])
        return SimpleNamespace(Config=type(made), DESCRIPTION=about, PRESETS={"cpu": made})

    def study(self, config: Any) -> Any:
        """The study of a configuration; imports JAX."""
        module = "study" if self.name == "train" else self.name
        return importlib.import_module(f"jaxagent.api.{module}").study(config)


def code_of(room: Room | Training) -> tuple[str, ...]:
    """What makes the numbers of a room: paths in its repository."""
    if room.is_outside:
        return (".",)
    return "jaxagent", "envs", "kernels", f"experiments/{room.name}", "pyproject.toml"


def names() -> list[str]:
    """Rooms of this repository."""
    return sorted(path.parent.name for path in HOME.glob("*/config.py"))


def room(source: str) -> Room | Training:
    """The room of a name, or of a path to a folder. Raises `UnknownName` with the nearest name."""
    path = Path(source)
    if source not in names() and (path / "config.py").is_file() and (path / "study.py").is_file():
        return _outside(path, source)
    if source.startswith(("train/", "sweep/", "tune/")) and source.count("/") >= 2:
        return Training(source)
    if "/" in source:
        raise UnknownName(f"experiment: got {source!r}, expected a folder with config.py and study.py.")
    return Room(check_name("experiment", source, names()), source, f"experiments.{source}")


def _outside(path: Path, source: str) -> Room:
    """A folder outside becomes a package under its own name."""
    name = _check_importable(path)
    sys.path.insert(0, str(path.resolve().parent))
    return Room(name, source, name)


def _check_importable(path: Path) -> str:
    """The name of a folder, which nothing else that Python can import has."""
    name = path.resolve().name
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    is_taken = spec is not None and path.resolve() not in map(Path, spec.submodule_search_locations or ())
    if not name.isidentifier() or is_taken:
        raise UnknownName(
            f"{path}: got the folder name {name!r}, expected one that Python can import and no other "
            "module has; rename the folder."
        )
    return name


def new(path: Path) -> list[Path]:
    """Write a room of one's own, the worked example under another name; returns its files.

    Raises `UnknownName` for a folder name that Python cannot import or another module has, `NotOurs` for a
    folder that holds something.
    """
    _check_importable(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise folders.NotOurs(f"{path}: holds something; nothing was touched. Name a new folder.")
    path.mkdir(parents=True, exist_ok=True)
    written = []
    for name in ("config.py", "study.py"):
        text = (HOME / "example" / name).read_text()
        (path / name).write_text(_renamed(text, path.resolve().name, path))
        written.append(path / name)
    return written


def _renamed(text: str, name: str, path: Path) -> str:
    """A file of the example as one of a room `name`, without what is believed of the example's rows."""
    start = text.find("BELIEF = ")
    if start >= 0:
        end = text.index('"""\n', text.index('"""', start) + 3) + 4
        text = text[:start] + text[end:]
    text = text.replace("experiments.example", name).replace("Copy this folder.", "Change it into yours.")
    text = text.replace("the example, importable", f"{name}, importable").replace("the worked example: ", "")
    text = text.replace("The worked example: ", "A study of my own: ")
    return text.replace('"example/', f'"{name}/').replace(
        "jaxagent run example", f"jaxagent run {path if path.is_absolute() else Path('.') / path}"
    )


def default_preset(of: Room | Training) -> str:
    """The preset that runs where none is named: "cpu" where there is one, else the first of real size."""
    names = list(of.config.PRESETS)
    return "cpu" if "cpu" in names else next((name for name in names if name != "smoke"), names[0])


def preset(of: Room | Training, name: str) -> Any:
    """A preset's configuration. Raises `UnknownName` with the nearest name."""
    return of.config.PRESETS[check_name(f"preset of {of.name}", name, of.config.PRESETS)]
