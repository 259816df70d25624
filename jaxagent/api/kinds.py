"""The agents that are trained by name: what each can read, how it is fitted, how it is played."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from envs.types import is_one_category
from envs.vector import VectorEnv
from jaxagent.agents import actor_critic, memory_policy, muzero, pqn, rainbow, soft_actor_critic
from jaxagent.agents.planning import gumbel_search, planner
from jaxagent.api import offline
from jaxagent.api.config import STAGE, TrainConfig
from jaxagent.config import MemoryConfig, TransformerConfig
from jaxagent.study import agents, films, games, memory_agents, muzero_agents, value_agents
from jaxagent.study.study import Fit
from jaxagent.train import loops, optimizer
from jaxagent.types import Policy, View

HIDDEN = ("kuhn_poker", "leduc_holdem")  # games whose state holds what a player may not see
FRAMES = 36  # pixels on a side: from here on a picture is a frame, and no board


class Kind(NamedTuple):
    """One family of agents, as functions of the environment and `TrainConfig`."""

    refuse: Callable[[Any, TrainConfig], None]  # raises ValueError for what it cannot read
    fit: Callable[[str, Any, Any, TrainConfig, str], Fit]  # (stage, env, task, config, purpose)
    policy: Callable[[Any, TrainConfig], Policy]  # greedy, of what the fit keeps of one seed
    # A function of a key that makes what one seed keeps; None: shapes come from the fit, which reads no data.
    kept: Callable[[Any, TrainConfig], Callable] | None = None
    score: str = "episode return"
    arena: Callable[..., Any] = agents.arena  # where it is scored: (env, task, seeds, episodes, key)
    reads: Literal["obs", "view"] = "obs"  # "view": `types.View`, of the game that it searches with

    def film(
        self, folder: Path, name: str, env: Any, policy: Policy, params: Any, task: Any, key: jax.Array
    ) -> Path:
        """An episode as `films.write` has it; of a game one against random play, a move a second."""
        if self.reads == "obs":
            return films.write(folder, name, env, policy, params, task, key)
        both = games.against_random(env, policy)
        return films.write(folder, name, env, both, params, task, key, see=View, fps=1)


def kind_of(config: TrainConfig) -> Kind:
    """The family of an agent."""
    return KINDS[config.agent.partition("-")[0]]


def fit_of(env: Any, task: Any, config: TrainConfig) -> Fit:
    """The training of a configuration: the same draws alone, as one of a sweep, and opened again."""
    return kind_of(config).fit(STAGE, env, task, config, f"train/{config.env}")


def refuse(env: Any, config: TrainConfig) -> None:
    """Raise ValueError for an environment that the agent cannot read, or that nobody here can learn.

    But for AlphaZero, who is trained by name sees neither masks of legal actions nor another player.
    """
    _require(env.is_pure, env, config.agent, "a pure environment", "of ALE, see jaxagent run atari100k")
    if kind_of(config).reads == "view":
        return kind_of(config).refuse(env, config)
    _require(env.num_players == 1, env, config.agent, "one player", "of board games of two, take alphazero")
    fix = "build the loop yourself (`types.see_legal`)"
    _require(not env.has_legal_actions, env, config.agent, "actions that are always legal", fix)
    categories = [c.name for c in env.obs_spec if c.cardinality > 2]  # of two, a number says as much
    is_read = _is_vector(env) or not categories or config.memory == "transformer"
    _require(is_read, env, config.agent, "pictures of numbers, as convolutions see", "wrap it")
    kind_of(config).refuse(env, config)


def _require(is_met: bool, env: Any, agent: str, what: str, fix: str) -> None:
    if not is_met:
        raise ValueError(
            f"{env.name}: got observations {env.obs_shape} and actions {env.action_spec}, expected {what} "
            f"for {agent}; {fix}."
        )


def _is_vector(env: Any) -> bool:
    return len(env.obs_shape) == 1


def _any(env: Any, config: TrainConfig) -> None:
    what, fix = "vectors, or pictures [H, W, C]", "wrap it (envs.wrappers)"
    _require(len(env.obs_shape) in (1, 3), env, config.agent, what, fix)
    if config.memory not in ("none", "transformer"):
        _require(_is_vector(env), env, config.agent, "vectors beside a memory", 'take memory "transformer"')


def _vectors_one_category(env: Any, config: TrainConfig) -> None:
    is_met = _is_vector(env) and is_one_category(env.action_spec)
    _require(is_met, env, config.agent, "vectors and one category of actions", "take ppo")


def _continuous(env: Any, config: TrainConfig) -> None:
    is_met = _is_vector(env) and all(c.kind == "real" for c in env.action_spec)
    _require(is_met, env, config.agent, "vectors and real actions", "take ppo")


def _pictures_one_category(env: Any, config: TrainConfig) -> None:
    is_met = len(env.obs_shape) == 3 and is_one_category(env.action_spec)
    _require(is_met, env, config.agent, "pictures [H, W, C] and one category of actions", "take ppo or pqn")


def _one_category(env: Any, config: TrainConfig) -> None:
    what = "one category of actions"
    _require(is_one_category(env.action_spec), env, config.agent, what, "take ppo or sac")


# --- PPO ---------------------------------------------------------------------------------------------


def _memory_of(env: Any, config: TrainConfig) -> MemoryConfig | TransformerConfig | None:
    if config.memory == "none":
        return None
    if config.memory != "transformer":
        return MemoryConfig(config.memory)
    patch = 0 if _is_vector(env) else max(1, min(env.obs_shape[:2]) // 2)
    return TransformerConfig(width=32, num_layers=2, patch=patch)


def _judge(env: Any, config: TrainConfig) -> actor_critic.Judge:
    memory = _memory_of(env, config)
    if memory is not None:
        return memory_policy.judge_of(env, config.fit, memory)
    if _is_vector(env):
        return actor_critic.towers(env.obs_spec, env.action_spec, config.fit)
    encoder = "nature" if min(env.obs_shape[:2]) >= FRAMES else "board"
    return actor_critic.seeing(env.obs_shape, env.action_spec, config.fit, encoder)


def _fit_ppo(stage: str, env: Any, task: Any, config: TrainConfig, purpose: str) -> Fit:
    agent = actor_critic.ppo(env.obs_spec, env.action_spec, config.fit, judge=_judge(env, config))
    options = {"is_normalized": _is_vector(env)}
    return memory_agents.fit(stage, env, task, config.fit, agent, config.seeds, purpose, **options)


def _play_ppo(env: Any, config: TrainConfig) -> Policy:
    policy = actor_critic.greedy(_judge(env, config), env.action_spec)
    return memory_policy.standardised(env, policy) if _is_vector(env) else policy


# --- Q-learning --------------------------------------------------------------------------------------


def _critic(env: Any, config: TrainConfig) -> pqn.Critic:
    memory = _memory_of(env, config)
    if isinstance(memory, TransformerConfig):
        raise ValueError(
            f'memory of {config.agent}: got "transformer", expected stack, gru or lru; take ppo.'
        )
    return pqn.critic_of(env.obs_spec, env.action_spec, config.fit, memory)


def _fit_pqn(stage: str, env: Any, task: Any, config: TrainConfig, purpose: str) -> Fit:
    radam = optimizer.radam(optimizer.linear_decay(config.fit), config.fit.max_gradient_norm)
    loop = loops.on_policy(pqn.pqn(_critic(env, config), config.fit), VectorEnv(env), radam, config.fit)
    return agents.seeded(stage, loop, task, config.fit, config.seeds, purpose, keep=_normalised_params)


def _play_pqn(env: Any, config: TrainConfig) -> Policy:
    return memory_policy.standardised(env, pqn.greedy(_critic(env, config)))


def _fit_rainbow(stage: str, env: Any, task: Any, config: TrainConfig, purpose: str) -> Fit:
    loop, keep = value_agents.loop(env, config.fit), value_agents.acts_by(config.fit)
    return agents.seeded(stage, loop, task, config.fit, config.seeds, purpose, keep=keep)


def _play_rainbow(env: Any, config: TrainConfig) -> Policy:
    return rainbow.policy(rainbow.network_of(env.obs_shape, env.action_spec, config.fit), config.fit)


# --- SAC and MuZero ----------------------------------------------------------------------------------


def _fit_sac(stage: str, env: Any, task: Any, config: TrainConfig, purpose: str) -> Fit:
    loop, keep = agents.algorithm(env, config.fit)
    return agents.seeded(stage, loop, task, config.fit, config.seeds, purpose, keep=keep)


def _play_sac(env: Any, config: TrainConfig) -> Policy:
    policy = soft_actor_critic.sac_policy(env.action_spec, config.fit, is_greedy=True)
    return memory_policy.standardised(env, Policy(agents.no_carry, policy.act))


def _fit_muzero(stage: str, env: Any, task: Any, config: TrainConfig, purpose: str) -> Fit:
    loop = muzero_agents.loop(env, config.fit)
    return agents.seeded(stage, loop, task, config.fit, config.seeds, purpose, in_turn=True)


def _play_muzero(env: Any, config: TrainConfig) -> Policy:
    model = muzero.model_of(env.obs_shape, env.action_spec, config.fit.model)
    return muzero.policy(model, gumbel_search(config.fit.search, gumbel_scale=0.0), config.fit)


# --- AlphaZero ---------------------------------------------------------------------------------------


def _game(env: Any, config: TrainConfig) -> None:
    is_open = env.num_players == 2 and env.name.split("/")[-1] not in HIDDEN and not env.is_step_random
    what, fix = "a board game of two without dice that hides nothing", "of one player take muzero, ppo or sac"
    _require(is_open, env, config.agent, what, fix)
    _one_category(env, config)
    games.check_even(config.episodes)


def _fit_alphazero(stage: str, env: Any, task: Any, config: TrainConfig, purpose: str) -> Fit:
    network, plan = games.network_of(env, config.fit.trunk), gumbel_search(config.fit.search)
    loop, task = games.self_play_loop(env, task, network, plan, config.fit)
    return agents.seeded(stage, loop, task, config.fit, config.seeds, purpose, in_turn=True)


def _play_alphazero(env: Any, config: TrainConfig) -> Policy:
    plan = gumbel_search(config.fit.search, gumbel_scale=0.0)
    network = games.network_of(env, config.fit.trunk)
    return planner(env, network, plan, discount=config.fit.discount)


def _normalised_params(learner: loops.Learner) -> tuple[Any, Any]:
    return learner.params, learner.normalizer


# --- on a dataset ------------------------------------------------------------------------------------


def _offline_reals(env: Any, config: TrainConfig) -> None:
    is_met = all(c.kind == "real" for c in env.action_spec)
    _require(is_met, env, config.agent, "real actions", "take bc")
    offline.refuse(env, config)


KINDS = {
    "ppo": Kind(_any, _fit_ppo, _play_ppo),
    "pqn": Kind(_vectors_one_category, _fit_pqn, _play_pqn),
    "sac": Kind(_continuous, _fit_sac, _play_sac),
    "rainbow": Kind(_pictures_one_category, _fit_rainbow, _play_rainbow),
    "muzero": Kind(_one_category, _fit_muzero, _play_muzero),
    "alphazero": Kind(
        _game,
        _fit_alphazero,
        _play_alphazero,
        score="points a game against random play",
        arena=games.random_matches,
        reads="view",
    ),
    "td3_bc": Kind(_offline_reals, offline.fit_values, offline.play_values, offline.kept_values),
    "iql": Kind(_offline_reals, offline.fit_values, offline.play_values, offline.kept_values),
    "bc": Kind(offline.refuse, offline.fit_clone, offline.play_clone, offline.kept_clone),
    "sequence": Kind(offline.refuse, offline.fit_sequence, offline.play_sequence, offline.kept_sequence),
}
