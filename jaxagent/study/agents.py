"""Agents that learn by reinforcement as lanes of one program, and how their snapshots are played."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.common.names import check_name
from envs.types import sample_action
from envs.vector import VectorEnv, broadcast_params
from jaxagent import keys
from jaxagent.agents import actions, actor_critic, memory_policy, soft_actor_critic
from jaxagent.config import PPOConfig, SACConfig
from jaxagent.evaluate.episodes import play_lanes
from jaxagent.study.study import Fit, Lanes, Measure, Step
from jaxagent.train import loops, optimizer
from jaxagent.types import Loop, Policy, no_carry, see_obs

AgentConfig = PPOConfig | SACConfig
Fits = Mapping[str, Fit]  # of one task, by arm


def stack(trees: Sequence[Any]) -> Any:
    """Pytrees with leaves `[...]` to one with leaves `[len(trees), ...]`, on the host.

    On the host because every eager operation on the device compiles a program of its own.
    """
    return jax.tree.map(lambda *x: np.stack(x), *jax.device_get(list(trees)))


def seeded(
    name: str,
    loop: Loop | Callable[[Any], Loop],
    task: Any,
    config: Any,
    seeds: Sequence[int],
    purpose: str,
    *,
    keep: Callable[[Any], Any] = loops.params_of,
    given: Callable[[Any], Any] | None = None,
    in_turn: bool = False,
) -> Fit:
    """One agent a seed on one task, a lane each; snapshots `[chunks + 1, seeds, ...]` stay.

    A loop that begins with what an earlier stage learned is a function of the run's folder, and so is
    what each seed's own is `given`, leaves `[seeds, ...]`. Agents of a seed begin alike and draw alike
    under one `purpose`, so that arms are paired.
    """

    def lanes(folder: Any) -> Lanes:
        return Lanes(
            loop if isinstance(loop, Loop) else loop(folder),
            lambda: (
                jnp.stack([keys.derive(seed, f"{purpose}/init") for seed in seeds]),
                stack([task] * len(seeds)),
                *(() if given is None else (given(folder),)),
            ),
            config,
            keys.derive(0, f"{purpose}/update"),
            begin=partial(with_envs, config.num_envs),
            ids=seeds,
            keep=keep,
            history=True,
            units={"env_steps": config.env_steps_per_update},
            before={"env_steps": config.warmup_steps},
            in_turn=in_turn,
        )

    return Fit(name, lanes)


def population(name: str, env: Any, tasks: Sequence[Any], config: AgentConfig, seed: int) -> Fit:
    """One PPO or SAC agent a task; snapshots `(params, moments)`, leaves `[chunks + 1, agents, ...]`.

    Agent i's stream depends on its index alone. Of SAC's parameters the policy's stay.
    """
    purpose = f"agents/{env.name}"

    def lanes(folder: Any) -> Lanes:
        del folder
        loop, keep = algorithm(env, config)
        first_key = keys.derive(seed, f"{purpose}/init")
        return Lanes(
            loop,
            lambda: (keys.per_index(first_key, jnp.arange(len(tasks))), stack(tasks)),
            config,
            keys.derive(seed, f"{purpose}/update"),
            begin=partial(with_envs, config.num_envs),
            keep=keep,
            history=True,
            units={"env_steps": config.env_steps_per_update},
            before={"env_steps": config.warmup_steps},
        )

    return Fit(name, lanes)


def with_envs(num_envs: int, lane_keys: jax.Array, tasks: Any, *given: Any) -> tuple[Any, ...]:
    """Arguments of a loop's `init` in lanes: keys, tasks `[N, num_envs, ...]`, and what else is given."""
    return lane_keys, jax.vmap(lambda task: broadcast_params(task, num_envs))(tasks), *given


def algorithm(env: Any, config: AgentConfig) -> tuple[Loop, Callable[[Any], Any]]:
    """The loop of an agent, and what of its learner acts."""
    vector = VectorEnv(env)
    if isinstance(config, SACConfig):
        loop = loops.replay(
            soft_actor_critic.soft_actor_critic(env.obs_spec, env.action_spec, config),
            vector,
            optimizer.plain_adam(config.learning_rate),
            config,
            explore=actions.uniform(env.action_spec),
            as_steps=soft_actor_critic.as_steps,
            slow=loops.moving_average(lambda params: params.critics, config.tau),
        )
        return loop, lambda learner: (learner.params.actor, learner.normalizer)
    agent = actor_critic.ppo(env.obs_spec, env.action_spec, config)
    optimiser = optimizer.adam(optimizer.linear_decay(config), config.max_gradient_norm)
    loop = loops.on_policy(agent, vector, optimiser, config)
    return loop, lambda learner: (learner.params, learner.normalizer)


def snapshot_shapes(env: Any, task: Any, config: AgentConfig, lead: tuple[int, ...]) -> Any:
    """Shapes `[*lead, ...]`, traced, of the pytree `(params, moments)` of one agent."""
    loop, keep = algorithm(env, config)

    def first(key: jax.Array) -> Any:
        learner, _ = loop.init(key, broadcast_params(task, config.num_envs))
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (*lead, *x.shape)), keep(learner))

    return jax.eval_shape(first, jax.random.key(0))


def as_policy(env: Any, config: AgentConfig, *, is_greedy: bool) -> Policy:
    """An agent of `population` as a policy of `(params, moments)`: its mode, or a draw."""
    if isinstance(config, SACConfig):
        acting = soft_actor_critic.sac_policy(env.action_spec, config, is_greedy=is_greedy)
    elif is_greedy:
        judge = actor_critic.towers(env.obs_spec, env.action_spec, config)
        acting = actor_critic.greedy(judge, env.action_spec)
    else:
        acting = actor_critic.ppo(env.obs_spec, env.action_spec, config)
    return memory_policy.standardised(env, Policy(no_carry, acting.act))


def uniform_policy(env: Any) -> Policy:
    """A policy without parameters: it draws actions of the whole space, whatever it sees."""

    def act(
        params: Any, carry: Any, obs: Any, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any, Any]:
        del params, obs
        lane_keys = jax.random.split(key, is_first.shape[0])
        return jax.vmap(lambda key: sample_action(key, env.action_spec))(lane_keys), (), carry

    return Policy(no_carry, act)


def or_random(env: Any, policy: Policy) -> Policy:
    """A policy of parameters `(params, is_random)`: uniform actions where `is_random`, else its own."""
    uniform = uniform_policy(env)

    def act(params: Any, carry: Any, obs: Any, is_first: jax.Array, key: jax.Array) -> tuple:
        network, is_random = params
        key_policy, key_random = jax.random.split(key)
        action, _, carry = policy.act(network, carry, obs, is_first, key_policy)
        random, _, _ = uniform.act((), (), obs, is_first, key_random)
        return jnp.where(is_random, random, action), (), carry

    return Policy(policy.init, act)


def task_steps(
    config: Any, tasks: Sequence[Any], fits_of: Callable[[Any, Any], Fits], evaluate: Callable
) -> list[Step]:
    """Of each task in turn the fits, `fits_of(config, task)`, then the measure `evaluate/TASK` of them.

    `evaluate(config, task, fits, folder, place)` returns JSON.
    """
    steps: list[Step] = []
    for task in tasks:
        fits = fits_of(config, task)
        steps += [*fits.values(), Measure(f"evaluate/{task.name}", partial(evaluate, config, task, fits))]
    return steps


def task_of(tasks: Sequence[Any], name: str) -> Any:
    """The task of a name. Raises `UnknownName` with the nearest."""
    check_name("task", name, [task.name for task in tasks])
    return next(task for task in tasks if task.name == name)


def at_once(fn: Callable, lanes: Any) -> Any:
    """`jax.lax.map(fn, lanes)`, all lanes at once."""
    return jax.vmap(fn)(lanes)


class Arena(NamedTuple):
    """Evaluation of agents of several seeds: every arm of a seed plays the same episodes."""

    env: Any
    task: Any
    lane_keys: jax.Array  # [seeds]
    episodes: int  # of each seed

    def returns(self, policy: Policy, params: Any, see: Callable = see_obs) -> np.ndarray:
        """Mean returns `[seeds]` of parameters `[seeds, ...]`, seeds in turn."""
        play = jax.jit(partial(play_lanes, self.env, policy, see=see, num_episodes=self.episodes))
        return np.asarray(play(params, self.task, jax.random.clone(self.lane_keys)))

    def curve(self, policy: Policy, snapshots: Any, over: Callable = jax.lax.map) -> np.ndarray:
        """Mean returns `[snapshots, seeds]`, of leaves likewise; `over` maps both, as in `play_lanes`."""
        play = partial(
            play_lanes,
            self.env,
            policy,
            task=self.task,
            lane_keys=jax.random.clone(self.lane_keys),
            num_episodes=self.episodes,
            over=over,
        )
        return np.asarray(jax.jit(partial(over, play))(snapshots))

    def history(self, policy: Policy, snapshots: Any, rows: np.ndarray, config: Any) -> dict[str, Any]:
        """Mean returns `[rows][seeds]` of some snapshots, and after how many env steps they were made."""
        returns = self.curve(policy, take(snapshots, rows))
        return {"steps": env_steps_at(rows, config), "returns": returns.tolist()}


def arena(env: Any, task: Any, seeds: Sequence[int], episodes: int, key: jax.Array) -> Arena:
    """An arena whose episodes of a seed depend on `key` and the seed alone."""
    return Arena(env, task, keys.per_index(key, jnp.array(tuple(seeds))), episodes)


def env_steps_at(rows: Iterable[int], config: Any) -> list[int]:
    """Env steps of a seed after which the snapshots `rows` of its training were made."""
    return [config.warmup_steps + config.env_steps_per_chunk * int(row) for row in rows]


def even_rows(last: int, count: int) -> np.ndarray:
    """At most `count` even whole numbers `[rows]` from 0 to `last`, both included."""
    return np.unique(np.linspace(0, last, count).round().astype(int))


def take(trees: Any, *index: Any) -> Any:
    """`leaf[index]` of every leaf."""
    return jax.tree.map(lambda x: x[index], trees)


def last(snapshots: Any) -> Any:
    """The last snapshot, leaves `[...]`, of leaves `[snapshots, ...]`."""
    return take(snapshots, -1)
