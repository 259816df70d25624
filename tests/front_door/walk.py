"""The front door in fresh environments, as a newcomer walks through it: `python tests/front_door/walk.py`.

Builds the sdist and the wheel, installs the wheel in an environment of its own, leaves the repository, and
does there what the README and its pages say. Steps print their seconds; the first that fails ends the walk.
`--quick` (of CI) takes one preset and one notebook; `--editable` installs the repository in place instead.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
CARTPOLE = "classic/CartPole-v1"
TINY = ["--num-updates", "4", "--updates-per-chunk", "2", "--episodes", "2"]
LANE = f"py{sys.version_info.major}{sys.version_info.minor}"
SMOKE = (
    "example",
    "icl_bma",
    "icl_rational",
    "memory",
    "muzero",
    "plan",
    "quickstart",
    "reinforce",
    "spr",
    "whole",
)
SCRIPT = """
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxagent

assert str(Path(jaxagent.__file__)).startswith(sys.argv[1]), jaxagent.__file__
result = jaxagent.load("train")
policy = result.policy()
opened = jaxagent.load(policy.export("policy", params_as="safetensors"))
obs, is_first = jnp.ones((3, 4)), jnp.ones(3, bool)
acts = [p.act(p.init(3), obs, is_first, jax.random.key(0))[0] for p in (policy, opened)]
np.testing.assert_array_equal(*acts)
result.plot("curve.svg")
result.render("film.gif")
result.record("play", episodes=4)
tiny = {"num_updates": 20, "updates_per_chunk": 10, "warmup_updates": 1, "quiet": True}
clone = jaxagent.learn("bc", "classic/CartPole-v1", dataset="play", **tiny)
print(clone)
"""


class Walk:
    """A place outside the repository, and an environment."""

    def __init__(self, place: Path, is_editable: bool) -> None:
        """Nothing is installed yet."""
        self.place, self.is_editable = place, is_editable
        self.python = place / "env" / "bin" / "python"
        self.started = time.perf_counter()

    def step(self, name: str, *command: str | Path, where: Path | None = None, says: str = "") -> str:
        """Run a command; ends the walk where it fails, or does not say what it should."""
        begun = time.perf_counter()
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(self.place / "cache")}
        environment.pop("PYTHONPATH", None)
        run = subprocess.run(
            list(map(str, command)), cwd=where or self.place, env=environment, capture_output=True, text=True
        )
        print(f"{name:44s} {time.perf_counter() - begun:6.1f} s", flush=True)
        if run.returncode != 0 or says not in run.stdout:
            print(run.stdout[-3000:], run.stderr[-3000:], f"expected {says!r}", sep="\n", file=sys.stderr)
            raise SystemExit(1)
        return run.stdout

    def jaxagent(self, name: str, *arguments: str, says: str = "") -> str:
        """A step of the console command."""
        return self.step(name, self.place / "env" / "bin" / "jaxagent", *arguments, says=says)

    def install(self) -> None:
        """An environment with the wheel, or with the repository in place."""
        self.step("a fresh environment", sys.executable, "-m", "venv", self.place / "env")
        pip = [self.python, "-m", "pip", "install", "--quiet"]
        constraints = HOME / "constraints" / f"{LANE}.txt"
        fixed = ["-c", constraints] if constraints.exists() else []
        if self.is_editable:
            what = f"{HOME}[export]"
            self.step("install the repository", *pip, "-e", what, *fixed)
            return
        self.step("install what builds", *pip, "build")
        source = self.place / "source"  # a copy, as building leaves folders
        ignored = shutil.ignore_patterns(".git", ".venv*", "runs", ".cache", "build", "dist", "*.egg-info")
        shutil.copytree(HOME, source, ignore=ignored)
        self.step(
            "build the sdist and the wheel of it",
            self.python,
            "-m",
            "build",
            "-o",
            self.place / "dist",
            source,
        )
        (wheel,) = (self.place / "dist").glob("*.whl")
        shutil.rmtree(source)
        self.step("install the wheel", *pip, f"{wheel}[export]", *fixed)

    def train(self) -> None:
        """Train, go on, sweep, compare, export, clone."""
        self.jaxagent("jaxagent doctor", "doctor")
        self.jaxagent("jaxagent list", "list", says="experiment   quickstart")
        self.jaxagent("jaxagent train", "train", "ppo", CARTPOLE, "--seeds", "2", *TINY, "--out", "train")
        self.jaxagent(
            "jaxagent train, one more", "train", "ppo", CARTPOLE, *TINY, "--clip", "0.1", "--out", "other"
        )
        self.jaxagent("jaxagent eval", "eval", "train", "--episodes", "4", says="mean")
        self.jaxagent("jaxagent compare", "compare", "train", "other", "--out", "compare.html")
        self.jaxagent(
            "jaxagent sweep", "sweep", "ppo", CARTPOLE, "learning_rate=1e-4,1e-3", *TINY, "--out", "sweep"
        )
        (self.place / "script.py").write_text(SCRIPT)
        inside = HOME if self.is_editable else self.place / "env"
        self.step(
            "load, export, plot, film, record, clone", self.python, "script.py", inside, says="20 updates"
        )
        self.jaxagent("jaxagent new", "new", "my_study")
        self.jaxagent("run it", "run", "./my_study", "--preset", "smoke", "--out", "mine", says="E1")

    def run(self, names: tuple[str, ...]) -> None:
        """Smoke presets of experiments."""
        for name in names:
            self.jaxagent(f"jaxagent run {name}", "run", name, "--preset", "smoke", "--out", f"runs/{name}")
            assert (self.place / "runs" / name / "report.html").is_file()

    def documents(self) -> None:
        """The pages, their links checked."""
        packages = ["mkdocs", "mkdocstrings-python"]
        self.step("install mkdocs", self.python, "-m", "pip", "install", "--quiet", *packages)
        build = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", self.place / "site"]
        self.step("make docs", self.python, *build, where=HOME)

    def notebooks(self, names: tuple[str, ...]) -> None:
        """Pages of examples as notebooks, executed."""
        self.step(
            "install jupytext and nbconvert",
            self.python, "-m", "pip", "install", "--quiet", "jupytext", "nbconvert", "ipykernel",
        )  # fmt: skip
        books = self.place / "notebooks"
        books.mkdir()
        for name in names:
            # In a folder of its own: a study that was written beside it would be another module.
            page, notebook = HOME / "experiments" / "examples" / f"{name}.py", books / f"{name}.ipynb"
            self.step(
                f"notebook {name}", self.python, "-m", "jupytext", "--to", "notebook", page, "-o", notebook
            )
            execute = ["-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", notebook]
            self.step(f"executed {name}", self.python, *execute)
            assert '"output_type": "stream"' in notebook.read_text()


def main() -> None:
    """Walk through it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one preset and one notebook")
    parser.add_argument("--editable", action="store_true", help="install the repository in place")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="front-door-") as place:
        walk = Walk(Path(place), asked.editable)
        walk.install()
        walk.train()
        if not asked.quick:
            walk.documents()
        walk.run(("example",) if asked.quick else SMOKE)
        pages = sorted(path.stem for path in (HOME / "experiments" / "examples").glob("*.py"))
        walk.notebooks(("search",) if asked.quick else tuple(pages))
        print(f"{'all of it':44s} {time.perf_counter() - walk.started:6.1f} s")


if __name__ == "__main__":
    main()
