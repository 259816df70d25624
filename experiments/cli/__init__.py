"""The command `jaxagent`: train, sweep, run, freeze, ablate, resume, eval, report, compare and so on.

Everything is parsed and checked before JAX is imported: names, fields and presets come from static
tables, flags of XLA are set here and nowhere else. Exit codes: 0 done, 1 failed, 2 wrong usage,
3 the run folder is in use, 130 / 143 stopped by SIGINT / SIGTERM at a chunk border.
"""

import argparse
import dataclasses
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from envs.common.names import MissingExtra, UnknownName, check_name
from envs.registry import check_env, registered
from experiments.cli import grids, rooms
from jaxagent import folders
from jaxagent.api.config import AGENTS, AnyConfig, SweepConfig, TuneConfig, config_of, recipe, source_of
from jaxagent.config import check, fingerprint, from_dict
from jaxagent.folders import Locked, NotOurs
from jaxagent.report.loggers import check_loggers
from jaxagent.study.config import SeedConfig

RUNS = Path("runs")
USAGE, FAILED, BUSY = 2, 1, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments, rest = _parser().parse_known_args(argv)
    arguments.rest = rest  # flags of the configuration
    arguments.given = list(argv if argv is not None else sys.argv[1:])
    try:
        if rest and arguments.do not in (_run, _train, _ablate):
            command = f"jaxagent {arguments.command}"
            raise UsageError(f"got unknown arguments {rest}; see {command} --help")
        return arguments.do(arguments)
    except (UnknownName, UsageError, MissingExtra, NotOurs) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # whoever reads has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class UsageError(ValueError):
    """The command line asks for something illegal."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jaxagent", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    switch, folder = {"action": "store_true"}, {"type": Path, "help": "run folder"}
    logger = {"action": "append", "default": [], "help": "tensorboard, wandb, mlflow or trackio; repeat it"}
    devices = {"type": int, "help": "devices of this host to use (1, 2 or 4)"}
    differing = "with a fingerprint where flags differ"

    def add(
        name: str, text: str, do: Callable[[argparse.Namespace], int], **options: Any
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, **options)
        command.set_defaults(do=do, usage=command.format_help)
        return command

    add("list", "experiments and environments", _list)
    preset = {"help": "see jaxagent list (default cpu, or the first of real size)"}
    named = {"help": "experiment, see jaxagent list, or a folder with config.py and study.py"}
    run = add("run", "run an experiment; --SECTION.FIELD VALUE changes it", _run, add_help=False)
    run.add_argument("-h", "--help", **switch, help="show this; behind a NAME all of its fields")
    run.add_argument("name", nargs="?", **named)
    run.add_argument("--preset", **preset)
    run.add_argument("--out", type=Path, help=f"run folder (default runs/NAME-PRESET, {differing})")
    run.add_argument("--devices", **devices)
    run.add_argument("--dry-run", **switch, help="print the cost and stop")
    run.add_argument("--overwrite", **switch, help="replace a run of ours, once this one is finished")
    run.add_argument("--logger", **logger)
    train = add("train", "train an agent on an environment; --FIELD VALUE changes it", _train, add_help=False)
    sweep = add("sweep", "train it under FIELD=A,B ..., all at once", _train, add_help=False)
    tune = add("tune", "search settings by optuna, FIELD=LOW:HIGH ...", _train, add_help=False)
    tune.add_argument("--trials", type=int, default=32, help="settings that are tried")
    tune.add_argument("--at-once", type=int, default=8, help="trials in one program, a round of the search")
    for parser_of in (train, sweep, tune):
        _add_training(parser_of, switch, devices, logger)
    sweep.add_argument(
        "--at-once", type=int, default=64, help="agents in one program, which share its memory"
    )
    add("new", "write a study of your own, two files that run", _new).add_argument(
        "path", type=Path, help="a new folder, whose name Python can import"
    )
    freeze = add("freeze", "write what a preset claims, to be committed before its claim seeds run", _freeze)
    freeze.add_argument("name", help="experiment")
    freeze.add_argument("preset", help="whose claims, seeds and settings")
    freeze.add_argument("--development", type=Path, required=True, help="a finished run on seeds 1000 and up")
    freeze.add_argument("--why", default="", help="where claims were frozen before: why they change")
    ablate = add("ablate", "run a grid of changes: NAME FIELD=A,B FIELD=C,D", _ablate, add_help=False)
    ablate.add_argument("-h", "--help", **switch, help="show this; behind a NAME all fields that may change")
    ablate.add_argument("name", nargs="?", **named)
    ablate.add_argument("--arm", help="that cells are judged by (default: the experiment's, or its first)")
    ablate.add_argument("--preset", **preset)
    ablate.add_argument("--out", type=Path, help=f"folder (default runs/ablate-NAME-PRESET, {differing})")
    ablate.add_argument("--overwrite", **switch, help="replace a whole grid of ours")
    ablate.add_argument("--only", action="append", default=[], help="a cell; repeat for several")
    ablate.add_argument("--devices", **devices)
    ablate.add_argument("--dry-run", **switch, help="say what each cell changes and costs, and stop")
    add("resume", "continue a run exactly where it stopped", _resume).add_argument("run", **folder)
    evaluate = add("eval", "play the policies of a run again", _eval)
    evaluate.add_argument("run", **folder)
    evaluate.add_argument("--episodes", type=int, default=64)
    evaluate.add_argument("--seed", type=int, default=0)
    report = add("report", "write report.html of a run, finished or not", _report)
    report.add_argument("run", **folder)
    report.add_argument("--out", type=Path, help="write the page to a new .html instead")
    report.add_argument("--logger", **logger)
    compare = add("compare", "write a page of several runs: curves, scores, what differs", _compare)
    compare.add_argument("runs", type=Path, nargs="+", help="run folders, finished or not")
    compare.add_argument("--out", type=Path, help="page, .html (default runs/compare.html)")
    render = add("render", "play an environment and write a GIF", _render)
    render.add_argument("env", nargs="?", help="environment, see jaxagent list")
    render.add_argument("--out", type=Path, help="file, .gif or .png (default runs/ENV.gif)")
    render.add_argument("--overwrite", **switch, help="replace the file of --out")
    render.add_argument("--policy", default="random", help="random, expert, a run or an exported policy")
    render.add_argument("--steps", type=int, default=200, help="env steps to play")
    render.add_argument("--seed", type=int, default=0)
    render.add_argument("--sheet", **switch, help="all families on one picture")
    add("doctor", "check this installation", _doctor)
    return parser


def _add_training(parser: argparse.ArgumentParser, *options: dict[str, Any]) -> None:
    """What training and sweeps are asked alike; `options` are of switches, devices and loggers."""
    switch, devices, logger = options
    parser.add_argument("-h", "--help", **switch, help="show this; behind an agent and an ENV all settings")
    parser.add_argument("agent", nargs="?", help=f"one of {', '.join(AGENTS)}")
    parser.add_argument("env", nargs="?", help="environment, see jaxagent list, or MODULE:NAME")
    parser.add_argument("--seeds", type=int, default=1, help="agents that are trained, each by its own seed")
    parser.add_argument("--seed", type=int, default=0, help="of the first of them")
    parser.add_argument("--memory", default="none", help="none, stack, gru, lru or transformer")
    parser.add_argument(
        "--dataset", help="of td3_bc, iql, bc, sequence: a store, Minari's folder, .hdf5, .npz"
    )
    parser.add_argument("--begin", help="of sequence: the run whose model is tuned")
    parser.add_argument("--set", action="append", default=[], metavar="NUMBER=VALUE", help="of the env")
    parser.add_argument("--episodes", type=int, default=32, help="of each snapshot and seed")
    parser.add_argument("--out", type=Path, help="run folder (default runs/train-AGENT-ENV-FINGERPRINT)")
    parser.add_argument("--devices", **devices)
    parser.add_argument("--dry-run", **switch, help="print the cost and stop")
    parser.add_argument("--overwrite", **switch, help="replace a run of ours, once this one is finished")
    parser.add_argument("--logger", **logger)


def _list(arguments: argparse.Namespace) -> int:
    del arguments
    for name in rooms.names():
        module = rooms.room(name).config
        print(f"experiment   {name:28s} [{', '.join(module.PRESETS)}]  {module.DESCRIPTION}")
    for env_id in registered():
        print(f"environment  {env_id}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    if _is_asked_for_help(arguments):
        return 0
    room, config = _configure(arguments)
    out = arguments.out or _default_out(room.name, arguments.preset, room, config)
    return _begin(arguments, room, arguments.preset, config, out, _command(arguments))


def _begin(
    arguments: argparse.Namespace, room: Any, preset: str, config: Any, out: Path, command: str
) -> int:
    """Begin a run, or say what it would cost."""
    if not arguments.dry_run:
        folders.check_new(out, "run", replace=arguments.overwrite)
    check_loggers(arguments.logger)
    _prepare_jax(config, out)
    from experiments.cli import session

    if arguments.dry_run:
        return session.dry_run(room, config)
    options = {"loggers": arguments.logger, "replace": arguments.overwrite}
    return session.start(room, preset, config, out, command, **options)


def _train(arguments: argparse.Namespace) -> int:
    """Train one agent, or under all values of a grid."""
    if not arguments.agent or not arguments.env:
        print(arguments.usage())
        if arguments.help:
            return 0
        raise UsageError("got no agent and environment, expected these first: ppo classic/CartPole-v1.")
    check_env(arguments.env)
    try:
        config = _trained(arguments)
    except ValueError as error:
        raise UsageError(error.args[0]) from error
    room = rooms.room(source_of(config))
    given = [arguments.agent, _slug(arguments.env), fingerprint(config)[:8]]
    out = arguments.out or RUNS / "-".join([arguments.command, *given])
    return _begin(arguments, room, "cpu", config, out, shlex.join(["jaxagent", *arguments.given]))


def _trained(arguments: argparse.Namespace) -> AnyConfig:
    """The recipe of an agent and an environment with what flags change, and the grid of a sweep."""
    import tyro

    grid, flags = _grid_and_flags(arguments.rest)
    if arguments.help:
        print(arguments.usage())
        flags = ["--help"]
    given = {name: getattr(arguments, name) for name in ("dataset", "begin")}
    if arguments.help:  # without the dataset that some need
        made = config_of(f"train/{check_name('agent', arguments.agent, AGENTS)}/{arguments.env}").train
    else:
        made = recipe(arguments.agent, arguments.env, **{name: text for name, text in given.items() if text})
    prog, about = f"jaxagent {arguments.command} {made.agent} {made.env}", AGENTS[made.agent]
    config = dataclasses.replace(
        made,
        fit=tyro.cli(type(made.fit), default=made.fit, args=flags, prog=prog, description=about),
        change=tuple((name, _number(name, value)) for name, _, value in map(_halves, arguments.set)),
        memory=arguments.memory,
        seeds=SeedConfig(arguments.seed, arguments.seeds),
        episodes=arguments.episodes,
    )
    config = _on_devices(config, arguments)
    if arguments.command == "train":
        if grid:
            raise UsageError(f"got {grid}, expected no grid; use jaxagent sweep.")
        return config
    axes = ((name.replace("-", "_"), values.split(",")) for name, _, values in map(_halves, grid))
    if arguments.command == "tune":
        return TuneConfig(config, _space(grid), arguments.trials, arguments.at_once)
    numbers = tuple((name, tuple(_number(name, value) for value in values)) for name, values in axes)
    return SweepConfig(config, numbers, arguments.at_once)


def _space(grid: list[str]) -> tuple[tuple[str, tuple[float, float]], ...]:
    """Fields with their ends, of texts FIELD=LOW:HIGH."""
    space = []
    for name, _, text in map(_halves, grid):
        low, _, high = text.partition(":")
        field = name.replace("-", "_")
        space.append((field, (_number(field, low), _number(field, high))))
    return tuple(space)


def _grid_and_flags(rest: list[str]) -> tuple[list[str], list[str]]:
    """Texts `FIELD=A,B`, and all others."""
    grid = [text for text in rest if "=" in text and not text.startswith("-")]
    return grid, [text for text in rest if text not in grid]


def _on_devices(config: Any, arguments: argparse.Namespace) -> Any:
    """A configuration that runs on as many devices as are asked for."""
    if arguments.devices is None:
        return config
    runtime = dataclasses.replace(config.runtime, devices=arguments.devices)
    return dataclasses.replace(config, runtime=runtime)


def _halves(text: str) -> tuple[str, str, str]:
    return text.partition("=")


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{name}: got {text!r}, expected a number.") from None


def _new(arguments: argparse.Namespace) -> int:
    for path in rooms.new(arguments.path):
        print(path)
    shown = arguments.path if arguments.path.is_absolute() else f"./{arguments.path}"
    print(f"\njaxagent run {shown} --preset smoke    # seconds\njaxagent run {shown}                   # cpu")
    return 0


def _freeze(arguments: argparse.Namespace) -> int:
    _manifest(arguments.development, "run")
    if not (arguments.development / "summary.json").is_file():
        raise UsageError(
            f"{arguments.development}: got an unfinished run, expected a finished one; resume it."
        )
    room = rooms.room(arguments.name)
    config = rooms.preset(room, arguments.preset)
    _prepare_jax(config, arguments.development)
    from experiments.cli import session

    return session.freeze(room, arguments.preset, config, arguments.development, arguments.why)


def _is_asked_for_help(arguments: argparse.Namespace) -> bool:
    """Whether help was asked for, which is printed: of the command, or of an experiment's fields.

    Raises UsageError where no experiment is named.
    """
    if arguments.help:
        print(arguments.usage())
        if arguments.name:
            room = rooms.room(arguments.name)
            presets, preset = ", ".join(room.config.PRESETS), arguments.preset or rooms.default_preset(room)
            print(f"Presets of {room.name}: {presets}. Defaults below are of {preset!r}.\n")
            _parsed(arguments, ["--help"])
        return True
    if not arguments.name:
        raise UsageError(f"got no experiment, expected one of {', '.join(rooms.names())}.")
    return False


def _ablate(arguments: argparse.Namespace) -> int:
    if _is_asked_for_help(arguments):
        return 0
    changes, arguments.rest = _grid_and_flags(arguments.rest)
    room, config = _configure(arguments)
    if not changes and not hasattr(room.config, "ablations"):
        raise UsageError(f"{room.name}: got no grid, expected FIELD=A,B, as it has none of its own.")
    try:
        grid = grids.cells(changes, config, partial(_changed, arguments)) or room.config.ablations(config)
        for cell in grid.values():
            check(cell)
    except ValueError as error:
        raise UsageError(error.args[0]) from error
    only, replace = arguments.only, arguments.overwrite
    for cell in only:
        check_name(f"cell of {room.name}", cell, grid)
    cells = {name: cell for name, cell in grid.items() if not only or name in only}
    name = "-".join(["ablate", room.name, *(_slug(text) for text in changes)])
    out = arguments.out or _default_out(name, arguments.preset, room, config)
    if not arguments.dry_run:
        grids.check(out, config, grid, replace=replace, is_whole=not only)
    _prepare_jax(config, out)
    from experiments.cli import ablation

    if arguments.dry_run:
        return ablation.dry_run(room, config, cells)
    command = shlex.join([_command(arguments), *changes])
    options = {"replace": replace, "arm": arguments.arm}
    return ablation.run(room, arguments.preset, config, grid, cells, out, command, **options)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=,-]+", "-", text)


def _changed(arguments: argparse.Namespace, config: Any, field: str, text: str) -> Any:
    """A configuration with a field as its flag would set it."""
    return _parsed(arguments, [f"--{field.replace('_', '-')}", *shlex.split(text)], config)


def _default_out(name: str, preset: str, room: rooms.Room, config: Any) -> Path:
    """Where a run goes that names no folder: one place for every configuration."""
    is_preset = config == room.config.PRESETS[preset]
    return RUNS / (f"{name}-{preset}" + ("" if is_preset else f"-{fingerprint(config)[:8]}"))


def _configure(arguments: argparse.Namespace) -> tuple[rooms.Room, Any]:
    """The room that is asked for, and its preset with the changes of the flags, checked."""
    room, config = rooms.room(arguments.name), _parsed(arguments, arguments.rest)
    try:
        config = _on_devices(config, arguments)
        check(config)
    except (ValueError, KeyError) as error:
        raise UsageError(error.args[0]) from error
    return room, config


def _parsed(arguments: argparse.Namespace, flags: list[str], config: Any = None) -> Any:
    """A configuration with what flags change, by default the preset that is asked for or runs unasked."""
    import tyro

    room = rooms.room(arguments.name)
    arguments.preset = arguments.preset or rooms.default_preset(room)
    default = rooms.preset(room, arguments.preset) if config is None else config
    prog, about = f"jaxagent {arguments.command} {arguments.name}", room.config.DESCRIPTION
    return tyro.cli(room.config.Config, default=default, args=flags, prog=prog, description=about)


def _command(arguments: argparse.Namespace) -> str:
    """What was asked, to be typed again; what only says how a folder is met is left out."""
    flags = ["--preset", arguments.preset]
    flags += ["--out", str(arguments.out)] if arguments.out else []
    flags += ["--devices", str(arguments.devices)] if arguments.devices else []
    return shlex.join(["jaxagent", arguments.command, arguments.name, *flags, *arguments.rest])


def _prepare_jax(config: Any, out: Path) -> None:
    """Set what JAX reads when it starts; a flag that the user set stays."""
    flags = os.environ.get("XLA_FLAGS", "")
    if config.runtime.devices > 1 and "device_count" not in flags:
        # Only the CPU platform reads this one: fake devices for a machine without accelerators.
        flags += f" --xla_force_host_platform_device_count={config.runtime.devices}"
    if config.runtime.deterministic and "deterministic" not in flags:
        flags += " --xla_gpu_deterministic_ops=true"
    if config.runtime.optimization_level != 3 and "optimization_level" not in flags:
        flags += f" --xla_backend_optimization_level={config.runtime.optimization_level}"
        # An MLIR context for each program: a third of the compilation, and code no faster. Later there is
        # no such flag any more, and an unknown one is fatal.
        if "fusion_emitters" not in flags and version("jaxlib").startswith("0.10."):
            flags += " --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = flags.strip()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str((out.parent / ".cache").absolute()))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", config.runtime.matmul_precision)


def _resume(arguments: argparse.Namespace) -> int:
    manifest = _manifest(arguments.run, "run")
    room = rooms.room(manifest["source"])
    config = from_dict(rooms.preset(room, manifest["preset"]), manifest["config"])
    if manifest["command"].startswith("jaxagent."):  # a call of Python, which sets no flags
        os.environ["XLA_FLAGS"] = manifest["xla_flags"]
        os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", config.runtime.matmul_precision)
    else:
        _prepare_jax(config, arguments.run)
    from experiments.cli import session

    return session.resume(room, arguments.run, config)


def _manifest(run: Path, *kinds: str) -> dict[str, Any]:
    """The manifest of a folder of ours of one of these kinds."""
    if kinds == ("run",) and folders.kind_of(run) == "grid":
        raise UsageError(
            f"{run}: got a grid; repeat its `jaxagent ablate` to continue it, or pass "
            f"one of the runs in {run / 'cells'}."
        )
    folders.check_ours(run, *kinds)
    return json.loads((run / folders.MANIFEST).read_text())


def _eval(arguments: argparse.Namespace) -> int:
    _manifest(arguments.run, "run")
    if arguments.episodes < 1:
        raise UsageError(f"--episodes: got {arguments.episodes}, expected at least 1.")
    from experiments.cli import session

    return session.evaluate(arguments.run, arguments.episodes, arguments.seed)


def _report(arguments: argparse.Namespace) -> int:
    run, page, loggers = arguments.run, arguments.out, arguments.logger
    _manifest(run, "run", "grid")
    if page is not None:
        is_new = not os.path.lexists(page) and folders.enclosing(page) is None
        if page.suffix != ".html" or not is_new or loggers:
            expected = "the name of a new .html file outside of runs, without --logger"
            raise UsageError(f"--out: got {page}, expected {expected}.")
    check_loggers(loggers)
    from jaxagent.report.html import write_report

    if page is not None:  # of a run that may be at work: nothing is written into its folder
        print(write_report(run, page))
        return 0
    try:
        with folders.hold(run, "run", "grid"):
            print(write_report(run))
            if loggers:
                from jaxagent.report.trackers import export

                export(loggers, run)
    except Locked as error:
        print(f"error: {error} Or look at it as it goes: --out page.html", file=sys.stderr)
        return BUSY
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    runs, page = arguments.runs, arguments.out or RUNS / "compare.html"
    if len(runs) < 2:
        raise UsageError(f"got {len(runs)} run, expected at least two; of one, see jaxagent report.")
    for run in runs:
        _manifest(run, "run")
    from jaxagent.report.comparison import is_comparison, write_comparison

    is_free = not os.path.lexists(page) or is_comparison(page)
    if page.suffix != ".html" or not is_free or folders.enclosing(page) is not None:
        raise UsageError(f"--out: got {page}, expected the name of a new .html file, or of such a page.")
    print(write_comparison(runs, page))
    return 0


def _render(arguments: argparse.Namespace) -> int:
    out = arguments.out
    if not arguments.sheet:
        check_env(arguments.env or "")
        out = out or RUNS / f"{arguments.env.replace('/', '-')}.gif"
        if out.suffix not in (".gif", ".png"):
            raise UsageError(f"--out: got {out}, expected a name that ends in .gif or .png.")
        if arguments.steps < 1:
            raise UsageError(f"--steps: got {arguments.steps}, expected at least 1.")
    if arguments.out and not arguments.overwrite and os.path.lexists(arguments.out):
        raise UsageError(f"--out: {arguments.out} exists; choose another, or pass --overwrite.")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str((RUNS / ".cache").absolute()))
    from experiments import render

    if arguments.sheet:
        return render.sheet(out or render.SHEET)
    return render.render(arguments.env, out, arguments.policy, arguments.steps, arguments.seed)


def _doctor(arguments: argparse.Namespace) -> int:
    del arguments
    from experiments import doctor

    return doctor.main()
