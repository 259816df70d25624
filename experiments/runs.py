"""Finished runs of studies, opened again: every arm and seed is a policy in the world that it was scored in.

import experiments

run = experiments.load("runs/whole-cpu")
run.evaluate("mlp", "PositionCartPole")  # mean returns [seeds] over new episodes
run.policy("whole", "PositionCartPole").export("FOLDER")  # of the seed that scored best
"""

import json
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.common.names import UnknownName, check_name
from experiments.cli import rooms
from jaxagent import folders, keys, library
from jaxagent.config import from_dict, to_dict
from jaxagent.study import agents
from jaxagent.study.study import Player
from jaxagent.study.verdicts import Scores
from jaxagent.train import manifest


class StudyRun:
    """A finished run of an experiment; nothing is read before it is asked for."""

    def __init__(self, folder: Path, room: Any, about: dict[str, Any]) -> None:
        """The run in `folder`, of a room, whose manifest is `about`."""
        self.folder, self.precision = folder, about["precision"]
        self.config = from_dict(next(iter(room.config.PRESETS.values())), about["config"])
        self.study = room.study(self.config)

    def __repr__(self) -> str:
        return f"StudyRun(arms {list(self.study.arms)}, tasks {list(self.study.tasks)}, in {self.folder})"

    @cached_property
    def scores(self) -> Scores:
        """Scores by arm and task, `[seeds]`, as the page has them."""
        return json.loads((self.folder / "summary.json").read_text())["scores"]

    @property
    def players(self) -> list[tuple[str, str]]:
        """Arms and tasks that play."""
        return [(arm, task) for arm in self.scores for task in self.scores[arm]]

    def player(self, arm: str, task: str) -> Player:
        """An arm as it ended on a task. Raises `UnknownName` with the nearest arm or task."""
        check_name("arm", arm, sorted({name for name, _ in self.players}))
        check_name("task", task, sorted({of for name, of in self.players if name == arm}))
        assert self.study.player is not None  # `load` refuses others
        return self.study.player(self.folder, arm, task)

    def policy(self, arm: str, task: str, seed: int | None = None) -> library.LoadedPolicy:
        """The policy of a seed, by default of the one that scored best: it has `init`, `act` and `export`.

        It reads what the arm's world shows; where a study wraps it, the description says so. Raises
        ValueError for another seed.
        """
        player = self.player(arm, task)
        seeds = list(player.seeds)
        best = seeds[int(np.argmax(self.scores[arm][task]))]
        chosen = best if seed is None else seed
        if chosen not in seeds:
            raise ValueError(f"seed: got {seed}, expected one of {seeds}, which were trained.")
        about = library.describe(
            player.env,
            player.task,
            arm=arm,
            task=task,
            overrides=dict(player.overrides),
            seed=chosen,
            precision=self.precision,
            recipe=to_dict(self.config),
            reads=player.reads if _is_plain(player) else "wrapped",
        )
        own = agents.take(player.params, seeds.index(chosen))
        return library.LoadedPolicy(about, player.policy, jax.tree.map(jnp.asarray, own))

    def evaluate(self, arm: str, task: str, episodes: int = 32, seed: int = 0) -> np.ndarray:
        """Mean returns `[seeds]` over new episodes, which arms of a seed share; of games of two, points."""
        player = self.player(arm, task)
        arena = player.arena or partial(agents.arena, player.env, player.task)
        key = keys.derive(seed, f"evaluate again/{task}")
        with jax.default_matmul_precision(self.precision):
            return arena(player.seeds, episodes, key).returns(player.policy, player.params)


def _is_plain(player: Player) -> bool:
    """Whether the world of an arm is what its name makes."""
    plain, _ = envs.make(player.env.name, **player.overrides)
    return (plain.obs_spec, plain.action_spec) == (player.env.obs_spec, player.env.action_spec)


def load(folder: str | Path) -> StudyRun:
    """Open a finished run of an experiment.

    Raises `NotOurs` for another folder, ValueError for an unfinished run, or one of an experiment whose arms
    cannot be played again (`jaxagent.library.load` has what it left).
    """
    place = Path(folder)
    folders.check_ours(place, "run")
    about = manifest.read(place)
    try:
        room = rooms.room(about["source"])
    except UnknownName as error:
        raise ValueError(f"{place}: got a run of {about['source']}, expected an experiment's.") from error
    if not (place / "summary.json").exists():
        raise ValueError(f"{place}: got an unfinished run, expected a finished one; resume it.")
    run = StudyRun(place, room, about)
    if run.study.player is None:
        left = ", ".join(library.available(place))
        fix = f"jaxagent.library.load opens what it left: {left}." if left else "it left no policies."
        raise ValueError(
            f"{place}: got a run of {about['source']}, expected one whose arms play again; {fix}"
        )
    return run
