"""Films of agents in their environments."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs.pictures import caption
from jaxagent.evaluate.episodes import record
from jaxagent.report.render import write_gif
from jaxagent.types import Policy, see_obs

MAX_FRAMES = 100


def write(
    folder: Path,
    name: str,
    env: Any,
    policy: Policy,
    params: Any,
    task: Any,
    key: jax.Array,
    *,
    label: str = "",
    see: Callable = see_obs,
    fps: float = 20,
) -> Path:
    """Play one episode and write it as `folder/pictures/NAME.gif`; the label is NAME's beginning.

    The shown return is that of the first player where a reward is a vector.
    """
    play = jax.jit(partial(record, env, policy, num_steps=env.max_steps, see=see))
    states, rewards, num_steps, _ = jax.device_get(play(params=params, task=task, key=key))
    rewards = rewards if rewards.ndim == 1 else rewards[:, 0]
    path = folder / "pictures" / f"{name}.gif"
    episode = states, rewards, num_steps
    return paint(path, env, jax.device_get(task), episode, label or name.split("--")[0], fps)


def key(of: jax.Array) -> jax.Array:
    """The key of a film, made of the key `of` the episodes that are measured."""
    return jax.random.fold_in(of, 1)


def paint(
    path: Path, env: Any, task: Any, episode: tuple[Any, np.ndarray, int], label: str, fps: float
) -> Path:
    """Paint an episode, states `[T, ...]`, rewards `[T]` and steps, as at most `MAX_FRAMES` even frames."""
    states, rewards, num_steps = episode
    shown = np.unique(np.linspace(0, int(num_steps) - 1, MAX_FRAMES).astype(int))
    returns = np.cumsum(rewards)
    how = "the end" if num_steps < env.max_steps else "time is up"
    frames = [
        caption(
            env.render(jax.tree.map(lambda x, i=i: x[i], states), task),
            f"{label}  step {i + 1}  return {returns[i]:.0f}{f'  {how}' if i + 1 == num_steps else ''}",
        )
        for i in shown
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_gif(path, frames, fps=fps)
