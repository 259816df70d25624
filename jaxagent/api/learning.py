"""Training in one call: `learn` and `sweep` begin or continue a run, `load` opens one."""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import envs
from jaxagent import folders, keys, library
from jaxagent.api import study as studies
from jaxagent.api import sweep as sweeps
from jaxagent.api import tune as tunes
from jaxagent.api.config import (
    KIND_OF,
    AnyConfig,
    SweepConfig,
    TrainConfig,
    TuneConfig,
    config_of,
    recipe,
    source_of,
)
from jaxagent.api.kinds import fit_of, kind_of
from jaxagent.config import RuntimeConfig, fingerprint, from_dict, to_dict
from jaxagent.data import foreign_arrays, store
from jaxagent.files import write_json
from jaxagent.report import trackers
from jaxagent.report.loggers import check_loggers
from jaxagent.study import agents, execution, histories
from jaxagent.train import manifest

PRESET = "cpu"  # a name that manifests ask for
OWN = "own"  # family of environments that were passed as objects
SOURCE = "train"  # what manifests call these runs, before the agent and the environment


class Result:
    """A finished training run: its curve, parameters and policies. Nothing is read before it is asked for."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        """The run in `folder`, which `config` made."""
        self.folder, self.config = folder, config
        self.env, self.task = envs.make(config.env, **dict(config.change))
        kind = kind_of(config)
        self._fit = fit_of(self.env, self.task, config)
        self._policy = kind.policy(self.env, config)
        self._kept = kind.kept(self.env, config) if kind.kept else None  # a dataset may be gone by now

    def __repr__(self) -> str:
        return (
            f"Result({self.config.agent} on {self.config.task}, {len(self.config.seeds)} seeds, return "
            f"{np.mean(self.returns):.4g} after {self.curve['steps'][-1]:,} {self.config.unit}, in "
            f"{self.folder})"
        )

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        return _read(self.folder / "summary.json")

    @cached_property
    def curve(self) -> dict[str, np.ndarray]:
        """`steps [snapshots]` of a seed, `config.unit`, and `returns [snapshots, seeds]` without chance."""
        done = _read(self.folder / "stages" / "evaluate" / "done.json")["summary"]
        return {name: np.array(done[name]) for name in ("steps", "returns")}

    @property
    def returns(self) -> np.ndarray:
        """Mean returns `[seeds]` of the last snapshot."""
        return self.curve["returns"][-1]

    @cached_property
    def params(self) -> Any:
        """What acts after the last update, leaves `[seeds, ...]`."""
        return agents.last(self._fit.load(self.folder, self._kept))

    @property
    def report(self) -> Path:
        """The page of the run."""
        return self.folder / "report.html"

    def policy(self, seed: int | None = None) -> library.LoadedPolicy:
        """The policy of a seed, by default of the best: it has `init`, `act` and `export`."""
        place = self._place(seed)
        returns = {
            "mean": float(self.returns[place]),
            "episodes": self.config.episodes,
            "after": f"{self.curve['steps'][-1]:,} {self.config.unit}",
        }
        about = library.describe(
            self.env,
            self.task,
            arm=self.config.agent,
            task=self.config.task,
            overrides=dict(self.config.change),
            seed=list(self.config.seeds)[place],
            precision=self.config.runtime.matmul_precision,
            recipe=to_dict(self.config),
            returns=returns,
            reads=kind_of(self.config).reads,
        )
        params = jax.tree.map(jnp.asarray, agents.take(self.params, place))
        return library.LoadedPolicy(about, self._policy, params)

    def evaluate(self, episodes: int = 64, seed: int = 0) -> np.ndarray:
        """Mean returns `[seeds]` of the last snapshot over new episodes, the same for all of them."""
        key = keys.derive(seed, f"evaluate again/{self.config.env}")
        arena = kind_of(self.config).arena(self.env, self.task, self.config.seeds, episodes, key)
        with jax.default_matmul_precision(self.config.runtime.matmul_precision):  # as it was trained
            return arena.returns(self._policy, self.params)

    def render(self, file: str | Path, seed: int | None = None) -> Path:
        """Play one episode and write it as `file`, a GIF."""
        path = Path(file)
        if path.suffix != ".gif":
            raise ValueError(f"file: got {path}, expected a name that ends in .gif.")
        params = agents.take(self.params, self._place(seed))
        with tempfile.TemporaryDirectory() as place:
            told = self.config.agent, self.env, self._policy, params, self.task, keys.derive(0, "render")
            made = kind_of(self.config).film(Path(place), *told)
            path.parent.mkdir(parents=True, exist_ok=True)
            return Path(shutil.move(made, path))

    def plot(self, file: str | Path) -> Path:
        """Write the curve as a picture, .png, .svg or .pdf: mean return of each seed, and of all."""
        path, steps, returns = Path(file), self.curve["steps"], self.curve["returns"]
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot(steps, returns, color="tab:blue", alpha=0.35, linewidth=1)
        axes.plot(steps, returns.mean(axis=1), color="tab:blue", linewidth=2)
        axes.set(
            xlabel=self.config.unit,
            ylabel=kind_of(self.config).score,
            title=f"{self.config.agent} on {self.config.env}",
        )
        axes.spines[["top", "right"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
        return path

    def record(self, folder: str | Path, episodes: int = 32, seed: int | None = None) -> Path:
        """Play whole episodes without chance and write them as a new store, which `jaxagent.data.load` reads.

        `seed` is of the training, by default the best's. Raises `NotOurs` for a folder that holds something,
        ValueError where an episode has no end within the task's time limit.
        """
        if self.env.num_players != 1:
            raise ValueError(
                f"record: got {self.env.name}, a game of two, expected one player; a store has no sides."
            )
        folders.check_new(Path(folder), "store")
        place = self._place(seed)
        params = agents.take(self.params, slice(place, place + 1))
        limit = getattr(self.task, "max_steps", self.env.max_steps)  # of the task, which `change` may move
        steps, key = int(np.max([limit, self.env.max_steps])), keys.derive(0, f"record/{self.config.env}")
        with jax.default_matmul_precision(self.config.runtime.matmul_precision):
            played = histories.roll_out(self.env, self._policy, params, self.task, episodes, steps, key)
        whole = histories.first_episodes(agents.take(played, 0))
        if len(whole) < episodes:  # to leave out the longest would bias what is learned of the rest
            raise ValueError(
                f"record: got {len(whole)} of {episodes} episodes of {self.env.name} that end within {steps} "
                "steps, expected all; give the environment a time limit, as `max_steps` of its task."
            )
        flat = jax.tree.map(lambda *x: np.concatenate([y[:, 0] for y in x]), *whole)
        meta = {"source": str(self.folder), "env": self.config.env, "agent": self.config.agent}
        return store.write(Path(folder), foreign_arrays.shards(flat, meta, foreign_arrays.SHARD_STEPS))

    def save(self, folder: str | Path) -> Path:
        """Copy the run to a new folder, which `load` opens."""
        folders.check_new(Path(folder), "run")
        return Path(shutil.copytree(self.folder, folder, dirs_exist_ok=True))

    def _place(self, seed: int | None) -> int:
        seeds = list(self.config.seeds)
        if seed is None:
            return int(np.argmax(self.returns))
        if seed not in seeds:
            raise ValueError(f"seed: got {seed}, expected one of {seeds}, which were trained.")
        return seeds.index(seed)


def learn(
    agent: str,
    env: Any,
    *,
    out: str | Path | None = None,
    quiet: bool = False,
    logger: str | Sequence[str] = (),
    **changes: Any,
) -> Result:
    """Train `agent` on the environment `env`; `changes` are of `TrainConfig` or of the agent's settings.

    `env` is an id, a place `module:attribute`, or an environment itself, ours, gymnax's or gymnasium's,
    alone or with its task, or a function that makes one; a run on an object is not opened or continued, as
    no name leads to it. The run lies in `out`, where it goes on if it was stopped and is opened if it was
    finished; without `out` it lies in a folder that is deleted with the process. `logger` names trackers that
    follow it (`jaxagent.report.loggers`). Raises `UnknownName` for an agent, environment or setting that is
    none, ValueError for what the agent cannot read, `NotOurs` where something else lies in `out`.
    """
    _check_obeyed(changes.get("runtime"))
    config = recipe(agent, _named(env), **changes)
    call = _called("learn", agent, config.env, changes)
    about = _manifest(config, call, logger)
    return Result(_carried_out(config, studies.study(config), about, out, quiet), config)


class SweepResult:
    """A finished sweep: what each combination of settings reached."""

    def __init__(self, folder: Path, config: Any) -> None:
        """The run in `folder`, which `config` made."""
        self.folder, self.config = folder, config

    def __repr__(self) -> str:
        return "\n".join([f"SweepResult in {self.folder}", *sweeps.ranked(self.ranking)])

    @cached_property
    def ranking(self) -> list[dict[str, Any]]:
        """Combinations, best first: name, mean, interval over seeds, whether the best is apart from it."""
        return _read(self.folder / "summary.json")["ranking"]

    @property
    def best(self) -> dict[str, float]:
        """The settings of the best mean, to be passed to `learn` with other seeds."""
        return self.config.combinations[self.ranking[0]["name"]]

    @property
    def report(self) -> Path:
        """The page of the run."""
        return self.folder / "report.html"


def sweep(
    agent: str,
    env: Any,
    grid: Mapping[str, Sequence[float]],
    *,
    out: str | Path | None = None,
    quiet: bool = False,
    logger: str | Sequence[str] = (),
    at_once: int = 64,
    **changes: Any,
) -> SweepResult:
    """Train all combinations of a `grid` of the agent's numbers, as lanes of one program; else as `learn`.

    `at_once` agents share one program, and its memory. Raises ValueError for a number that decides what
    the program is.
    """
    _check_obeyed(changes.get("runtime"))
    train = recipe(agent, _named(env), **changes)
    config = SweepConfig(train, tuple((f, tuple(map(float, v))) for f, v in grid.items()), at_once)
    call = _called("sweep", agent, train.env, {"grid": dict(config.grid), "at_once": at_once, **changes})
    about = _manifest(config, call, logger)
    return SweepResult(_carried_out(config, sweeps.study(config), about, out, quiet), config)


class TuneResult(SweepResult):
    """A finished search of settings."""

    def __repr__(self) -> str:
        return "\n".join([f"TuneResult in {self.folder}", *sweeps.ranked(self.ranking)])

    @property
    def best(self) -> dict[str, float]:
        """The settings of the best mean, to be passed to `learn` with other seeds."""
        return self.ranking[0]["values"]


def tune(
    agent: str,
    env: Any,
    space: Mapping[str, tuple[float, float]],
    *,
    trials: int = 32,
    at_once: int = 8,
    out: str | Path | None = None,
    quiet: bool = False,
    logger: str | Sequence[str] = (),
    **changes: Any,
) -> TuneResult:
    """Search a `space` of the agent's numbers, from and to, by optuna's TPE; else as `learn`.

    Trials of a round, `at_once`, are lanes of one program; what a round tries depends on those before. A
    range whose ends are ten times apart is drawn from by its logarithm. Raises `MissingExtra` without the
    extra `optuna`, ValueError for a number that decides what the program is.
    """
    _check_obeyed(changes.get("runtime"))
    train = recipe(agent, _named(env), **changes)
    config = TuneConfig(
        train, tuple((f, (float(a), float(b))) for f, (a, b) in space.items()), trials, at_once
    )
    asked = {"space": dict(config.space), "trials": trials, "at_once": at_once, **changes}
    call = _called("tune", agent, train.env, asked)
    about = _manifest(config, call, logger)
    return TuneResult(_carried_out(config, tunes.study(config), about, out, quiet), config)


def _check_obeyed(runtime: RuntimeConfig | None) -> None:
    """Raise ValueError for a part of a given `runtime` that a call from Python would not obey."""
    if runtime is None:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    level = f"optimization_level={runtime.optimization_level}"
    obeyed = {
        "deterministic": not runtime.deterministic or "deterministic" in flags,
        "optimization_level": runtime.optimization_level == 3 or level in flags,  # 3 is XLA's own
        "lanes_in_turn": not runtime.lanes_in_turn,
        "needs_accelerator": not runtime.needs_accelerator,
    }
    for name, is_obeyed in obeyed.items():
        if not is_obeyed:
            raise ValueError(
                f"RuntimeConfig.{name}: got {getattr(runtime, name)}, expected what a running process "
                "can obey; leave it out, or where it is a flag of XLA set XLA_FLAGS before JAX starts."
            )


def _called(function: str, agent: str, env: str, changes: Mapping[str, Any]) -> str:
    """A call as it may be typed again."""
    given = [repr(agent), repr(env), *(f"{name}={value!r}" for name, value in changes.items())]
    return f"jaxagent.{function}({', '.join(given)})"


def _carried_out(
    config: AnyConfig, study: Any, about: dict[str, Any], out: str | Path | None, quiet: bool
) -> Path:
    """The folder of a run that is finished now, whatever was of it before."""
    if out is not None and config.train.env.startswith(f"{OWN}/") and folders.kind_of(Path(out)):
        raise folders.NotOurs(
            f"{out}: got a run that may be of another object, expected no folder; give the environment a "
            "name (`envs.register`), or choose another `out`."
        )
    place = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="jaxagent-")) / "run"
    if out is None:
        atexit.register(shutil.rmtree, place.parent, ignore_errors=True)
    runtime = config.runtime
    with jax.default_matmul_precision(runtime.matmul_precision):
        if folders.kind_of(place) is None:
            with folders.begin(place, about):
                execution.execute(place, study, runtime, quiet=quiet)
        else:
            _check_same(place, config)
            before = manifest.read(place)
            new = [name for name in about["loggers"] if name not in before.get("loggers", ())]
            is_finished = (place / "summary.json").exists()
            if not is_finished:
                manifest.check_same_machine(place, about)
            if new or not is_finished:
                with folders.hold(place, "run"):
                    old = before.get("loggers", [])
                    write_json(place / folders.MANIFEST, before | {"loggers": [*old, *new]})
                    if is_finished:
                        trackers.export(new, place)
                    else:
                        execution.execute(place, study, runtime, quiet=quiet, told_before=old)
    return place


def _named(env: Any) -> str:
    if isinstance(env, str):
        return env
    of = env[0] if isinstance(env, tuple) else env
    spec = getattr(of, "spec", None)  # of gymnasium, whose objects are wrappers
    name = f"{OWN}/{getattr(spec, 'id', None) or (of if isinstance(of, type) else type(of)).__name__}"
    envs.register(name, env)
    return name


def load(folder: str | Path) -> Result | SweepResult | library.LoadedPolicy:
    """Open a finished run of `learn` or `sweep`, or a policy that was exported.

    Raises `NotOurs` for another folder, ValueError for another run, or one on an environment without a name.
    """
    place = Path(folder)
    if (place / library.POLICY).is_file():
        return library.load(place)
    folders.check_ours(place, "run")
    about = _read(place / folders.MANIFEST)
    kind, _, rest = about["source"].partition("/")
    if kind not in KIND_OF.values():
        raise ValueError(
            f"{place}: got a run of {about['source']}, expected one of `jaxagent train`, sweep or tune."
        )
    if f"/{OWN}/" in f"/{rest}":
        raise ValueError(f"{place}: got a run on an object, expected a name; see `envs.register`.")
    if not (place / "summary.json").exists():
        raise ValueError(f"{place}: got an unfinished run, expected a finished one; resume it.")
    config = from_dict(config_of(about["source"]), about["config"])
    return RESULTS[kind](place, config)


RESULTS = {"train": Result, "sweep": SweepResult, "tune": TuneResult}


def is_training(folder: Path) -> bool:
    """Whether a folder is a run of `learn`."""
    return folders.kind_of(folder) == "run" and manifest.read(folder)["source"].startswith(f"{SOURCE}/")


def _manifest(config: AnyConfig, call: str, logger: str | Sequence[str]) -> dict[str, Any]:
    loggers = [logger] if isinstance(logger, str) else list(logger)
    check_loggers(loggers)
    source, train = source_of(config), config.train
    about = manifest.describe(source.split("/")[0], source, PRESET, config, call)
    about["precision"] = train.runtime.matmul_precision
    return about | {"seeds": [[train.seeds.first, train.seeds.count]], "loggers": loggers}


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _check_same(place: Path, config: TrainConfig | SweepConfig) -> None:
    found = manifest.read(place)["fingerprint"] if folders.kind_of(place) == "run" else "no run"
    if found != fingerprint(config):
        raise folders.NotOurs(
            f"{place}: got configuration {found}, expected {fingerprint(config)} of this call; choose "
            "another `out`, or delete that folder."
        )
