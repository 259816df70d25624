"""Animated pictures of agents in their environments."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs.pictures import caption
from jaxagent.report.render import write_gif

MAX_FRAMES = 100


def write_episode(path: Path, env: Any, task: Any, episode: Any, label: str, fps: float = 20) -> None:
    """Paint what `evaluate.episodes.record` returned, as at most `MAX_FRAMES` even frames."""
    states, rewards, num_real = episode
    shown = np.unique(np.linspace(0, int(num_real) - 1, MAX_FRAMES).astype(int))
    returns = np.cumsum(rewards)
    frames = [
        caption(
            env.render(jax.tree.map(lambda x, i=i: x[i], states), task),
            f"{label}  step {i + 1}  return {returns[i]:.0f}",
        )
        for i in shown
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gif(path, frames, fps=fps)
