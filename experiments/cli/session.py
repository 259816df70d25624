"""Sessions: what the command line does once JAX may start."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.vector import broadcast_params
from experiments import results, runs
from experiments.cli import BUSY, FAILED, USAGE
from experiments.cli.rooms import Room, code_of
from jaxagent import folders, keys, library
from jaxagent.api import learning
from jaxagent.api.sweep import ranked
from jaxagent.evaluate import emulator, statistics
from jaxagent.evaluate.claims import check_claims, check_preset
from jaxagent.evaluate.episodes import play
from jaxagent.files import write_json
from jaxagent.folders import Locked, NotOurs
from jaxagent.report.fields import standing_of
from jaxagent.study import registration
from jaxagent.study.execution import ENDS, execute
from jaxagent.study.study import Study, costs
from jaxagent.study.verdicts import table
from jaxagent.train import manifest
from jaxagent.train.peak import matmul_rate

FROZEN = manifest.ROOT / "experiments" / "frozen"


def start(
    room: Room,
    preset: str,
    config: Any,
    out: Path,
    command: str,
    *,
    loggers: Sequence[str] = (),
    replace: bool = False,
    within: Path | None = None,
) -> int:
    """Begin a run in a new folder, or one that replaces an older run; returns the exit code.

    The folder is held from before it is touched until its report is written. What can be refused
    is refused before. `within` is the grid whose cell this is.
    """

    def begin() -> None:
        study = _study(room, preset, config)
        about = manifest.describe(room.name, room.source, preset, config, command)
        asked = registration.asked(room.name, preset, config, study)
        about["frozen"] = registration.status(frozen_place(room, preset), asked, code_of(room))
        about |= {"seeds": asked["seeds"], "loggers": list(loggers), "asks": room.config.DESCRIPTION}
        machine = f"{config.runtime.matmul_precision}, {config.runtime.devices} of {jax.devices()}"
        with folders.begin(out, about, replace=replace, within=within):
            print(
                f"{room.name} ({preset}) in {out}, config {about['fingerprint']}, matmul precision {machine}"
                f"; {standing_of(about)}"
            )
            _go_on(out, config, study)

    return _exit_code(begin)


def frozen_place(room: Room, preset: str) -> Path:
    """The file of a preset's frozen claims: in this repository, or in the folder of a room outside."""
    if room.is_outside:
        return Path(room.source) / "frozen" / f"{preset}.json"
    return FROZEN / f"{room.name}-{preset}.json"


def freeze(room: Room, preset: str, config: Any, development: Path, why: str) -> int:
    """Write the frozen claims of a preset, with the scores of a finished run on development seeds."""

    def work() -> None:
        study, place = _study(room, preset, config), frozen_place(room, preset)
        what = registration.asked(room.name, preset, config, study)
        run = json.loads((development / "summary.json").read_text())
        rows = [row for row in results.read() if row["experiment"] == room.name]
        seen = [pair for row in rows for pair in row["seeds"]]
        lines = registration.freeze(place, config, what, study, run, why=why, seen=seen)
        print("\n".join(lines))
        print(f"{place}: commit it, and run from a clean tree")

    return _exit_code(work)


def resume(room: Room, out: Path, config: Any, *, within: Path | None = None) -> int:
    """Continue a run; refuses where it would not be bitwise the run that began; `within` as in `start`."""

    def go_on() -> None:
        with folders.hold(out, "run", within=within):
            then = manifest.read(out)
            now = manifest.describe(room.name, room.source, then["preset"], config, then["command"])
            manifest.check_same_machine(out, now)
            if then.get("frozen", {}).get("is_confirmed") and now["git"] != then["git"]:
                reason = {"is_confirmed": False, "reason": "resumed with other code than it began with"}
                write_json(out / folders.MANIFEST, then | {"frozen": then["frozen"] | reason})
            _go_on(out, config, _study(room, then["preset"], config))

    return _exit_code(go_on)


def _study(room: Room, preset: str, config: Any) -> Study:
    """The study of a run, once all that judging would refuse has been looked at.

    Before the folder is touched and the first stage runs, as it must not cost a finished run.
    """
    if config.runtime.needs_accelerator and jax.default_backend() == "cpu":
        raise ValueError(
            f"{room.name}, preset {preset}: got {jax.devices()}, expected an accelerator; it was never run "
            "without one. Take a cpu preset, or --runtime.no-needs-accelerator to wait."
        )
    study = room.study(config)
    check_preset(preset)
    check_claims(study.claims)
    return study


def _exit_code(work: Callable[[], None]) -> int:
    """0, or the code of the error that ends a run."""
    try:
        work()
    except (*ENDS, Locked, NotOurs, manifest.ManifestError) as error:
        return failed(error)
    return 0


def _go_on(out: Path, config: Any, study: Study) -> None:
    told = execute(out, study, config.runtime)
    shown = ranked(told["ranking"]) if "ranking" in told else [table(told)]
    print("\n" + "\n".join(shown) + f"\n\n{out / 'report.html'}")
    print(
        f"wall {told['wall_seconds']:.0f} s, compiling {told['compile_seconds']:.0f} s, "
        f"recompiled {told['recompiled_programs']} programs, "
        f"state {told['state_sha256'][:16]}, metrics {told['metrics_sha256'][:16]}"
    )


def failed(error: Exception) -> int:
    """The exit code of an error, which is printed; a folder that is not ours is wrong usage."""
    print(f"\nerror: {error}", file=sys.stderr)
    return BUSY if isinstance(error, Locked) else USAGE if isinstance(error, NotOurs) else FAILED


def evaluate(out: Path, episodes: int, seed: int) -> int:
    """Play every policy of a run on its task and print mean return with a bootstrap interval."""
    if learning.is_training(out):
        return _evaluate_trained(out, episodes, seed)
    names = library.available(out)
    try:
        run = runs.load(out)
    except ValueError as error:  # of a study that left policies of first seeds, or none
        if not names:
            return failed(error)
    else:
        return _evaluate_study(run, episodes, seed)
    print(f"{'policy':36s} {'seed':>4s} {'return':>9s}  95 % interval over {episodes} episodes")
    for count, name in enumerate(names, start=1):
        print(f"[{count}/{len(names)}] {name}", file=sys.stderr, flush=True)
        arm, task = name.split("--")
        loaded = library.load(out, task, arm)
        returns = _played(loaded, episodes, keys.derive(seed, f"eval/{task}"))
        low, high = statistics.interval_of_mean(returns)
        number = loaded.description.seed
        print(f"{name:36s} {number:4d} {returns.mean():9.2f}  [{low:.2f}, {high:.2f}]", flush=True)
    return 0


def _evaluate_study(run: runs.StudyRun, episodes: int, seed: int) -> int:
    """The same of every arm of an experiment, a line an arm and task: the mean of its seeds."""
    told = f"95 % interval over seeds, {episodes} episodes each"
    print(f"{'arm, task':56s} {'return':>9s}  {told}")
    for count, (arm, task) in enumerate(run.players, start=1):
        print(f"[{count}/{len(run.players)}] {arm}, {task}", file=sys.stderr, flush=True)
        returns = run.evaluate(arm, task, episodes, seed)
        low, high = statistics.interval_of_mean(returns) if len(returns) > 1 else (np.nan, np.nan)
        print(f"{f'{arm}, {task}':56s} {returns.mean():9.2f}  [{low:.2f}, {high:.2f}]", flush=True)
    return 0


def _evaluate_trained(out: Path, episodes: int, seed: int) -> int:
    """The same of `jaxagent train`: a line a seed, and their mean with an interval over seeds."""
    try:
        result = learning.load(out)
    except ValueError as error:
        return failed(error)
    returns, about = result.evaluate(episodes, seed), f"{result.config.agent} on {result.config.task}"
    for number, value in zip(result.config.seeds, returns, strict=True):
        print(f"{about:36s} {number:4d} {value:9.2f}")
    told = ""
    if len(returns) > 1:
        low, high = statistics.interval_of_mean(returns)
        told = f"  95 % interval over {len(returns)} seeds [{low:.2f}, {high:.2f}]"
    print(f"{'mean':36s}      {returns.mean():9.2f}{told}; {episodes} episodes of each")
    return 0


def _played(loaded: library.LoadedPolicy, episodes: int, key: jax.Array) -> np.ndarray:
    """Returns `[episodes]` of a policy on its task."""
    about = loaded.description
    env, params = envs.make(about.env, **about.overrides)
    if env.is_pure:
        lanes = broadcast_params(params, episodes)
        run = jax.jit(lambda p, k: play(env, loaded.policy, p, lanes, k).returns)
        return np.asarray(run(loaded.params, key))
    from envs.adapters.ale import lane_seeds  # an extra

    key_games, key_act = jax.random.split(key)

    @jax.jit
    def act(obs: jax.Array, count: jax.Array) -> jax.Array:
        is_first = jnp.zeros(obs.shape[:1], bool)
        carry = loaded.init(obs.shape[0])
        return loaded.act(carry, obs, is_first, jax.random.fold_in(key_act, count))[0]

    return emulator.returns(env.vector(episodes), act, lane_seeds(key_games, episodes), 1)[0]


def dry_run(room: Room, config: Any) -> int:
    """Print parameters, operations, memory and the least time of every fit, without running."""
    return _exit_code(lambda: _print_costs(room.study(config)))


def _print_costs(study: Study) -> None:
    rate, total = matmul_rate(), 0.0
    print(f"{'stage':32s} {'parameters':>11s} {'GFLOP':>10s} {'MiB':>8s} {'s':>7s}")
    for row in costs(study):
        total += row.flops / rate
        work = f"{row.flops / 1e9:10.1f} {row.bytes / 2**20:8.1f} {row.flops / rate:7.1f}"
        print(f"{row.stage:32s} {row.parameters:11,d} {work}", flush=True)
    print(
        f"at least {total:.0f} s: the products counted in the traced updates, at {rate / 1e9:.0f} GFLOP/s "
        "of a large product measured now; environments, what is no product, and compiling come on top"
    )
