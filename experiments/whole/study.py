"""Whole: one transformer with tokens, memory, self-prediction and search; what is each part worth?

Method. An action-state transformer over component tokens (PASTA, arXiv 2307.10936) is pretrained on the
play of perceptrons as PPO taught them, snapshot by snapshot, to predict the next token and, as SPR does
(Schwarzer et al. 2021), its own states ahead. It then learns by reward: its policy by PPO and from what
Gumbel's search (Danihelka et al. 2022) over the states that it predicts makes of it; predicted states learn
the rewards and values that came, and the policy of the state that came. It is played by that search. Each
arm leaves one part out and keeps the rest of the program. Differs from MuZero (Schrittwieser et al. 2020):
no replay, values as numbers, and of predicted states no policy that search found. Differs from SPR: the
state that is predicted is the transformer's, which has heard the actions in between, so that some of what
is predicted is what was done.

Score. The mean return of the last eight snapshots, on CPUs all after the first: how fast an arm learns, and
how far; 0 for random play and 1 for the reference policy. All arms take as many env steps by reward. Those
that are pretrained saw a perceptron's play before, and that perceptron its own training, which is told.

Claims. W1: the whole is better than PPO with a perceptron, which remembers nothing. Each part is worth
something: pretraining (W2), self-prediction (W3), search in training (W4) and at play (W5). Aside:
against MuZero as it stands (W6), component against modality tokens (W7), the saboteurs (W8, W9), the
perceptron at equal operations (W10), and PPO with the same transformer alone (W11).

    jaxagent run whole --preset cpu        # two tasks, four arms, three seeds: a direction
"""

import dataclasses
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import envs
from envs.types import is_one_category
from envs.wrappers import discretize_actions, flat_observations, one_hot_observations, sensor_failure
from experiments.whole.config import ALL_ARMS, Config, TaskConfig
from jaxagent import keys
from jaxagent.agents import actor_critic, muzero
from jaxagent.agents.memory_policy import fresh_actor, standardised
from jaxagent.agents.planning import gumbel_search
from jaxagent.agents.sequence_planner import SequencePlanner
from jaxagent.config import SequencePlannerConfig, require
from jaxagent.evaluate.claims import Claim, Precondition
from jaxagent.report.figure import curves, line, return_curve
from jaxagent.study import agents, films, memory_agents, muzero_agents, planner_agents
from jaxagent.study.budget import Spent
from jaxagent.study.study import Fit, Found, Lanes, Measure, Player, Step, Study
from jaxagent.study.verdicts import Scores, all_between, iqm_by_task, of_tasks
from jaxagent.types import Agent, Policy


class Arm(NamedTuple):
    """The agent of all parts, or what it is without one of them."""

    about: str
    pretrained: str = "both"  # one of `PRETRAININGS`; "": fresh
    has_spr: bool = True
    is_taught: bool = True  # by search in training; else by PPO alone
    has_model: bool = True  # of rewards, values and policies ahead
    searches: bool = True  # at play
    fit: str = ""  # whose networks it plays; "": its own
    has_modalities: bool = False
    mixes: bool = False  # saboteur: search goes on from another lane's state


WHOLE = "whole"
PLANNERS = {
    WHOLE: Arm("all parts"),
    "raw": Arm("the same networks, played by their policy", searches=False, fit=WHOLE),
    "fresh": Arm("without pretraining", ""),
    "without spr": Arm("predicts no states, neither when it is pretrained nor later", "tokens", False),
    "by ppo": Arm("without search in training: it acts by its policy, which PPO teaches", is_taught=False),
    "transformer": Arm(
        "PPO with the same transformer, and nothing else", "", False, False, False, searches=False
    ),
    "modality": Arm("without pretraining; all that is seen is one token", "", has_modalities=True),
    "mixed lanes": Arm("saboteur: search steps from the state of another lane", mixes=True),
    "shuffled": Arm("saboteur: pretrained on shuffled steps", "shuffled"),
}
OTHERS = {
    "mlp": "PPO with towers on what is seen now",
    "mlp, longer": "the same, for as many operations as the whole takes",
    "muzero": "MuZero as it stands, on what is seen now",
}
MLPS = {"mlp": attrgetter("mlp"), "mlp, longer": attrgetter("mlp_longer")}  # their training
PRETRAININGS = {"both": "next tokens and states", "tokens": "next tokens", "shuffled": "shuffled steps"}
ROOM, LEARNED = 0.8, 0.4  # the most that the perceptron may score, the least that someone must
TRIALS, TRIED = {"mlp": 4, "mlp, longer": 4, "muzero": 5}, 12  # settings tried on development seeds
LIMITS = (
    "One network size and one learning rate for all transformers, chosen on development seeds (1000 and up).",
    "Play that was pretrained on, and the training of the perceptrons who played it, come on top of the env "
    "steps that arms are compared by, and are counted in budgets; so does MuZero's warm-up. Bins of all "
    "transformers are fitted to that play, of all seeds.",
    "MuZero chooses among levels of a real action, as it has discrete ones alone.",
    "Transformers with a token a scalar read bins, those with one of all read standardised numbers.",
    "The model tells a reward and a value, and not that an episode ends.",
    "The saboteur that mixes lanes loses what search sees ahead, worth nothing on PositionCartPole.",
)


def study(config: Config) -> Study:
    """Of each task perceptrons, their play, pretrainings, agents, and all of them played."""
    steps: list[Step] = []
    for task in config.tasks:
        pretrain = pretrainings(config, task)
        fits = fits_of(config, task, pretrain)
        # Perceptrons come first, as they may play what is pretrained on.
        first, later = (
            tuple(f for n, f in fits.items() if (n in MLPS) == is_mlp) for is_mlp in (True, False)
        )
        measure = Measure(f"evaluate/{task.name}", partial(evaluate, config, task, fits))
        steps += [*first, history(config, task, fits.get("mlp")), *pretrain.values(), *later, measure]
    names = [task.name for task in config.tasks]
    learned = [return_curve(f"train/{name}/*", f"Return on {name} while training") for name in names]
    told = OTHERS | {name: arm.about for name, arm in PLANNERS.items()}
    about = {arm: told[arm] for arm in config.arms}
    table, checked = partial(of_tasks, tasks=config.tasks, arms=config.arms), partial(checks, config)
    more = {"is_partial": config.arms != ALL_ARMS, "spent": spent(config), "player": partial(player, config)}
    drawn = partial(figures, config)
    return Study(about, names, steps, table, claims(), checked, drawn, learned, LIMITS, **more)


def claims() -> list[Claim]:
    """What is claimed, by no less than eight seeds show (development seeds 1000 to 1004)."""
    better = partial(Claim, kind="superiority", arm_a=WHOLE, margin=0.125)
    aside = partial(better, gated=False)
    return [
        better("W1", "the whole beats PPO with a perceptron", arm_b="mlp"),
        aside("W2", "pretraining is worth something", arm_b="fresh"),
        aside("W3", "self-prediction is worth something", arm_b="without spr"),
        aside("W4", "search in training is worth something", arm_b="by ppo"),
        aside("W5", "search at play adds to the policy of the same network", arm_b="raw"),
        aside("W6", "the whole beats MuZero", arm_b="muzero"),
        aside("W10", "the whole beats the perceptron at equal operations", arm_b="mlp, longer"),
        aside("W7", "a token a scalar beats one of all", arm_a="fresh", arm_b="modality"),
        aside("W8", "states of another lane lose the effect", arm_b="mixed lanes"),
        aside("W11", "all parts beat PPO with the same transformer", arm_b="transformer"),
        aside("W9", "what pretraining gives is the order of steps", arm_b="shuffled", margin=0.16),
    ]


def spent(config: Config) -> dict[str, Spent]:
    """Stages of each arm, and networks that are asked before an action."""
    result, searched = {}, max(task.play.num_simulations for task in config.tasks)
    for name in config.arms:
        arm = PLANNERS.get(name, Arm("", "", searches=name == "muzero"))
        stages = [f"train/*/{stage_of(stage_arm(name))}"]
        stages += [f"pretrain/*/{arm.pretrained}"] if arm.pretrained else []
        stages += ["train/*/mlp"] if arm.pretrained and config.history.players == "mlp" else []
        result[name] = Spent(tuple(stages), 1 + searched * arm.searches, TRIALS.get(name, TRIED))
    return result


def stage_of(arm: str) -> str:
    """An arm's name as that of a stage."""
    return arm.replace(", ", "-").replace(" ", "-")


# --- pretraining -------------------------------------------------------------------------------------


def needed(config: Config) -> list[str]:
    """The pretrainings that the arms begin with."""
    used = {PLANNERS[arm].pretrained for arm in config.arms if arm in PLANNERS}
    return [name for name in PRETRAININGS if name in used]


def history(config: Config, task: TaskConfig, mlp: Fit | None) -> Measure:
    """The play that is pretrained on; the bins of all transformers are fitted to it, of all seeds."""
    sizes = config.history.lanes, config.history.steps, f"whole/{collected(task)}"

    def collect(folder: Path, place: Path) -> dict[str, Any]:
        env, params = made(task)
        if config.history.players == "random":
            policy, players = agents.uniform_policy(env), [np.zeros((1, 1))] * len(config.seeds)
        else:
            acting, kept = (
                agents.as_policy(world_of(task, "mlp")[0], task.mlp, is_greedy=False),
                mlp.load(folder),
            )
            policy = Policy(acting.init, partial(seen_flat, acting.act))
            players = [agents.take(kept, slice(None), i) for i in range(len(config.seeds))]
        return planner_agents.play(env, params, policy, players, config.seeds, *sizes, place, folder)

    return Measure(collected(task), collect)


def seen_flat(act: Any, params: Any, carry: Any, obs: Any, *rest: Any) -> Any:
    """As `act`, which sees boards as vectors."""
    return act(params, carry, obs.reshape(obs.shape[0], -1), *rest)


def collected(task: TaskConfig) -> str:
    """The stage of the play that is pretrained on."""
    return f"collect/{task.name}"


def reading(config: Config, task: TaskConfig, folder: Path | None) -> planner_agents.Reading:
    """A task's play as transformers read it."""
    env, _ = made(task)
    played = planner_agents.stored(folder, collected(task))
    model = dataclasses.replace(config.model, patch=task.patch)
    return planner_agents.reading(env, played, len(config.seeds), config.tokens, model)


def pretrainings(config: Config, task: TaskConfig) -> dict[str, Fit]:
    """A lane a seed, each on its own play."""

    def lanes(name: str, folder: Path | None) -> Lanes:
        planner = without_spr(task.planner) if name == "tokens" else task.planner
        sizes = config.seeds, config.pretrain, planner, f"whole/pretrain/{task.name}"
        of = reading(config, task, folder)
        return planner_agents.pretraining(of, *sizes, is_shuffled=name == "shuffled")

    return {name: Fit(f"pretrain/{task.name}/{name}", partial(lanes, name)) for name in needed(config)}


def without_spr(planner: SequencePlannerConfig) -> SequencePlannerConfig:
    """The agent that predicts no states."""
    return dataclasses.replace(planner, spr=dataclasses.replace(planner.spr, weight=0.0))


# --- agents ------------------------------------------------------------------------------------------


def config_of(task: TaskConfig, arm: Arm) -> SequencePlannerConfig:
    """How an arm learns."""
    planner = task.planner if arm.has_spr else without_spr(task.planner)
    if not arm.has_model:
        planner = dataclasses.replace(planner, model_weight=0.0)
    return planner if arm.is_taught else dataclasses.replace(planner, targets="ppo", acts_by="policy")


def planner_of(config: Config, task: TaskConfig, name: str, folder: Path | None) -> SequencePlanner:
    """The agent of an arm."""
    arm = PLANNERS[name]
    env, _ = world_of(task, name)
    if arm.has_modalities:
        model = dataclasses.replace(config.model, patch=max(env.obs_shape))
        return planner_agents.planner_on(fresh_actor(env, model), config_of(task, arm))
    actor = reading(config, task, folder).actor
    planner = planner_agents.planner_on(actor, config_of(task, arm))
    if arm.mixes:
        planner = dataclasses.replace(planner, walked=planner_agents.shuffled_lanes)
    return planner_agents.beginning(planner, config.way, config.lora_rank) if arm.pretrained else planner


def made(task: TaskConfig) -> tuple[Any, Any]:
    """The world of a task, with the sensors that are seen."""
    env, params = envs.make(task.env, **task.overrides)
    sensors = {*range(len(env.obs_spec))}
    expected, fix = f"sensors from 0 to {len(sensors) - 1}", "see the environment's obs_spec"
    require({*task.kept} <= sensors, f"TaskConfig.kept of {task.env}", task.kept, expected, fix)
    left_out = sorted(sensors - {*task.kept})
    return sensor_failure(env, params, left_out, "drop") if task.kept else (env, params)


def world_of(task: TaskConfig, name: str) -> tuple[Any, Any]:
    """The world of an arm: boards as vectors, categories as numbers, actions as levels, where it needs it."""
    env, params = made(task)
    if name == "muzero" and not is_one_category(env.action_spec):
        env, params = discretize_actions(env, params, task.levels)
    if len(env.obs_shape) > 1:
        return flat_observations(env, params) if name in MLPS else (env, params)
    reads_numbers = name == "muzero" or (name in PLANNERS and PLANNERS[name].has_modalities)
    return one_hot_observations(env, params) if reads_numbers else (env, params)


def fits_of(config: Config, task: TaskConfig, pretrain: dict[str, Fit]) -> agents.Fits:
    """A lane a seed; agents of a seed meet worlds drawn alike."""
    fits, seeds, purpose = {}, config.seeds, f"whole/{task.name}"
    for name in config.arms:
        (env, params), stage = world_of(task, name), f"train/{task.name}/{stage_of(name)}"
        if name in MLPS:
            ppo = MLPS[name](task)
            agent = actor_critic.ppo(env.obs_spec, env.action_spec, ppo)
            fits[name] = memory_agents.fit(stage, env, params, ppo, agent, seeds, purpose)
        elif name == "muzero":
            loop = muzero_agents.loop(env, task.muzero)
            fits[name] = agents.seeded(stage, loop, params, task.muzero, seeds, purpose, in_turn=True)
        elif not PLANNERS[name].fit:
            arm = PLANNERS[name]
            given = partial(planner_agents.given_by, pretrain[arm.pretrained]) if arm.pretrained else None
            more = {"is_normalized": arm.has_modalities, "in_turn": config_of(task, arm).searches}
            args = task.planner.ppo, partial(agent_of, config, task, name), seeds, purpose
            fits[name] = memory_agents.fit(stage, env, params, *args, given=given, **more)
    return fits


def agent_of(config: Config, task: TaskConfig, name: str, folder: Path | None) -> Agent:
    """What learns of an arm."""
    return planner_of(config, task, name, folder).agent


def policy_of(config: Config, task: TaskConfig, name: str, folder: Path) -> Policy:
    """An arm as it is played, without chance; of params, or `(params, moments)`."""
    env, _ = world_of(task, name)
    if name in MLPS:
        judge = actor_critic.towers(env.obs_spec, env.action_spec, task.mlp)
        return standardised(env, actor_critic.greedy(judge, env.action_spec))
    if name == "muzero":
        model = muzero.model_of(env.obs_shape, env.action_spec, task.muzero.model)
        return muzero.policy(model, gumbel_search(task.muzero.search, gumbel_scale=0.0), task.muzero)
    arm = PLANNERS[name]
    plan = gumbel_search(task.play, gumbel_scale=0.0) if arm.searches else None
    policy = planner_of(config, task, stage_arm(name), folder).policy(plan)
    return standardised(env, policy) if arm.has_modalities else policy


def evaluate(
    config: Config, task: TaskConfig, fits: agents.Fits, folder: Path, place: Path
) -> dict[str, Any]:
    """Curves of snapshots `[snapshots, seeds]` by arm, the means of the last ones, and films."""
    del place
    key = keys.derive(0, f"whole/{task.name}/evaluate")
    ppo, played = task.planner.ppo, {}
    rows = np.arange(ppo.num_chunks + 1)
    for name in config.arms:
        env, params = world_of(task, name)
        arena = agents.arena(env, params, config.seeds, config.episodes, key)
        kept = fits[stage_arm(name)].load(folder)
        policy = policy_of(config, task, name, folder)
        played[name] = arena.history(policy, kept, rows, MLPS[name](task) if name in MLPS else ppo)
        last = agents.take(kept, -1, 0)
        films.write(
            folder, f"{stage_of(name)}--{task.name}", env, policy, last, params, films.key(key), fps=8
        )
    moments = []
    if WHOLE in config.arms:
        (env, params), planner = world_of(task, WHOLE), planner_of(config, task, WHOLE, folder)
        last = agents.take(fits[WHOLE].load(folder), -1, 0)
        moments.append(
            planner_agents.moment(env, planner, last, params, films.key(key), task.play, task.name)
        )
    late = {name: np.mean(c["returns"][-config.averaged :], axis=0).tolist() for name, c in played.items()}
    return {"returns": late, "curves": played, "moments": moments}


def player(config: Config, folder: Path, arm: str, task: str) -> Player:
    """An arm as it ended."""
    of = agents.task_of(config.tasks, task)
    fit = fits_of(config, of, pretrainings(config, of))[stage_arm(arm)]
    policy, last = policy_of(config, of, arm, folder), agents.last(fit.load(folder))
    return Player(*world_of(of, arm), policy, last, config.seeds, of.overrides)


def stage_arm(arm: str) -> str:
    """The arm whose networks an arm plays."""
    return (PLANNERS[arm].fit if arm in PLANNERS else "") or arm


def checks(config: Config, found: Found, table: Scores) -> list[Precondition]:
    """There is room above the perceptron, and someone learns."""
    del found
    scores = [iqm_by_task([task.name for task in config.tasks], rows) for rows in table.values()]
    best = {task.name: max(score[task.name] for score in scores) for task in config.tasks}
    result = [all_between("the best arm learns", best, low=LEARNED)]
    mlp = iqm_by_task(best, table["mlp"]) if "mlp" in table else {}
    return [*result, all_between("the perceptron leaves room", mlp, high=ROOM)] if mlp else result


def figures(config: Config, found: Found) -> list[dict[str, Any]]:
    """Returns of snapshots over env steps, an arm a line."""
    drawn = []
    for task in config.tasks:
        played = found[f"evaluate/{task.name}"]["curves"]
        lines = [line(arm, c["steps"], c["returns"]) for arm, c in played.items()]
        drawn += found[f"evaluate/{task.name}"]["moments"]
        told = f"Snapshots over {config.episodes} episodes; a line a seed."
        drawn.append(curves(f"Returns on {task.name}", told, "env steps", "return", lines))
    return drawn
