"""Frozen populations: the policies of one domain, a card with their recipe, and a checksum.

A population is a few snapshots of each agent's learning history, small enough to commit. What is
kept is the policy alone, as 16-bit floats; its returns are measured on what is kept.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import envs
from envs.vector import broadcast_params
from jaxagent import keys
from jaxagent.config import PPOConfig, SACConfig, from_dict
from jaxagent.data import tree_file
from jaxagent.evaluate.episodes import play
from jaxagent.files import sha256_file, write_json
from jaxagent.study import agents
from jaxagent.study.agents import AgentConfig
from jaxagent.types import Policy

ALGORITHMS = {"ppo": PPOConfig, "sac": SACConfig}


class PopulationError(ValueError):
    """A population, named by file, that cannot be trusted."""


class Population(NamedTuple):
    """Snapshots of the agents of one domain."""

    env: Any
    task: Any  # the nominal one, on which they learned
    config: AgentConfig
    params: Any  # leaves [snapshots, agents, ...]
    card: Mapping[str, Any]

    def policy(self, *, is_greedy: bool) -> Policy:
        """A way to act with one agent's params."""
        return agents.as_policy(self.env, self.config, is_greedy=is_greedy)

    @property
    def returns(self) -> np.ndarray:
        """Mean returns `[snapshots, agents]` of actions as the policy draws them."""
        return np.asarray(self.card["returns"]["sampled"])


def freeze(
    place: Path,
    env_id: str,
    config: AgentConfig,
    snapshots: Any,
    *,
    num_snapshots: int,
    episodes: int,
    seed: int,
    recipe: Mapping[str, Any],
) -> dict[str, Any]:
    """Write `NAME.npz` and `NAME.json` of evenly spaced snapshots to `place`; returns the card.

    `snapshots` have leaves `[chunks + 1, agents, ...]`, as `agents.population` keeps them.
    """
    env, task = envs.make(env_id)
    last = jax.tree.leaves(snapshots)[0].shape[0] - 1
    rows = agents.even_rows(last, num_snapshots)
    kept = jax.tree.map(lambda x: np.asarray(x)[rows], _policy_alone(snapshots))
    name = env_id.split("/")[-1]
    tree_file.save(place / f"{name}.npz", _rounded(kept))
    policies = _widened(_rounded(kept))
    env_steps = config.updates_per_chunk * config.num_envs * config.num_steps
    card = {
        "env": env_id,
        "algorithm": "sac" if isinstance(config, SACConfig) else "ppo",
        "config": json.loads(json.dumps(config.__dict__)),
        "env_steps": [int(row) * env_steps for row in rows],  # of one agent, at each snapshot
        "returns": {
            how: _returns(env, task, config, policies, episodes, seed, is_greedy=how == "greedy")
            for how in ("sampled", "greedy")
        },
        "episodes": episodes,
        "sha256": sha256_file(place / f"{name}.npz"),
        **recipe,
    }
    write_json(place / f"{name}.json", card)
    return card


def load(env_id: str, place: Path) -> Population:
    """Read a population; raises `PopulationError` where a file is missing, changed or foreign."""
    name = env_id.split("/")[-1]
    path, card_path = place / f"{name}.npz", place / f"{name}.json"
    try:
        card = json.loads(card_path.read_text())
        got = sha256_file(path)
    except (OSError, ValueError) as error:
        raise PopulationError(
            f"{card_path}: cannot be read ({error}); train it with `jaxagent run populations --only {name}`."
        ) from error
    if got != card["sha256"] or card["env"] != env_id:
        raise PopulationError(
            f"{path}: got SHA-256 {got[:12]}... for {env_id}, expected {card['sha256'][:12]}... of "
            f"{card['env']}; restore the file or train it again."
        )
    env, task = envs.make(env_id)
    config = from_dict(ALGORITHMS[card["algorithm"]](), card["config"])
    returns = np.asarray(card["returns"]["sampled"])
    shapes = agents.snapshot_shapes(env, task, config, returns.shape)
    template = jax.eval_shape(lambda snapshots: _rounded(_policy_alone(snapshots)), shapes)
    return Population(env, task, config, _widened(tree_file.load(path, template)), card)


def _policy_alone(snapshots: Any) -> Any:
    """Without PPO's critic; SAC's stayed behind already."""
    params, moments = snapshots
    return (params._replace(critic=()) if hasattr(params, "critic") else params), moments


def _rounded(snapshots: Any) -> Any:
    """Weights to 16 bits; moments span too many decades for that."""
    params, moments = snapshots
    return jax.tree.map(lambda x: x.astype(np.float16), params), moments


def _widened(snapshots: Any) -> Any:
    params, moments = snapshots
    return jax.tree.map(lambda x: np.asarray(x, np.float32), params), moments


def _returns(
    env: Any, task: Any, config: AgentConfig, policies: Any, episodes: int, seed: int, *, is_greedy: bool
) -> list[list[float]]:
    """Mean returns `[snapshots, agents]`, all at once and under the same keys."""
    policy = agents.as_policy(env, config, is_greedy=is_greedy)
    lanes, key = broadcast_params(task, episodes), keys.derive(seed, f"populations/{env.name}")

    def one(params: Any) -> jax.Array:
        return play(env, policy, params, lanes, key).returns.mean()

    means = jax.jit(jax.vmap(jax.vmap(one)))(policies)
    return np.asarray(means, np.float64).round(3).tolist()
