"""Animated pictures of agents in their environments."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs.pictures import caption
from jaxagent.evaluate.episodes import record
from jaxagent.report.render import write_gif
from jaxagent.types import Policy

MAX_FRAMES = 100


def write_episode(
    path: Path, env: Any, policy: Policy, params: Any, task: Any, key: jax.Array, label: str
) -> None:
    """Play one episode and write it as a GIF of at most `MAX_FRAMES` evenly spaced frames."""
    play = jax.jit(lambda p, t, k: record(env, policy, p, t, k, env.max_steps))
    states, rewards, num_real = jax.device_get(play(params, task, key))
    shown = np.unique(np.linspace(0, int(num_real) - 1, MAX_FRAMES).astype(int))
    returns = np.cumsum(rewards)
    host_task = jax.device_get(task)
    frames = [
        caption(
            env.render(jax.tree.map(lambda x, i=i: x[i], states), host_task),
            f"{label}  step {i + 1}  return {returns[i]:.0f}",
        )
        for i in shown
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gif(path, frames, fps=20)
