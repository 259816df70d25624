"""`jaxagent render`: play one environment and paint it, or paint one of every family.

jaxagent render classic/CartPole-v1 --out cartpole.gif
jaxagent render minatar/Breakout --policy expert --out breakout.gif
jaxagent render gymnax/CartPole-v1 --policy runs/quickstart --out trained.gif
jaxagent render classic/CartPole-v1 --policy runs/mine    # of jaxagent train, or an exported policy
jaxagent render --sheet                 # the pictures of envs/README.md
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.common.names import MissingExtra, UnknownName
from envs.experts import expert
from envs.pictures import caption
from envs.registry import missing_package
from envs.types import sample_action
from jaxagent import keys, library
from jaxagent.api import learning
from jaxagent.report.render import contact_sheet, write_gif, write_png
from jaxagent.types import View

SHEET = Path(envs.__file__).with_name("environments.png")
COLUMNS, CELL = 6, (240, 180)  # of the sheet; pixels of a picture
MAX_FRAMES = 150  # of a GIF, besides pictures of ends
# What stands in the sheet for a family of many look-alikes; others are shown in full.
SHOWN = {
    "gymnax": ("FourRooms-misc", "MetaMaze-misc", "Reacher-misc", "Pong-misc", "DeepSea-bsuite"),
    "brax": ("hopper", "walker2d", "halfcheetah", "ant", "humanoid", "reacher"),
    "ale": ("pong", "breakout", "boxing", "ms_pacman", "seaquest", "qbert"),
    "pgx": ("tic_tac_toe", "connect_four", "go_9x9", "othello", "chess", "backgammon"),
    "xminigrid": ("MiniGrid-DoorKey-8x8", "MiniGrid-FourRooms", "XLand-MiniGrid-R4-13x13"),
    "probe": ("TimeLimitTrap",),
}
Act = Callable[[Any, jax.Array, bool, jax.Array], jax.Array]  # state, obs, is_first, key -> action


class Episode:
    """One lane of any environment, stepped from the host; ALE through its vector."""

    def __init__(self, env: Any, params: Any):
        """Compile what is pure; ALE's reset happens on the host."""
        self.env, self.params = env, params
        if env.is_pure:
            self._reset, self._step = jax.jit(env.reset), jax.jit(env.step)
        else:
            self._vector = env.vector(1)
            self._tasks = jax.tree.map(lambda x: x[None], params)
            self._vector_step = jax.jit(self._vector.step)

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """First observation and state."""
        if self.env.is_pure:
            return self._reset(key, self.params)
        state = self._vector.reset(key, self._tasks)
        return state.obs[0], state

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> tuple:
        """Observation, state, reward (of player 0) and whether the episode ended."""
        if not self.env.is_pure:
            state, out = self._vector_step(key, state, action[None])
            done = bool(out.terminated[0] | out.truncated[0])
            return state.obs[0], state, float(out.reward[0]), done
        obs, state, reward, terminated, truncated, _ = self._step(key, state, action, self.params)
        return obs, state, float(np.ravel(reward)[0]), bool(terminated | truncated)

    def paint(self, state: Any) -> np.ndarray:
        """The picture of a state."""
        state = jax.device_get(state)
        if not self.env.is_pure:
            state = jax.tree.map(lambda x: x[0], state)
        return self.env.render(state, self.params)


def play(
    episode: Episode, act: Act, num_steps: int, seed: int, progress: Callable = lambda text: None
) -> list[np.ndarray]:
    """Pictures of `num_steps` steps, with the return below; an ended episode starts anew."""
    key_reset, key_run = jax.random.split(keys.derive(seed, "render"))
    shown = set(np.linspace(0, num_steps, min(num_steps + 1, MAX_FRAMES)).astype(int).tolist())
    frames, total, is_first = [], 0.0, True
    obs, state = episode.reset(key_reset)
    for t in range(num_steps):
        if t in shown:
            frames.append(caption(episode.paint(state), f"step {t}  return {total:.6g}"))
            progress(f"step {t} of {num_steps}")
        key_act, key_step, key_next = jax.random.split(jax.random.fold_in(key_run, t), 3)
        action = act(state, obs, is_first, key_act)
        obs, state, reward, done = episode.step(key_step, state, action)
        total, is_first = total + reward, done
        if t + 1 == num_steps or (done and t + 1 in shown):
            text = f"step {t + 1}  return {total:.6g}" + (", over" if done else "")
            frames.append(caption(episode.paint(state), text))
        total = 0.0 if done else total
        if done and episode.env.is_pure:  # ALE's next step starts the next game by itself
            obs, state = episode.reset(key_next)
    return frames


def policy(name: str, env: Any, params: Any) -> Act:
    """Uniform legal actions ("random"), or the scripted expert's."""
    if name == "random":
        draw = jax.jit(lambda key, legal: sample_action(key, env.action_spec, legal))
        legal_of = env.legal_actions if env.has_legal_actions else lambda state, params: None
        return lambda state, obs, is_first, key: draw(key, legal_of(state, params))
    act = jax.jit(expert(env.name))
    return lambda state, obs, is_first, key: act(state, params)


def _trained(run: Path, env: Any) -> library.LoadedPolicy:
    """The policy of a folder whose task is of `env`, of the fine-tuned arm where there is one."""
    if not run.is_dir():
        expected = "'random', 'expert' or the folder of a finished run"
        raise UnknownName(f"--policy: got {run}, expected {expected}.")
    found = _policies(run)
    fitting = [p for p in found if p.description.env == env.name]
    if not fitting:
        tasks = sorted({p.description.env for p in found})
        raise UnknownName(f"{run}: got no policy of {env.name}, expected one of its tasks {tasks}.")
    chosen = next((p for p in fitting if p.description.arm == "finetune"), fitting[0])
    if getattr(chosen.description, "reads", "obs") == "wrapped":
        raise UnknownName(
            f"{run}: got a policy of {env.name} as its study wraps it, expected one that reads what the "
            "environment shows; experiments.load(RUN).evaluate plays it."
        )
    print(f"policy {chosen.description.arm} of {run}, on {chosen.description.task}", flush=True)
    return chosen


def _acting(chosen: library.LoadedPolicy, params: Any) -> Act:
    """A policy as a player of one environment, which remembers between its calls."""
    memory, step = [chosen.init(1)], jax.jit(chosen.act)
    reads_view = getattr(chosen.description, "reads", "obs") == "view"

    def act(state, obs, is_first, key):
        seen = View(obs, state, params) if reads_view else obs
        seen = jax.tree.map(lambda x: jnp.asarray(x)[None], seen)
        action, memory[0] = step(memory[0], seen, jnp.array([is_first]), key)
        return action[0]

    return act


def _policies(run: Path) -> list[library.LoadedPolicy]:
    """All policies of a run, the best of a training, or the one that was exported there."""
    if (run / library.POLICY).is_file() or learning.is_training(run):
        opened = learning.load(run)
        return [opened if isinstance(opened, library.LoadedPolicy) else opened.policy()]
    return [library.load(run, *reversed(name.split("--"))) for name in library.available(run)]


def render(env_id: str, out: Path, policy_name: str, num_steps: int, seed: int) -> int:
    """Write a GIF (or a PNG of the last frame, by the suffix of `out`)."""
    env, params = envs.make(env_id)
    if env.is_hosted:
        raise UnknownName(
            f"{env_id}: got an environment on the host, expected one whose states can be painted."
        )
    if policy_name in ("random", "expert"):
        act = policy(policy_name, env, params)
    else:
        chosen = _trained(Path(policy_name), env)
        env, params = envs.make(env_id, **chosen.description.overrides)  # the task that it learned
        act = _acting(chosen, params)
    started = [time.monotonic()]

    def progress(text: str) -> None:
        if time.monotonic() - started[0] > 2:
            started[0] = time.monotonic()
            print(f"{env_id}: {text}", file=sys.stderr, flush=True)

    frames = play(Episode(env, params), act, num_steps, seed, progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    written = write_png(out, frames[-1]) if out.suffix == ".png" else write_gif(out, frames, fps=20)
    print(f"{written}: {len(frames)} frames of {env_id}, {policy_name}")
    return 0


def sheet(out: Path = SHEET) -> int:
    """Write one picture of every family's environments after some random steps."""
    portraits = {}
    for family, described in envs.registry.FAMILIES.items():
        if missing_package(family):
            raise MissingExtra(f"{family}: not installed; the sheet shows every family.")
        for env_id in (f"{family}/{name}" for name in SHOWN.get(family, described.names)):
            print(f"painting {env_id}", file=sys.stderr, flush=True)
            portraits[env_id] = _portrait(env_id)
    print(write_png(out, contact_sheet(list(portraits.values()), COLUMNS, list(portraits))))
    return 0


def _portrait(env_id: str) -> np.ndarray:
    """A picture of CELL size some steps into an episode."""
    from PIL import Image, ImageOps

    env, params = envs.make(env_id)
    episode = Episode(env, params)
    act = policy("random", env, params)
    obs, state = episode.reset(keys.derive(1, "sheet"))
    picture = episode.paint(state)
    for t in range(12 if env.is_pure else 60):
        key_act, key_step = jax.random.split(keys.derive(t, "sheet/step"))
        obs, state, _, done = episode.step(key_step, state, act(state, obs, t == 0, key_act))
        if done:
            break
        picture = episode.paint(state)
    return np.asarray(ImageOps.pad(Image.fromarray(picture), CELL, color=(250, 250, 248)))
