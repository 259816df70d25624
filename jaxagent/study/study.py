"""A study as one value: arms, tasks and steps, and what is claimed, checked and shown of them.

    study(config) -> Study  # all that `jaxagent run` asks of a paper

Stages, resume, cost, verdicts, budgets and the page follow from it; nothing is registered.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxagent.config import require_unlike
from jaxagent.data import tree_file
from jaxagent.evaluate.claim import DEFAULT_METRIC
from jaxagent.evaluate.claims import SCALE, Claim, Precondition
from jaxagent.nn.transformer import num_parameters
from jaxagent.report.figure import Curve
from jaxagent.study import budget
from jaxagent.study.budget import Spent
from jaxagent.study.verdicts import Scores, judged
from jaxagent.train import history, loops, metrics_log, parallel
from jaxagent.train.flops import flops_of
from jaxagent.train.run import Stage, Work, read_done, stage_folder
from jaxagent.types import Loop, Policy, RunState

KEPT = "kept.npz"  # what a fit leaves


@dataclass(frozen=True)
class Lanes:
    """Independent copies of one loop (seeds, agents, arms) as lanes of one program.

    `config` has `num_updates` and `updates_per_chunk`. `keep(learner)` is what comes back, after
    the last update, or with `history` before the first and after every chunk.
    """

    loop: Loop  # of one lane
    inputs: Callable[[], tuple]  # () -> arrays with leaves [N, ...]
    config: Any
    key: jax.Array  # of all updates; lane i folds in ids[i]
    begin: Callable[..., tuple] = lambda *inputs: inputs  # inputs -> arguments of `loop.init`
    ids: Sequence[int] | None = None  # equal ids draw alike; None: 0 to N - 1
    data: Any = ()  # what every update reads
    data_axis: Any = None  # of its lanes, as in `loops.lanes`
    keep: Callable[[Any], Any] = loops.params_of
    history: bool = False
    units: Mapping[str, int] = field(default_factory=dict)  # per update of a lane: {"env_steps": 256}
    before: Mapping[str, int] = field(default_factory=dict)  # the first update, of these units
    tell: Callable[[Any], dict[str, Any]] = lambda kept: {}  # what was kept -> more of the summary
    in_turn: bool = False  # one lane after another
    dtype: str = ""  # of the products whose share of the peak is told, with the unit "flops"

    @property
    def num_chunks(self) -> int:
        """Chunks of the whole fit."""
        return self.config.num_updates // self.config.updates_per_chunk

    @property
    def lane_loop(self) -> Loop:
        """The loop of all lanes."""
        ids = None if self.ids is None else jnp.array(tuple(self.ids))
        return loops.lanes(self.loop, self.data_axis, ids, self.in_turn)

    def first(self, *inputs: Any) -> RunState:
        """The state of all lanes before any update, to be traced; `inputs` have leaves `[N, ...]`."""
        state = parallel.first_state(*self.lane_loop.init(*self.begin(*inputs)))
        return history.first_state(state, self.keep, self.num_chunks) if self.history else state

    def kept(self, learner: Any) -> Any:
        """The part of a learner that a fit leaves: leaves `[N, ...]`, or `[chunks + 1, N, ...]`."""
        return learner.snapshots if self.history else self.keep(learner)

    def shapes(self) -> Any:
        """Shapes, traced, of the pytree that a fit leaves."""
        return jax.eval_shape(lambda *inputs: self.kept(self.first(*inputs).learner), *self.inputs())


@dataclass(frozen=True)
class Fit:
    """A training stage: `lanes(folder)` is called when it starts, and may read what came before.

    The folder is None where only shapes and cost are asked for; steps before then left stand-ins.
    """

    name: str  # of the stage, such as "train/CartPole-v1/muzero"
    lanes: Callable[[Path | None], Lanes]

    def stage(self, devices: int) -> Stage:
        """The stage that `train.run` runs."""
        return Stage(self.name, lambda folder: self._work(folder, devices))

    def load(self, folder: Path | None, init: Callable[[jax.Array], Any] | None = None) -> Any:
        """The kept pytree, numpy leaves `[N, ...]` as `Lanes.kept`; zeros where there is no folder.

        With `init`, a function of a key that makes what one lane keeps, nothing that the fit reads has
        to be built again to know the shapes.
        """
        if folder is not None and init is not None:
            return _load_lanes(folder, self.name, init)
        shapes = self.lanes(folder).shapes()
        if folder is None:
            return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        return tree_file.load(stage_folder(folder, self.name) / KEPT, shapes)

    def _work(self, folder: Path, devices: int) -> Work:
        lanes = self.lanes(folder)
        inputs, every = lanes.inputs(), lanes.config.updates_per_chunk
        num_lanes = jax.tree.leaves(inputs)[0].shape[0]
        chunk = parallel.chunked(lanes.lane_loop, every, devices, lanes.data)

        def run(state: RunState) -> Any:
            return chunk(state, lanes.key)

        def finish(state: RunState, place: Path) -> dict[str, Any]:
            kept = lanes.kept(state.learner)
            tree_file.save(place / KEPT, kept)
            return {
                "lanes": num_lanes,
                "axes": [lanes.num_chunks + 1, num_lanes] if lanes.history else [num_lanes],
                "parameters": num_parameters(_learner(lanes, state).params) // num_lanes,
                "updates": lanes.config.num_updates,
                "units": ["operations", *lanes.units],
                "operations": _operations(lanes, state) / num_lanes,
                **{
                    unit: lanes.before.get(unit, 0) + n * lanes.config.num_updates
                    for unit, n in lanes.units.items()
                },
            } | lanes.tell(kept)

        return Work(
            finish=finish,
            init=lambda: jax.jit(lanes.first)(*inputs),
            chunk=history.remembering(run, lanes.keep, every) if lanes.history else run,
            num_chunks=lanes.num_chunks,
            updates_per_chunk=every,
            units_per_update={unit: n * num_lanes for unit, n in lanes.units.items()},
            dtype=lanes.dtype,
        )


@dataclass(frozen=True)
class Measure:
    """A stage that trains nothing: `of(folder, place)` reads fits and returns JSON.

    It may write artefacts into its own `place`.
    """

    name: str
    of: Callable[[Path, Path], dict[str, Any]]

    def stage(self, devices: int) -> Stage:
        """As `Fit.stage`."""
        del devices
        return Stage(self.name, lambda folder: Work(lambda state, place: self.of(folder, place)))


@dataclass(frozen=True)
class Driven:
    """A training stage whose loop drives itself, as an emulator's does: it has `init` and `chunk`.

    `keep(state)` stays when it ends, lanes `[N, ...]`; `tell(state)` is more of the summary.
    """

    name: str
    loop: Callable[[], Any]
    config: Any  # with `num_updates` and `updates_per_chunk`
    keep: Callable[[RunState], Any]
    units: Mapping[str, int] = field(default_factory=dict)  # per update, of all lanes
    tell: Callable[[RunState], dict[str, Any]] = lambda state: {}

    def stage(self, devices: int) -> Stage:
        """As `Fit.stage`."""
        del devices
        return Stage(self.name, self._work)

    def load(self, folder: Path, init: Callable[[jax.Array], Any]) -> Any:
        """The kept pytree, numpy leaves `[N, ...]`: lanes of what `init`, a function of a key, makes."""
        return _load_lanes(folder, self.name, init)

    def _work(self, folder: Path) -> Work:
        del folder
        loop = self.loop()

        def finish(state: RunState, place: Path) -> dict[str, Any]:
            kept = jax.device_get(self.keep(state))
            tree_file.save(place / KEPT, kept)
            num_lanes = jax.tree.leaves(kept)[0].shape[0]
            spent = {unit: n * self.config.num_updates / num_lanes for unit, n in self.units.items()}
            return {"lanes": num_lanes, "axes": [num_lanes], "units": list(spent), **spent} | self.tell(state)

        every = self.config.updates_per_chunk
        return Work(finish, loop.init, loop.chunk, self.config.num_updates // every, every, self.units)


@dataclass(frozen=True)
class Custom:
    """A stage of a paper that fits none of the others: `work(folder)` as `train.run` takes it."""

    name: str
    work: Callable[[Path], Work]

    def stage(self, devices: int) -> Stage:
        """As `Fit.stage`."""
        del devices
        return Stage(self.name, self.work)


Step = Fit | Driven | Measure | Custom


class Player(NamedTuple):
    """An arm as it ended on a task: its policy, parameters of every seed, and the world it is scored in."""

    env: Any
    task: Any
    policy: Policy
    params: Any  # leaves [seeds, ...]
    seeds: Sequence[int]
    overrides: Mapping[str, Any] = MappingProxyType({})  # of the task, by which the name makes it again
    reads: Literal["obs", "view"] = "obs"  # "view": `types.View`, of the game that it searches with
    # `(seeds, episodes, key)` to who plays it, with `returns(policy, params)`; None: `agents.arena`.
    arena: Callable[..., Any] | None = None


def _load_lanes(folder: Path, name: str, init: Callable[[jax.Array], Any]) -> Any:
    """What a stage kept of lanes that `init` makes, behind the axes that the stage told of; traced."""
    axes = read_done(folder, name)["summary"]["axes"]

    def kept(key: jax.Array) -> Any:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (*axes, *x.shape)), init(key))

    shapes = jax.eval_shape(kept, jax.random.key(0))
    return tree_file.load(stage_folder(folder, name) / KEPT, shapes)


class Found(Mapping):
    """Summaries of the steps of a run by stage name, read once."""

    def __init__(self, folder: Path, steps: Sequence[Step]) -> None:
        self.folder = folder
        self._done = {step.name: read_done(folder, step.name) for step in steps}

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self._done[name]["summary"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._done)

    def __len__(self) -> int:
        return len(self._done)

    def seconds(self, name: str) -> float:
        """Seconds that a stage took with all its lanes."""
        return round(self._done[name]["seconds"], 1)

    def recompiled(self) -> dict[str, int]:
        """Programs compiled after the first chunk, by stage, where there were any."""
        counts = {n: done.get("recompiled_programs", 0) for n, done in self._done.items()}
        return {name: count for name, count in counts.items() if count}


@dataclass(frozen=True)
class Study:
    """A study: its arms, tasks and steps, and what is claimed, checked and shown of them."""

    arms: Mapping[str, str]  # name -> what it is, in the order of tables
    tasks: Sequence[str]  # rows of the scores
    steps: Sequence[Step]
    scores: Callable[[Found], Scores]
    claims: Sequence[Claim]
    checks: Callable[[Found, Scores], list[Precondition]] = lambda found, scores: []
    figures: Callable[[Found], list[dict[str, Any]]] = lambda found: []
    curves: Sequence[Curve] = ()
    limits: Sequence[str] = ()
    label: str = "normalised return (0: random, 1: expert)"
    title: str = ""  # of the table of scores
    shown: Callable[[Scores, str], Any] = lambda scores, arm: scores.get(arm)  # an arm's row
    shared_seeds: bool = False  # one training gives a seed's scores of all tasks
    scale: tuple[float, float] | None = SCALE  # ends of the metric "score"; None: it has none
    is_partial: bool = False  # claims about arms that this configuration does not run are left out
    spent: Mapping[str, Spent] = field(default_factory=dict)  # by arm; one that is not named is not told
    extras: Callable[[Found, Scores], dict[str, Any]] = lambda found, scores: {}  # of the summary
    player: Callable[[Path, str, str], Player] | None = None  # (folder, arm, task); None: no arm plays again
    resumes: bool = True  # False: environments live on the host, and are not saved

    def __post_init__(self) -> None:
        """Raise ValueError before anything runs: for a name of two steps, for spendings of nothing."""
        require_unlike("names of a study's steps", [step.name for step in self.steps])
        learned = [step.name for step in self.steps if isinstance(step, Fit | Driven)]
        for claim in self.claims:
            if strangers := {*claim.tasks} - {*self.tasks}:
                raise ValueError(
                    f"claim {claim.id!r}: got tasks {sorted(strangers)}, expected some of "
                    f"{list(self.tasks)}; name tasks of the study."
                )
        compared = (arm for claim in self.claims for arm in claim.arms)
        budget.check(self.spent, {*self.arms, *compared}, learned)


class Cost(NamedTuple):
    """The cost of a fit, counted before it runs."""

    stage: str
    parameters: int  # of all lanes
    flops: float  # of the whole fit
    bytes: float  # of the compiled update: arguments and temporaries


def stages(study: Study, devices: int) -> list[Stage]:
    """The stages of a run, in order."""
    return [step.stage(devices) for step in study.steps]


def costs(study: Study, *, with_memory: bool = True) -> Iterator[Cost]:
    """The cost of every fit, counted in its traced update; memory is the compiled update's."""
    for step in study.steps:
        if isinstance(step, Fit):
            yield cost(step, with_memory)


def cost(fit: Fit, with_memory: bool) -> Cost:
    """The cost of one, as `costs` tells it."""
    lanes = fit.lanes(None)
    state = jax.eval_shape(lanes.first, *lanes.inputs())
    size, num_bytes = num_parameters(_learner(lanes, state).params), 0.0
    if with_memory:
        update, args = _one_update(lanes, state)
        used = jax.jit(update).lower(*args).compile().memory_analysis()
        num_bytes = float(used.argument_size_in_bytes + used.temp_size_in_bytes)
    return Cost(fit.name, size, _operations(lanes, state), num_bytes)


def _operations(lanes: Lanes, state: RunState) -> float:
    """Operations of all updates of all lanes, of a state or of its shapes."""
    update, args = _one_update(lanes, jax.eval_shape(lambda: state))
    return lanes.config.num_updates * flops_of(update, *args)


def _one_update(lanes: Lanes, state: Any) -> tuple[Callable, tuple]:
    """An update on one device, and its arguments; the state is one of shapes."""
    loop = lanes.lane_loop
    shards = jax.eval_shape(
        lambda tree: jax.tree.map(lambda x: jnp.moveaxis(x, 0, loop.shard_axis), tree), state.shards
    )

    def update(learner: Any, shards: Any, data: Any, key: jax.Array) -> Any:
        return loop.update(learner, shards, data, jnp.arange(parallel.NUM_SHARDS), key)

    return parallel.alone(update), (_learner(lanes, state), shards, lanes.data, lanes.key)


def _learner(lanes: Lanes, state: RunState) -> Any:
    """The learner of a state, without the snapshots that it may remember."""
    return state.learner.learner if lanes.history else state.learner


def summary(study: Study, folder: Path, preset: str) -> dict[str, Any]:
    """The content of `summary.json` of a finished run; a failed precondition makes claims VOID."""
    found = Found(folder, study.steps)
    scores = study.scores(found)
    rows = {arm: study.shown(scores, arm) for arm in study.arms}
    rows = {arm: row for arm, row in rows.items() if row is not None}
    spent, claims = budget.budgets(study.spent, found), measured(study, scores)
    result = judged(
        claims=claims,
        scores=scores,
        preconditions=study.checks(found, scores),
        preset=preset,
        shown=rows,
        about=study.arms,
        tasks=study.tasks,
        shared_seeds=study.shared_seeds,
        scale=study.scale,
    )
    for claim, told in zip(claims, result["claims"], strict=True):
        told["budget"] = budget.line_of(claim.arms, spent, study.arms)
    return {
        **result,
        "spent": spent,
        "score_label": study.label,
        **({"score_title": study.title} if study.title else {}),
        "figures": study.figures(found),
        "curves": [curve.to_dict() for curve in study.curves],
        "limits": list(study.limits),
        "budgets": {
            step.name: {**_numbers(found[step.name]), "seconds": found.seconds(step.name)}
            for step in study.steps
            if not isinstance(step, Measure)
        },
        "throughput": {
            step.name: throughput(folder, step.name) for step in study.steps if not isinstance(step, Measure)
        },
        **study.extras(found, scores),
    }


def measured(study: Study, scores: Scores) -> list[Claim]:
    """The claims that scores can be judged by: all, but of a partial study those whose arms it ran."""
    return [claim for claim in study.claims if not study.is_partial or _is_measured(claim, scores)]


def _is_measured(claim: Claim, scores: Scores) -> bool:
    is_plain = claim.metric == DEFAULT_METRIC
    return all((claim.metric, arm) in scores or (is_plain and arm in scores) for arm in claim.arms)


def _numbers(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if isinstance(value, int | float)}


def throughput(folder: Path, stage: str) -> dict[str, float]:
    """Median rates of a training stage, compilation apart: everything a second, and MFU."""
    lines = [line for line in metrics_log.read(folder / "metrics.jsonl") if line["stage"] == stage][1:]
    names = [n for n in (lines[0] if lines else ()) if n.endswith("_per_second") or n == "mfu"]
    return {name: float(np.median([line[name] for line in lines])) for name in names}
