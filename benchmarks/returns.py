"""Measure the random and expert returns by which experiments normalise; writes `envs/returns.json`.

    python -m benchmarks.returns                                  # every task of the quickstart
    python -m benchmarks.returns --task 'gymnax/CartPole-v1 length=2'

Random: uniform actions. Expert: the best of several PPO agents, trained twice as long as the
quickstart trains them, playing its mode. Both over the same fixed first states; seeds 2000 and up.
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
from envs.returns import TABLE, task_name
from envs.types import sample_action
from envs.vector import broadcast_params
from experiments.configs.quickstart import CPU
from experiments.parts import experts
from jaxagent import keys
from jaxagent.config import PPOConfig
from jaxagent.evaluate.episodes import play
from jaxagent.train import run
from jaxagent.types import Policy

SEED, AGENTS, EPISODES, CANDIDATES = 2000, 6, 256, 5


def random_policy(env: Any) -> Policy:
    """Uniform actions."""

    def act(params, carry, obs, is_first, key):
        del params, is_first
        action_keys = jax.random.split(key, obs.shape[0])
        return jax.vmap(lambda k: sample_action(k, env.action_spec))(action_keys), (), carry

    return Policy(lambda batch_size: (), act)


def measure(env_id: str, overrides: dict[str, float], ppo: PPOConfig) -> dict[str, float]:
    """Random and expert return of one task."""
    env, task = envs.make(env_id, **overrides)
    lanes, key = broadcast_params(task, EPISODES), keys.derive(SEED, f"returns/{env_id}")
    random = jax.jit(lambda: play(env, random_policy(env), (), lanes, key, env.max_steps).returns)()
    long = dataclasses.replace(ppo, num_updates=2 * ppo.num_updates)
    stage = run.Stage("train", lambda folder: experts.train(env, [task] * AGENTS, long, SEED, 1))
    with tempfile.TemporaryDirectory() as folder:
        run.run(Path(folder), [stage], chunks_per_save=1000)
        place = run.stage_folder(Path(folder), "train")
        snapshots = experts.load_snapshots(place, env, long, AGENTS)
    last = jax.tree.map(lambda x: x[-CANDIDATES:], snapshots)
    greedy = experts.as_policy(env, long, is_greedy=True)
    # Chosen on other episodes than it is measured on, or the maximum would flatter it.
    chosen_on = experts.mean_returns(
        env, greedy, last, [task] * AGENTS, EPISODES, keys.derive(SEED, "returns/choose")
    )
    best = np.unravel_index(np.argmax(chosen_on), chosen_on.shape)
    expert = jax.tree.map(lambda x: jnp.asarray(x[best]), last)
    returns = jax.jit(lambda p: play(env, greedy, p, lanes, key, env.max_steps).returns)(expert)
    return {
        "random": round(float(jnp.mean(random)), 2),
        "expert": round(float(jnp.mean(returns)), 2),
    }


def main() -> None:
    """Measure the wanted tasks and merge them into the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", help="one task by name, default all of the quickstart")
    arguments = parser.parse_args()
    wanted = {
        task_name(t.env, overrides): (t.env, overrides, t.ppo)
        for t in CPU.tasks
        for overrides in ({}, t.overrides)
    }
    if arguments.task:
        env_id, *pairs = arguments.task.split()
        overrides = {k: float(v) for k, v in (p.split("=") for p in pairs)}
        ppo = next((t.ppo for t in CPU.tasks if t.env == env_id), PPOConfig())
        wanted = {task_name(env_id, overrides): (env_id, overrides, ppo)}
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    for name, (env_id, overrides, ppo) in wanted.items():
        row = measure(env_id, overrides, ppo)
        table[name] = row | {
            "command": shlex.join(["python", "-m", "benchmarks.returns", "--task", name]),
            "date": datetime.date.today().isoformat(),
            "versions": {"jax": jax.__version__, "python": sys.version.split()[0]},
        }
        print(name, row)
        TABLE.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
