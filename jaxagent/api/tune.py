"""Settings that optuna asks for, as lanes of one program a round, ranked as a sweep's are."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import envs
from envs.common.names import MissingExtra
from jaxagent.api import study as training
from jaxagent.api import sweep
from jaxagent.api.config import TuneConfig, is_log
from jaxagent.api.kinds import Kind, kind_of, refuse
from jaxagent.report.figure import line
from jaxagent.study import sweeps
from jaxagent.study.study import Found, Measure, Step, Study
from jaxagent.study.verdicts import Scores
from jaxagent.train.run import read_done

Values = dict[str, float]


def study(config: TuneConfig) -> Study:
    """Rounds of trials, each fitted and played; what a round tries depends on all before it.

    Raises ValueError for what the agent cannot read, `MissingExtra` without optuna.
    """
    _optuna()
    train = config.train
    env, task = envs.make(train.env, **dict(train.change))
    refuse(env, train)
    kind = kind_of(train)
    lanes_of = partial(sweep.lanes, train, env, task)
    sweep.require_lanes(lanes_of, config.middle)
    steps: list[Step] = []
    for number in range(config.num_rounds):
        values_of = partial(_values_of, config, number)
        purpose = f"train/{train.env}"
        fit = sweeps.fit(f"train/{number}", lanes_of, values_of, list(train.seeds), purpose)
        measure = partial(evaluate, config, kind, env, task, fit, number)
        steps += [fit, Measure(f"evaluate/{number}", measure)]
    return training.of_returns(
        train,
        env,
        {name_of(i): "" for i in range(config.trials)},
        steps,
        partial(scores, config),
        figures=partial(figures, config),
        limits=sweep.LIMITS,
        extras=partial(extras, config),
    )


def name_of(trial: int) -> str:
    """What tables call a trial."""
    return f"trial {trial}"


def asked(config: TuneConfig, told: list[list[tuple[Values, float]]]) -> list[Values]:
    """What the sampler (TPE) tries after the rounds that it was `told` of: the same for the same rounds."""
    optuna = _optuna()
    ranges = {
        field: optuna.distributions.FloatDistribution(low, high, log=is_log(low, high))
        for field, (low, high) in config.space
    }
    sampler = optuna.samplers.TPESampler(
        seed=config.sampler_seed, n_startup_trials=config.at_once, constant_liar=True
    )
    memory = optuna.create_study(direction="maximize", sampler=sampler)
    for number in range(len(told) + 1):
        trials = [memory.ask(ranges) for _ in range(config.at_once)]
        if number == len(told):
            return [{field: float(np.float32(x)) for field, x in trial.params.items()} for trial in trials]
        for trial, (_, score) in zip(trials, told[number], strict=True):
            memory.tell(trial, score)
    raise AssertionError("the last round returns")


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingExtra("optuna is not installed; pip install 'jaxagent[optuna]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _values_of(config: TuneConfig, number: int, folder: Path | None) -> Mapping[str, list[float]]:
    """The values by field that a round tries; the middle of the space where there is no folder."""
    if folder is None:
        return {field: [value] * config.at_once for field, value in config.middle.items()}
    rounds = [read_done(folder, f"evaluate/{i}")["summary"]["trials"] for i in range(number)]
    told = [[(trial["values"], trial["score"]) for trial in one] for one in rounds]
    trials = asked(config, told)
    return {field: [trial[field] for trial in trials] for field, _ in config.space}


def evaluate(
    config: TuneConfig, kind: Kind, env: Any, task: Any, fit: Any, number: int, folder: Path, place: Path
) -> dict[str, Any]:
    """Of each trial of a round its values, what it played, and its score, the mean of the last snapshot."""
    del place
    by_field = _values_of(config, number, folder)
    values = [dict(zip(by_field, one, strict=True)) for one in zip(*by_field.values(), strict=True)]
    played = sweep.play_all(config.train, kind, env, task, fit.load(folder), values)
    return {
        "trials": [
            {"values": one, "score": float(np.mean(found["returns"][-1])), **found}
            for one, found in zip(values, played, strict=True)
        ]
    }


def _trials(config: TuneConfig, found: Found) -> dict[str, dict[str, Any]]:
    every = [trial for i in range(config.num_rounds) for trial in found[f"evaluate/{i}"]["trials"]]
    return {name_of(i): trial for i, trial in enumerate(every)}


def scores(config: TuneConfig, found: Found) -> Scores:
    """Returns `[1, seeds]` of the last snapshot by trial."""
    return {name: np.array([trial["returns"][-1]]) for name, trial in _trials(config, found).items()}


def figures(config: TuneConfig, found: Found) -> list[dict[str, Any]]:
    """Returns of the snapshots, a line a trial and seed."""
    lines = [line(name, t["steps"], t["returns"]) for name, t in _trials(config, found).items()]
    return [training.snapshots(config.train, lines)]


def extras(config: TuneConfig, found: Found, table: Scores) -> dict[str, Any]:
    """The ranking, with the values of every trial in its name."""
    trials = _trials(config, found)
    ranking = sweep.ranking(table)
    for row in ranking:
        row["values"] = trials[row["name"]]["values"]
        row["name"] = " ".join([row["name"], *(f"{field}={x:.4g}" for field, x in row["values"].items())])
    return {"ranking": ranking}
