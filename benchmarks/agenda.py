"""What waits for an accelerator: the steps of `benchmarks.accelerator`, most valuable first."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.batch import Step

REHEARSED_LEAST = 45.0  # seconds: a rehearsed step is over long before on idle cores
BATCHES = {256: 75, 1024: 60, 32: 75, 1: 45}  # of searches, with what their cells need; wide ones first
ALL = "all"  # kernels, where their names are not known
TESTS = ("-m", "pytest", "-m", "accelerator", "-v", "-p", "no:cacheprovider")


def steps(kernels: Sequence[str], tests: Sequence[str], runs: Path) -> list[Step]:
    """All of a batch, most valuable first. Least seconds are guesses for an H100 that compiles anew."""
    measured = [Step("device", *_both("device"), least=30, share=2)]
    measured += [
        Step(f"tests/{Path(file).stem}", (*TESTS, file), (*TESTS, file), 45, 3, ("pytest",), told=outcomes)
        for file in tests
    ]
    measured += [
        Step(f"kernels/{name}", *_both("kernels", "--only", name, quick=("--quick",)), least=45, share=4)
        if name != ALL
        else Step(f"kernels/{name}", *_both("kernels", quick=("--quick",)), least=90, share=20)
        for name in kernels
    ]
    measured += [
        Step(f"search/{size}", *_both("mcts", "--batch", str(size), quick=("--quick",)), least, 8, ("mctx",))
        for size, least in BATCHES.items()
    ]
    paper = ("--preset", "gpu", "--windows", "128", "--envs", "256", "--seconds", "0.3")
    tiny = ("--preset", "smoke", "--windows", "4", "--envs", "4", "--seconds", "0.02")
    measured += [
        Step("throughput/paper", module("calibrate", *paper), module("calibrate", *tiny), 60, 6),
        *(
            Step(f"throughput/{kind}", *_both("throughput", "--only", kind, quick=("--quick",)), 60, 6)
            for kind in ("pretraining", "ppo")
        ),
        Step("atari", *_both("atari", quick=("--quick", "--seeds", "1")), 150, 12, ("ale_py", "gymnasium")),
    ]
    return measured + presets(runs)


def presets(runs: Path) -> list[Step]:
    """Short presets, cheapest first, which has most of the time; they go on where they were cut."""
    known = (  # and what stands for them in a rehearsal
        ("spr", "gpu-short", ("spr", "smoke", "--no-has-probe"), 40, ()),  # 419 s on an H100
        ("atari100k", "gpu-short", ("atari100k", "smoke"), 10, ("ale_py", "gymnasium")),  # ten minutes
        ("quickstart", "gpu", ("example", "smoke"), 10, ()),  # never run
    )
    more = {"resumes": True, "grace": 40.0}  # for a chunk to end and be saved: of spr half a minute
    return [
        Step(
            f"presets/{name}-{preset}",
            module("presets", name, preset, "--runs", str(runs)),
            module("presets", *small, "--runs", str(runs)),
            least=120,
            share=share,
            needs=needs,
            **more,
        )
        for name, preset, small, share, needs in known
    ]


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """Arguments of Python that run a benchmark."""
    return ("-m", f"benchmarks.{name}", *arguments)


def _both(name: str, *arguments: str, quick: tuple[str, ...] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A benchmark's command, and the same for a rehearsal."""
    return module(name, *arguments), module(name, *arguments, *quick)


def rehearsed(table: Sequence[Step]) -> list[Step]:
    """The same steps, tiny, of equal shares."""
    return [step._replace(command=step.rehearsal, least=REHEARSED_LEAST, share=1.0) for step in table]


def outcomes(text: str) -> dict[str, Any]:
    """Tests of pytest's lines by how they ended."""
    ended = re.findall(r"^\S+::.* (PASSED|FAILED|ERROR|SKIPPED)\b", text, re.MULTILINE)
    names = {"passed": ("PASSED",), "failed": ("FAILED", "ERROR"), "skipped": ("SKIPPED",)}
    return {name: sum(word in words for word in ended) for name, words in names.items()}


def accelerator_tests(root: Path) -> list[str]:
    """Files of tests of kernels with some that need an accelerator."""
    files = sorted((root / "tests" / "kernels").glob("test_*.py"))
    return [str(file.relative_to(root)) for file in files if "mark.accelerator" in file.read_text()]
