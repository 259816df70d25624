"""Steps per second of our environments against their sources, as ratios; JSON lines.

    python -m benchmarks.envs --quick        # about a minute
    python -m benchmarks.envs                # every row; --only minatar selects by name
    python -m benchmarks.envs --out FILE     # also append the lines to FILE

Ours and the peer run in one process, alternating, over at least 7 rounds; a row holds the median
of the rounds' ratios. Every row runs twice: under XLA's default flags, and under the CPU loop flag
with two host devices (which runs a whole scan in one thread: ours over both devices by `pmap`, the
peer on one and on both). `best_ratio` divides our median by the peer's best over all of these;
`rbg_ratio` is against gymnax under `unsafe_rbg` keys, which it does not use by itself (JAX's
default is threefry). Compile seconds are apart. Modes: "obs" carries the newest observation,
"state" compact states, "stored" also returns what a rollout holds: observations before and after
each step, as `[T, B, ...]` with T = 32, where writing memory is most of the work.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

LOOP_FLAG = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1073741824"
SETTINGS = {"default": "", "loop flag, 2 devices": f"{LOOP_FLAG} --xla_force_host_platform_device_count=2"}
SECONDS = 0.25  # of one timed run
STORED_STEPS = 32


class Row(NamedTuple):
    """One line of the table."""

    env_id: str
    source: str  # a function of benchmarks.stepping
    name: str  # of the environment there
    batch_size: int
    mode: str = "obs"  # or "state" or "stored"


def rows(is_quick: bool) -> list[Row]:
    """What is measured: the two goals of the issue at three sizes, everything else at one."""
    batches = (1024,) if is_quick else (64, 1024, 8192)
    table = [Row("classic/CartPole-v1", "gymnax", "CartPole-v1", b) for b in batches]
    table += [
        Row("minatar/Breakout", "gymnax", "Breakout-MinAtar", b, mode)
        for b in batches
        for mode in ("obs", "state")
    ]
    if is_quick:
        return table
    classic = ("Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0")
    table += [Row(f"classic/{n}", "gymnax", n, 1024) for n in classic]
    table += [
        Row(f"minatar/{n}", "gymnax", f"{n}-MinAtar", 1024, mode)
        for n in ("Asterix", "Freeway", "Seaquest", "SpaceInvaders")
        for mode in ("obs", "state")
    ]
    table += [
        Row("classic/CartPole-v1", "gymnax", "CartPole-v1", 1024, "stored"),
        Row("minatar/Breakout", "gymnax", "Breakout-MinAtar", 64, "stored"),
        Row("minatar/Breakout", "gymnax", "Breakout-MinAtar", 1024, "stored"),
    ]
    table += [Row(f"gymnax/{n}", "gymnax", n, 1024) for n in ("CartPole-v1", "FourRooms-misc")]
    table += [Row("brax/hopper", "brax", "hopper", 64)]
    table += [
        Row(f"xminigrid/{n}", "xminigrid", n, 1024) for n in ("MiniGrid-Empty-8x8", "XLand-MiniGrid-R1-9x9")
    ]
    table += [Row(f"pgx/{n}", "pgx", n, 256) for n in ("tic_tac_toe", "connect_four")]
    return [*table, Row("craftax/Classic-Symbolic", "craftax", "Classic-Symbolic", 64)]


class Timed(NamedTuple):
    """A compiled program and how to call it."""

    label: str
    call: Any  # () -> None, blocks
    steps: int  # env steps of one call
    compile_seconds: float


def measure(row: Row, rounds: int) -> dict[str, Any]:
    """Time one row in this process, under this process's flags."""
    import jax

    devices = jax.local_device_count()
    timed = [_prepare("ours", _our_builder(row), row, devices)]
    timed += [_prepare(f"peer on {n}", _peer_builder(row), row, n) for n in sorted({1, devices})]
    if row.source == "gymnax":
        timed.append(_prepare("rbg", _peer_builder(row), row, 1, "unsafe_rbg"))
    seconds = {t.label: [] for t in timed}
    cpu = {t.label: [] for t in timed}
    for _ in range(rounds):
        for t in timed:
            wall, process = time.perf_counter(), time.process_time()
            t.call()
            seconds[t.label].append((time.perf_counter() - wall) / t.steps)
            cpu[t.label].append((time.process_time() - process) / t.steps)
    peers = (t.label for t in timed if t.label.startswith("peer"))
    peer = min(peers, key=lambda p: statistics.median(seconds[p]))
    ratios = [b / a for a, b in zip(seconds["ours"], seconds[peer], strict=True)]
    cpu_ratios = [b / a for a, b in zip(cpu["ours"], cpu[peer], strict=True)]
    result = {
        "ours_steps_per_second": round(1 / statistics.median(seconds["ours"])),
        "peer_steps_per_second": round(1 / statistics.median(seconds[peer])),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "cpu_ratio": round(statistics.median(cpu_ratios), 2),
        "ours_compile_seconds": round(timed[0].compile_seconds, 2),
        "peer_compile_seconds": round(timed[1].compile_seconds, 2),
        "rounds": rounds,
        "load": round(os.getloadavg()[0], 2),
    }
    if "rbg" in seconds:
        rbg = [b / a for a, b in zip(seconds["ours"], seconds["rbg"], strict=True)]
        result["rbg_ratio"] = round(statistics.median(rbg), 2)
    return result


def _our_builder(row: Row) -> Any:
    from benchmarks import stepping

    options = {"is_compact": row.mode == "state", "stores": row.mode == "stored"}
    return lambda batch, steps: stepping.ours(row.env_id, batch, steps, **options)


def _peer_builder(row: Row) -> Any:
    from benchmarks import stepping

    options = {"stores": True} if row.mode == "stored" else {}
    return lambda batch, steps: getattr(stepping, row.source)(row.name, batch, steps, **options)


def _prepare(label: str, build: Any, row: Row, devices: int, key_impl: str = "threefry2x32") -> Timed:
    """Compile a program whose call takes about `SECONDS`, over `devices`."""
    num_steps = STORED_STEPS if row.mode == "stored" else 8
    while True:
        batch_size = row.batch_size // devices
        call, compile_seconds = _compile(build, batch_size, num_steps, devices, key_impl)
        started = time.perf_counter()
        call()
        took = time.perf_counter() - started
        if took > SECONDS / 3 or num_steps >= 1 << 18 or row.mode == "stored":
            return Timed(label, call, num_steps * row.batch_size, compile_seconds)
        num_steps = min(1 << 18, int(num_steps * min(64, max(2, SECONDS / took))))


def _compile(build: Any, batch_size: int, num_steps: int, devices: int, key_impl: str) -> tuple[Any, float]:
    import jax

    program = build(batch_size, num_steps)
    key = jax.random.key(0, impl=key_impl)
    if devices == 1:
        carry = jax.block_until_ready(jax.jit(program.start)(key))
        run = jax.jit(program.run)
    else:
        key = jax.random.split(key, devices)
        carry = jax.block_until_ready(jax.pmap(program.start)(key))
        run = jax.pmap(program.run)
    started = time.perf_counter()
    compiled = run.lower(key, carry).compile()
    seconds = time.perf_counter() - started
    jax.block_until_ready(compiled(key, carry))
    return lambda: jax.block_until_ready(compiled(key, carry)), seconds


def child(arguments: argparse.Namespace) -> None:
    """Measure rows under the flags of this process; one JSON line each."""
    for row in wanted(arguments):
        try:
            result = measure(row, rounds=7)
        except ImportError as error:
            result = {"skipped": str(error)}
        print(json.dumps(row._asdict() | result), flush=True)


def wanted(arguments: argparse.Namespace) -> list[Row]:
    """Rows that the command line asks for."""
    return [r for r in rows(arguments.quick) if arguments.only in r.env_id]


def main() -> None:
    """Measure under both settings and print the table as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two environments at B = 1024")
    parser.add_argument("--only", default="", help="part of an environment id")
    parser.add_argument("--out", type=Path, help="append the lines to this file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    lines = {name: _run_child(arguments, flags) for name, flags in SETTINGS.items()}
    for index, row in enumerate(wanted(arguments)):
        settings = {name: results[index] for name, results in lines.items()}
        best = max(s.get("peer_steps_per_second", 0) for s in settings.values())
        for name, result in settings.items():
            if best:
                ours = result["ours_steps_per_second"]
                result["best_ratio"] = round(ours / best, 2)
            line = json.dumps(row._asdict() | {"setting": name} | result | _where())
            print(line, flush=True)
            if arguments.out:
                with arguments.out.open("a") as file:
                    file.write(line + "\n")


def _run_child(arguments: argparse.Namespace, flags: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.envs", "--child", "--only", arguments.only]
    command += ["--quick"] if arguments.quick else []
    environment = os.environ | {"XLA_FLAGS": flags}
    results = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if line.startswith("{"):
                results.append(json.loads(line))
                print(f"  {results[-1]}", file=sys.stderr, flush=True)
    if process.returncode or len(results) != len(wanted(arguments)):
        raise SystemExit(f"the measuring process failed (exit {process.returncode}); see above.")
    keys = Row._fields
    return [{k: v for k, v in r.items() if k not in keys} for r in results]


def _where() -> dict[str, Any]:
    import jax

    return {
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "jax": jax.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    main()
