"""Measure the random and expert returns by which experiments normalise; writes `envs/returns.json`.

    python -m benchmarks.returns                                  # every task of the quickstart
    python -m benchmarks.returns --task 'gymnax/CartPole-v1 length=2'
    python -m benchmarks.returns --scripted                       # every pure id; or: minatar

Random: uniform legal actions. Expert: the best of several PPO agents, trained twice as long as the
quickstart trains them, playing its mode; with `--scripted` the scripted expert of the true state,
null where there is none. Both over the same fixed first states; seeds 2000 and up. Of two players,
the return of one: of either side in turn, against random play.
"""

import argparse
import dataclasses
import datetime
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.experts import EXPERTS
from envs.registry import missing_package
from envs.returns import TABLE, task_name
from envs.types import sample_action
from envs.vector import broadcast_params
from jaxagent import keys
from jaxagent.config import PPOConfig, fingerprint
from jaxagent.evaluate.episodes import play
from jaxagent.files import write_json
from jaxagent.folders import MANIFEST
from jaxagent.study import agents, histories
from jaxagent.study.config import ACROBOT, CARTPOLE, PENDULUM
from jaxagent.train import run

TASKS = (CARTPOLE, ACROBOT, PENDULUM)  # of the quickstart, with what PPO needs to learn them
SEED, AGENTS, EPISODES, CANDIDATES = 2000, 6, 256, 5
SCRIPTED_EPISODES = 64  # of each pure id; plans that look ahead take many steps for one


def measure(env_id: str, overrides: dict[str, float], ppo: PPOConfig) -> dict[str, float]:
    """Random and expert return of one task."""
    env, task = envs.make(env_id, **overrides)
    lanes, key = broadcast_params(task, EPISODES), keys.derive(SEED, f"returns/{env_id}")
    random = jax.jit(lambda: play(env, agents.uniform_policy(env), (), lanes, key).returns)()
    long = dataclasses.replace(ppo, num_updates=2 * ppo.num_updates)
    fit = agents.population("train", env, [task] * AGENTS, long, SEED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_json(folder / MANIFEST, {"fingerprint": fingerprint(long)})
        run.run(folder, [fit.stage(devices=1)], chunks_per_save=1000)
        snapshots = fit.load(folder)
    last = agents.take(snapshots, slice(-CANDIDATES, None))
    greedy = agents.as_policy(env, long, is_greedy=True)
    # Chosen on other episodes than it is measured on, or the maximum would flatter it.
    chosen_on = histories.mean_returns(
        env, greedy, last, [task] * AGENTS, EPISODES, keys.derive(SEED, "returns/choose")
    )
    best = np.unravel_index(np.argmax(chosen_on), chosen_on.shape)
    expert = jax.tree.map(lambda x: jnp.asarray(x[best]), last)
    returns = jax.jit(lambda p: play(env, greedy, p, lanes, key).returns)(expert)
    return {"random": round(float(jnp.mean(random)), 2), "expert": round(float(jnp.mean(returns)), 2)}


def measure_scripted(env_id: str, overrides: dict[str, float] | None = None) -> dict[str, float | None]:
    """Random return of a task, nominal unless `overrides` are given, and the scripted expert's or None."""
    env, task = envs.make(env_id, **(overrides or {}))
    expert = EXPERTS.get(env_id)

    def mean(*experts: bool) -> float:
        returns = _play_by_state(env, task, expert, experts)
        # Two players: of the one who is the expert, or of the first.
        of = max(range(len(experts)), key=lambda player: experts[player])
        return float(jnp.mean(returns if env.num_players == 1 else returns[:, of]))

    if env.num_players == 1:
        random, best = mean(False), mean(True) if expert else None
    else:
        random = mean(False, False)
        best = (mean(True, False) + mean(False, True)) / 2 if expert else None
    return {"random": round(random, 3), "expert": None if best is None else round(best, 3)}


def _play_by_state(env: Any, task: Any, expert: Any, experts: tuple[bool, ...]) -> jax.Array:
    """Returns `[B]` (or `[B, players]`) of one episode a lane; `experts[player]` acts by script."""

    def act(key, state):
        legal = env.legal_actions(state, task) if env.has_legal_actions else None
        random = sample_action(key, env.action_spec, legal)
        if not any(experts):
            return random
        is_expert = jnp.array(experts)[env.current_player(state)]
        return jnp.where(is_expert, expert(state, task), random)

    def step(carry):
        t, key, state, is_over, total = carry
        key_act, key_env = jax.random.split(jax.random.fold_in(key, t))
        action = act(key_act, state)
        _, state, reward, terminated, truncated, _ = env.step(key_env, state, action, task)
        total = total + jnp.where(is_over, 0.0, reward)
        return t + 1, key, state, is_over | terminated | truncated, total

    def episode(key):
        key_reset, key_run = jax.random.split(key)
        state = env.reset(key_reset, task)[1]
        none = jnp.zeros(env.num_players if env.num_players > 1 else ())
        start = jnp.int32(0), key_run, state, jnp.array(False), none
        return jax.lax.while_loop(lambda carry: ~carry[3], step, start)[4]

    key = keys.derive(SEED, f"returns/{env.name}")
    return jax.jit(jax.vmap(episode))(jax.random.split(key, SCRIPTED_EPISODES))


def _merge(name: str, row: dict[str, Any], *arguments: str) -> None:
    """Write one row into the table."""
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    table[name] = row | {
        "command": shlex.join(["python", "-m", "benchmarks.returns", *arguments]),
        "date": datetime.date.today().isoformat(),
        "versions": {"jax": jax.__version__, "python": sys.version.split()[0]},
    }
    print(name, row, flush=True)
    TABLE.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n")


def measure_all_scripted(only: str) -> None:
    """Rows of every pure id whose name has `only` in it; what a PPO agent measured stays."""
    for env_id in envs.registered():
        family = env_id.split("/")[0]
        if only not in env_id or family in ("ale", "probe") or missing_package(family):
            continue
        table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
        if env_id in table and "--task" in table[env_id]["command"]:
            continue
        _merge(env_id, measure_scripted(env_id), "--scripted", env_id)
        jax.clear_caches()  # hundreds of compiled programs in one process crash XLA


def main() -> None:
    """Measure the wanted tasks and merge them into the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", help="one task by name, default all of the quickstart")
    parser.add_argument("--scripted", nargs="?", const="", metavar="ID", help="part of an id")
    arguments = parser.parse_args()
    if arguments.scripted is not None:
        measure_all_scripted(arguments.scripted)
        return
    wanted = {
        task_name(t.env, overrides): (t.env, overrides, t.ppo)
        for t in TASKS
        for overrides in ({}, t.overrides)
    }
    if arguments.task:
        env_id, *pairs = arguments.task.split()
        overrides = {k: float(v) for k, v in (p.split("=") for p in pairs)}
        ppo = next((t.ppo for t in TASKS if t.env == env_id), PPOConfig())
        wanted = {task_name(env_id, overrides): (env_id, overrides, ppo)}
    for name, (env_id, overrides, ppo) in wanted.items():
        # A memory world's expert sees what is hidden; PPO without a memory would be none.
        by_script = env_id.startswith("memory/")
        row = measure_scripted(env_id, overrides) if by_script else measure(env_id, overrides, ppo)
        _merge(name, row, "--task", name)


if __name__ == "__main__":
    main()
