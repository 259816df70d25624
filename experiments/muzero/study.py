"""MuZero: search in a model of latents that is learned for nothing but search.

Method. Gumbel MuZero (Schrittwieser et al. 2020; Danihelka et al. 2022): every action is searched
for in the learned model; policy, value and reward heads of K unrolled latents learn from what
search found, from rewards and from a slow copy's values; a share of old windows is searched anew.
With a consistency loss latents are also held to the encoder's of the next observation
(EfficientZero, Ye et al. 2021): its weight is an argument.

Claims. M1: the trained model acts better with search than by its policy head alone. M2: it beats
the saboteur, which remembers the action of another lane. Aside on CartPole, gated on MinAtar: the
consistency loss helps (M3); PPO's return is reached in fewer steps than PPO takes (M4).

    jaxagent run muzero --preset cpu        # under 10 minutes on 2 cores
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import envs
from envs.returns import reference
from envs.vector import VectorEnv
from envs.wrappers import flat_observations
from experiments.muzero.config import Config, TaskConfig
from jaxagent import keys
from jaxagent.agents import muzero, planning
from jaxagent.config import MuZeroConfig
from jaxagent.data import replay
from jaxagent.evaluate.claims import Claim, Precondition
from jaxagent.report.figure import Curve, curves, level, line
from jaxagent.study import agents, films
from jaxagent.study.study import Fit, Found, Measure, Study
from jaxagent.study.verdicts import Scores, between, of_tasks
from jaxagent.train import loops, optimizer
from jaxagent.types import Trajectory

ARMS = {
    "muzero": "search in the learned model, consistency loss on",
    "raw": "the same model's policy head alone",
    "no-consistency": "trained without the consistency loss, acts by search",
    "saboteur": "trained on steps with another lane's actions, acts by search",
    "untrained": "search over the first, random model",
    "ppo": "PPO in the same stretch of env steps",
    "ppo, all steps": "PPO after all of its steps: the anchor",
}
TRAINED = ("muzero", "no-consistency", "saboteur")  # models, beside PPO's networks
LIMITS = (
    "Windows are drawn uniformly from the replay, not by priority; no value prefix.",
    "A seed's score is the mean over its late snapshots: one alone says little of it.",
    "Settings were chosen on development seeds (1000 and up), as were PPO's of the quickstart.",
    "On CartPole PPO needs no more env steps than MuZero: the task is too easy to need a model.",
)
GAP, CEILING = 0.6, 0.95  # three times the largest margin; of the mean score without search
CURVES = tuple(
    Curve(f"train/loss/{loss}", tuple(f"train/*/{arm}" for arm in TRAINED), title, "env_steps", label)
    for loss, title, label in (
        ("policy", "Policy head against search", "cross-entropy, nats"),
        ("value", "Value head against returns", "cross-entropy, nats"),
        ("consistency", "Latents against the encoder's", "1 - cosine"),
    )
)


def study(config: Config) -> Study:
    """Every model of a task, PPO, then all of them played."""
    steps: list[Fit | Measure] = []
    for task in config.tasks:
        fits = fits_of(config, task)
        steps += [*fits.values(), Measure(f"evaluate/{task.name}", partial(evaluate, config, task, fits))]
    return Study(
        ARMS,
        [task.name for task in config.tasks],
        steps,
        partial(scores, config),
        claims(config),
        checks,
        partial(figures, config),
        CURVES,
        LIMITS,
    )


def claims(config: Config) -> list[Claim]:
    """What is claimed; margins were fixed before the claim seeds ran."""
    better = partial(Claim, kind="superiority", arm_a="muzero")
    is_large = any(task.muzero.model.trunk.channels for task in config.tasks)
    return [
        better("M1", "search helps the trained model", arm_b="raw", margin=0.05),
        better("M2", "it beats the saboteur", arm_b="saboteur", margin=0.2),
        better("M3", "the consistency loss helps", arm_b="no-consistency", margin=0.02, gated=is_large),
        Claim(
            "M4",
            "it reaches PPO's return in fewer steps",
            "ratio",
            "muzero",
            "ppo",
            margin=1.0,
            metric="steps",
            direction="below",
            gated=is_large,
        ),
    ]


def fits_of(config: Config, task: TaskConfig) -> dict[str, Fit]:
    """A lane a seed; models of a seed begin alike and draw alike."""
    env, params = envs.make(task.env)
    seeds = tuple(config.seeds)

    def one(name: str, fit: MuZeroConfig, as_steps: Any) -> Fit:
        loop = loops.replay(
            muzero.muzero(env.obs_shape, env.action_spec, fit),
            VectorEnv(env),
            optimizer.decayed_adam(fit.learning_rate, fit.weight_decay, fit.max_gradient_norm),
            fit,
            explore=muzero.uniform(env.action_spec),
            as_steps=as_steps,
            slow=loops.moving_average(lambda params: params, fit.tau),
            memory=replay.windows(muzero.window(fit)),
            is_normalized=False,
            in_turn=True,
        )
        # A search copies its trees under vmap: lanes in turn, too.
        return agents.seeded(
            f"train/{task.name}/{name}", loop, params, fit, seeds, f"muzero/{task.name}", in_turn=True
        )

    flat, flat_params = flat_observations(env, params)
    return {
        "muzero": one("muzero", task.muzero, muzero.as_steps),
        "no-consistency": one(
            "no-consistency", dataclasses.replace(task.muzero, consistency_weight=0.0), muzero.as_steps
        ),
        "saboteur": one("saboteur", task.muzero, of_another_lane),
        "ppo": agents.population(
            f"train/{task.name}/ppo", flat, [flat_params] * len(seeds), task.ppo, config.seeds.first
        ),
    }


def of_another_lane(trajectory: Trajectory) -> muzero.MuZeroStep:
    """The saboteur's memory: every step is kept with the action of the lane beside it."""
    steps = muzero.as_steps(trajectory)
    return steps._replace(action=jnp.roll(steps.action, 1, axis=-1))


def evaluate(
    config: Config, task: TaskConfig, fits: dict[str, Fit], folder: Path, place: Path
) -> dict[str, Any]:
    """Curves of snapshots `[snapshots, seeds]` by arm, and the means of the late ones."""
    del place
    env, params = envs.make(task.env)
    fit, key = task.muzero, keys.derive(0, f"muzero/{task.name}/evaluate")
    room = agents.room(env, params, config.seeds, config.episodes, key)
    model = muzero.model_of(env.obs_shape, env.action_spec, fit.model)
    search = muzero.policy(model, planning.gumbel_search(fit.search, gumbel_scale=0.0), fit)
    raw = muzero.policy(model, planning.no_search(is_greedy=True), fit)
    rows = agents.even_rows(fit.num_chunks, config.num_snapshots + 1)
    steps = [fit.warmup_steps + fit.env_steps_per_chunk * int(row) for row in rows]
    kept = {name: fits[name].load(folder) for name in TRAINED}
    played = {name: room.curve(search, agents.take(models, rows)) for name, models in kept.items()}
    played["raw"] = room.curve(raw, agents.take(kept["muzero"], rows))
    found = {name: {"steps": steps, "returns": returns.tolist()} for name, returns in played.items()}
    found["ppo"] = ppo_curve(config, task, fits["ppo"].load(folder), room)
    films.write(
        folder,
        f"muzero--{task.name}",
        env,
        search,
        agents.take(kept["muzero"], -1, 0),
        params,
        films.key(key),
    )
    late = steps[-config.num_averaged], steps[-1]
    returns = {name: mean_between(curve, *late) for name, curve in found.items()}
    returns |= {"untrained": found["muzero"]["returns"][0], "ppo, all steps": found["ppo"]["returns"][-1]}
    return {"returns": returns, "curves": found}


def ppo_curve(config: Config, task: TaskConfig, kept: Any, room: agents.Room) -> dict[str, Any]:
    """PPO's returns, as fine as MuZero's where both are compared."""
    env, params = flat_observations(room.env, room.task)
    last, chunk = task.ppo.num_chunks, task.ppo.env_steps_per_chunk
    early = np.arange(min(2 * (task.muzero.env_steps // chunk), last) + 1)
    rows = np.union1d(early, agents.even_rows(last, config.num_snapshots + 1))
    policy = agents.as_policy(env, task.ppo, is_greedy=True)
    returns = room._replace(env=env, task=params).curve(policy, agents.take(kept, rows))
    return {"steps": [chunk * int(row) for row in rows], "returns": returns.tolist()}


def mean_between(curve: dict[str, Any], first: float, last: float) -> list[float]:
    """Mean returns `[seeds]` of snapshots from `first` to `last` env steps.

    One snapshot says little of a seed: policies of these agents come and go between them.
    """
    steps = np.array(curve["steps"])
    return np.array(curve["returns"])[(first <= steps) & (steps <= last)].mean(0).tolist()


def scores(config: Config, found: Found) -> Scores:
    """Normalised returns `[tasks, seeds]` by arm, and env steps to the anchor by ("steps", arm)."""
    table = of_tasks(found, config.tasks, ARMS)
    done = {task.name: found[f"evaluate/{task.name}"] for task in config.tasks}
    for arm in ("muzero", "ppo"):
        table["steps", arm] = np.stack(
            [
                steps_to(one, arm, anchor(config, found, task))
                for task, one in zip(config.tasks, done.values(), strict=True)
            ]
        )
    return table


def anchor(config: Config, found: Found, task: TaskConfig) -> float:
    """The return that both have to reach: a share of the way from random play to PPO's."""
    low, final = reference(task.env).random, found[f"evaluate/{task.name}"]["returns"]["ppo, all steps"]
    return low + config.anchor * (float(np.mean(final)) - low)


def steps_to(done: dict[str, Any], arm: str, goal: float) -> np.ndarray:
    """Env steps `[seeds]` of the first snapshot that reaches a return; PPO's last where none does."""
    curve = done["curves"][arm]
    reached = np.array(curve["returns"]) >= goal
    first = np.array(curve["steps"], float)[reached.argmax(0)]
    return np.where(reached.any(0), first, max(done["curves"]["ppo"]["steps"]))


def checks(found: Found, table: Scores) -> list[Precondition]:
    """PPO learns the tasks in the end, and the policy head alone leaves room."""
    del found
    gap = float(table["ppo, all steps"].mean() - table["untrained"].mean())
    return [
        between("PPO is far above search over an untrained model", gap, GAP, what="difference"),
        between("the policy head alone leaves room", float(table["raw"].mean()), high=CEILING),
    ]


def figures(config: Config, found: Found) -> list[dict[str, Any]]:
    """Returns of snapshots against env steps; PPO's first part, which is comparable."""
    result = []
    for task in config.tasks:
        drawn = found[f"evaluate/{task.name}"]["curves"]
        shown = 2 * max(drawn["muzero"]["steps"])
        lines = []
        for arm, curve in drawn.items():
            count = sum(step <= shown for step in curve["steps"])
            lines.append(line(arm, curve["steps"][:count], curve["returns"][:count]))
        ends = 0, max(one["x"][-1] for one in lines)
        lines.append(level("anchor", ends, anchor(config, found, task)))
        caption = (
            f"Snapshots over {config.episodes} episodes; a line a seed; dashed: {config.anchor:g} of "
            "PPO's final return."
        )
        result.append(curves(f"Returns on {task.name}", caption, "env steps of a seed", "return", lines))
    return result
