"""Films of agents in their environments."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs.pictures import caption
from jaxagent.evaluate.episodes import Recording, record
from jaxagent.report.render import write_gif
from jaxagent.types import Policy, see_obs

MAX_FRAMES = 100


def player(env: Any, policy: Policy, see: Callable = see_obs) -> Callable:
    """What plays an episode, of (params, task, key): one program for all films of agents that act alike."""
    return jax.jit(partial(record, env, policy, num_steps=env.max_steps, see=see))


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
    play: Callable | None = None,
) -> Path:
    """Play one episode and write it as `folder/pictures/NAME.gif`; the label is NAME's beginning.

    The shown return is that of the first player where a reward is a vector. Films may share a `play`, which
    `player` made of the same environment and policy.
    """
    play = play or player(env, policy, see)
    episode, task = jax.device_get((play(params=params, task=task, key=key), task))
    if episode.rewards.ndim > 1:
        episode = episode._replace(rewards=episode.rewards[:, 0])
    path = folder / "pictures" / f"{name}.gif"
    return paint(path, env, task, episode, label or name.split("--")[0], fps)


def key(of: jax.Array) -> jax.Array:
    """The key of a film, made of the key `of` the episodes that are measured."""
    return jax.random.fold_in(of, 1)


def paint(path: Path, env: Any, task: Any, episode: Recording, label: str, fps: float) -> Path:
    """Paint an episode, rewards `[T]`, as at most `MAX_FRAMES` even frames; the last says how it ended."""
    states, num_steps, returns = episode.states, int(episode.num_steps), np.cumsum(episode.rewards)
    shown = np.unique(np.linspace(0, num_steps - 1, MAX_FRAMES).astype(int))
    how = "  the end" if episode.terminated else "  time is up" if episode.truncated else ""
    frames = [
        caption(
            env.render(jax.tree.map(lambda x, i=i: x[i], states), task),
            f"{label}  step {i + 1}  return {returns[i]:.0f}{how if i + 1 == num_steps else ''}",
        )
        for i in shown
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_gif(path, frames, fps=fps)
