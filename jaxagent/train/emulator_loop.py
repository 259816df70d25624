"""The loop for emulators, which step on the host: one program plays, another one learns.

An emulator is no array. Its lanes, one a seed, share one vector environment, and the agent is
mapped over them. What it holds cannot be saved, and a replay of frames is too large to; but seeds
and actions determine every frame. So a saved state has the actions, and a run that goes on plays
them again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxagent import keys
from jaxagent.data.replay import Memory
from jaxagent.nn.short_scan import short_scan
from jaxagent.train import optimizer as optimizers
from jaxagent.train import parallel
from jaxagent.train.loops import Learner, SlowCopy, fit_from_memory, means_of, params_of
from jaxagent.train.parallel import ChunkReport, Mean
from jaxagent.types import Agent, RunState

STEPS_PER_BLOCK = 500  # of actions played again at once


class EmulatorError(RuntimeError):
    """The emulator is not where it should be; nothing learned from it could be trusted."""


class Played(NamedTuple):
    """The saved state of N lanes beside their learners."""

    weights: Any  # of a `Prioritized` memory without its ring, leaves [N, ...]
    actions: jax.Array  # uint8 [limit, N]: all that were taken; those that began a game too
    count: jax.Array  # int32 []: how many of them
    action: jax.Array  # int32 [N]: to be taken next
    num_steps: jax.Array  # int32 [N]: steps of the agent; those that began a game are none
    running: jax.Array  # float32 [N]: return of the unfinished game
    env: Any  # the emulator's state, detached


class Live(NamedTuple):
    """The emulator and the memory of a state, neither of which can be saved."""

    state: RunState
    env: Any
    memory: Any  # leaves [N, 1, ...]


class Block(NamedTuple):
    """The results of one step of the emulator."""

    entry: Any  # what the memory keeps, leaves [N, ...]
    obs: jax.Array  # [N, ...] what the agent sees after it
    valid: jax.Array  # [N] bool
    reward: jax.Array  # [N]


class _Tally:
    """Counts that the host keeps of N lanes."""

    def __init__(self, actions: np.ndarray, count: int, num_steps: np.ndarray, running: np.ndarray):
        self.actions, self.count, self.num_steps, self.running = actions, count, num_steps, running
        self.returns = np.zeros_like(running)  # summed over the games that ended
        self.num_games = np.zeros_like(running)
        self.was_step = np.zeros(running.shape, bool)  # whether the last one was the agent's

    @classmethod
    def of(cls, played: Played) -> "_Tally":
        return cls(
            np.array(played.actions), int(played.count), np.array(played.num_steps), np.array(played.running)
        )

    def add(self, action: jax.Array, block: Block) -> None:
        """A step of the emulator; waits for it."""
        valid = np.asarray(block.valid)
        self.actions[self.count] = np.asarray(action)
        self.count += 1
        # That a game has ended shows when a new one begins, which is no step of the agent.
        self.returns += np.where(valid, np.float32(0.0), self.running)
        self.num_games += ~valid
        self.running = np.where(valid, self.running + np.asarray(block.reward), np.float32(0.0))
        self.num_steps = self.num_steps + valid
        self.was_step = valid


class EmulatorLoop:
    """Act once, keep it, fit `config.num_gradient_steps` minibatches, in every lane.

    For `run.Work`: `init()`, and `chunk(state)`, which uses up the state that it is given. A lane
    learns at its own steps from `warmup_steps` on up to `num_updates`, which are steps of the agent
    here; the last chunk goes on until every lane has had them all. Before the warm-up ends actions
    are `explore`'s. Acting comes before learning from the step that it follows, so that the
    emulator steps on the host while an accelerator fits.
    """

    def __init__(
        self,
        agent: Agent,
        vector: Any,
        optimizer: optax.GradientTransformation,
        config: Any,
        *,
        memory: Memory,
        explore: Callable,
        slow: SlowCopy,
        as_entry: Callable,
        see: Callable,
        seeds: jax.Array,
        lane_ids: jax.Array,
        key: jax.Array,
        acts_by: Callable[[Learner], Any] = params_of,
    ):
        """`as_entry(state, action, transition)` and `see(state)` read the emulator's lanes.

        `seeds [N]` are the emulator's own; lane i draws from `fold_in(key, lane_ids[i])`.
        `memory` is of `prioritized_windows`.
        """
        self._agent, self._vector, self._config = agent, vector, config
        self._memory, self._explore, self._acts_by = memory, explore, acts_by
        self._optimizer, self._slow = optimizer, slow
        self._as_entry, self._see, self._seeds = as_entry, see, seeds
        self._key_init, self._key_act, self._key_fit = jax.random.split(key, 3)
        self._lane_ids = lane_ids
        self._live: Live | None = None
        self._metrics: dict[str, Mean] | None = None  # their shapes
        self._play = parallel.on_host(jax.jit(self._step))
        self._again = parallel.on_host(jax.jit(self._replay))
        self._choose = jax.jit(self._act)
        # The memory is written in place.
        self._learn = jax.jit(self._advance, donate_argnames=("learner", "memory"))
        self._keep = jax.jit(self._add, donate_argnums=0)
        self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
        self._put_back = jax.jit(jax.vmap(_either))
        self._fit = fit_from_memory(
            agent, optimizer, memory, slow, config.batch_size, standardize=None, over_shards=jax.vmap
        )

    def init(self) -> RunState:
        """The state before the first step."""
        env = self._start()
        lane_keys = keys.per_index(self._key_init, self._lane_ids)
        learner, action = jax.jit(jax.vmap(self._first, (0, 0)))(lane_keys, self._look(env))
        memory = self._empty_memory(env)
        num_lanes = len(self._lane_ids)
        # A game of one step and the step that begins the next: no lane takes more than twice as
        # many actions as steps.
        limit = 2 * self._config.num_updates
        played = Played(
            weights=_without_ring(memory),
            actions=jnp.zeros((limit, num_lanes), jnp.uint8),
            count=jnp.zeros((), jnp.int32),
            action=action,
            num_steps=jnp.zeros((num_lanes,), jnp.int32),
            running=jnp.zeros((num_lanes,)),
            env=self._vector.detach(env),
        )
        return RunState(learner, played, jnp.zeros((), jnp.int32))

    def chunk(self, state: RunState) -> tuple[RunState, ChunkReport]:
        """`updates_per_chunk` steps of the emulator, the last time as many as it takes."""
        live = self._live
        if live is None or live.state is not state:
            live = self._come_back(state)
        self._live = None  # until the end: an interruption leaves nothing half done
        config, saved = self._config, state.shards
        memory, env = live.memory, live.env
        totals = self._no_metrics(state.learner, memory)
        # Placed once: a program is compiled again for arguments that are not.
        learner, totals, action = parallel.to_device((state.learner, totals, saved.action))
        self._compile_choice(learner, memory, totals)
        tally = _Tally.of(saved)
        last_step = int(state.step) + config.updates_per_chunk
        is_last = last_step >= config.num_updates
        border = tally.count + config.updates_per_chunk
        coming = self._play(env, action)
        while coming is not None:
            count = np.int32(tally.count)
            env, block = coming
            tally.add(action, block)
            entry, obs = parallel.to_device((block.entry, block.obs))
            action = self._choose(learner, obs, tally.num_steps < config.warmup_steps, count)
            goes_on = tally.count < border or (is_last and tally.num_steps.min() < config.num_updates)
            # The emulator steps while the learner learns from the step before.
            coming = self._play(env, action) if goes_on else None
            is_due = tally.was_step & (tally.num_steps > config.warmup_steps)
            is_due &= tally.num_steps <= config.num_updates
            learner, memory, totals = self._fit_due(learner, memory, totals, entry, is_due, count)
        self._check_sound(env)
        played = Played(
            _without_ring(memory),
            jnp.asarray(tally.actions),
            jnp.int32(tally.count),
            action,
            jnp.asarray(tally.num_steps),
            jnp.asarray(tally.running),
            self._vector.detach(env),
        )
        state = RunState(learner, played, jnp.int32(last_step))
        self._live = Live(state, env, memory)
        finished = Mean(jnp.asarray(tally.returns), jnp.asarray(tally.num_games))
        return state, self._report(learner, totals | {"train/return": finished})

    def _step(self, env: Any, action: jax.Array) -> tuple[Any, Block]:
        after, transition = self._vector.step(None, env, action)
        entry = self._as_entry(env, action, transition)
        return after, Block(entry, self._see(after), transition.valid, transition.reward)

    def _replay(self, env: Any, actions: jax.Array) -> tuple[Any, Any]:
        """Actions `[T, N]` again: the state after them and entries `[T, N, ...]`."""

        def step(env: Any, action: jax.Array) -> tuple[Any, Any]:
            env, block = self._step(env, action)
            return env, block.entry

        return jax.lax.scan(step, env, actions)

    def _act(self, learner: Learner, obs: jax.Array, explores: jax.Array, count: jax.Array) -> jax.Array:
        """Actions `[N]`, of the explorer where `explores`; parameters before the fits to come."""

        def act(learner: Learner, obs: jax.Array, lane_key: jax.Array) -> jax.Array:
            is_first = jnp.zeros((1,), bool)
            return self._agent.act(self._acts_by(learner), (), obs[None], is_first, lane_key)[0][0]

        def wander(obs: jax.Array, lane_key: jax.Array) -> jax.Array:
            return self._explore((), obs[None], jnp.zeros((1,), bool), lane_key)[0][0]

        key_act, key_explore = jax.random.split(jax.random.fold_in(self._key_act, count))
        best = jax.vmap(act)(learner, obs, keys.per_index(key_act, self._lane_ids))
        other = jax.vmap(wander)(obs, keys.per_index(key_explore, self._lane_ids))
        return jnp.where(explores, other, best)

    def _fit_due(
        self,
        learner: Learner,
        memory: Any,
        totals: dict[str, Mean],
        entry: Any,
        is_due: np.ndarray,
        count: np.ndarray,
    ) -> tuple[Learner, Any, dict[str, Mean]]:
        """Keep what was played, and fit the lanes where that `is_due [N]`.

        A step seldom begins a game. Where one does, its lane is put back to where it was; a choice
        inside the program of every step would be a sixth of its kernels.
        """
        memory = self._keep(memory, jax.tree.map(lambda x: x[None], entry))
        if not is_due.any():
            return learner, memory, totals
        old = None
        if not is_due.all():
            old = self._copy((learner, _without_ring(memory), totals))
        learner, memory, totals = self._learn(learner, memory, totals, count)
        if old is not None:
            new = (learner, _without_ring(memory), totals)
            learner, weights, totals = self._put_back(is_due, new, old)
            memory = weights._replace(ring=memory.ring)
        return learner, memory, totals

    def _advance(
        self, learner: Learner, memory: Any, totals: dict[str, Mean], count: jax.Array
    ) -> tuple[Learner, Any, dict[str, Mean]]:
        """Fit all lanes."""
        lane_keys = keys.per_index(jax.random.fold_in(self._key_fit, count), self._lane_ids)
        learner, memory, seen = jax.vmap(self._fit_lane)(learner, memory, lane_keys)
        return learner, memory, jax.tree.map(jnp.add, totals, seen)

    def _fit_lane(
        self, learner: Learner, memory: Any, key: jax.Array
    ) -> tuple[Learner, Any, dict[str, Mean]]:
        """Some gradient steps of one lane."""
        shard_ids, fit = jnp.zeros((1,), jnp.int32), parallel.alone(self._fit)

        def gradient_step(carry: tuple[Learner, Any], number: jax.Array):
            *carry, metrics, did = fit(*carry, shard_ids, jax.random.fold_in(key, number))
            return tuple(carry), (metrics, did)

        numbers = jnp.arange(self._config.num_gradient_steps)
        carry, of_steps = short_scan(gradient_step, (learner, memory), numbers)
        return *carry, means_of(*of_steps)

    def _add(self, memory: Any, entries: Any) -> Any:
        """Entries `[T, N, ...]` into the memories `[N, 1, ...]`."""
        blocks = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, None, :, None], entries)
        return jax.vmap(jax.vmap(self._memory.add))(memory, blocks)

    def _first(self, key: jax.Array, obs: jax.Array) -> tuple[Learner, jax.Array]:
        key_params, key_action = jax.random.split(key)
        params = self._agent.init(key_params)
        opt_state = optimizers.init(self._optimizer, params)
        action = self._explore((), obs[None], jnp.ones((1,), bool), key_action)[0][0]
        return Learner(params, opt_state, target=self._slow.first(params)), action

    def _start(self) -> Any:
        return start(self._vector, self._seeds)

    def _look(self, env: Any) -> jax.Array:
        return parallel.to_device(parallel.on_host(jax.jit(self._see))(env))

    def _empty_memory(self, env: Any) -> Any:
        """Of every lane, leaves `[N, 1, ...]`."""
        num_lanes = len(self._lane_ids)
        # Shapes alone: nothing is played.
        block = jax.eval_shape(self._step, env, jnp.zeros((num_lanes,), jnp.int32))[1]

        def room() -> Any:
            one = jax.tree.map(lambda x: jnp.zeros((1, 1, *x.shape[1:]), x.dtype), block.entry)
            memory = self._memory.init(one, self._config.capacity)
            lead = (num_lanes, 1)
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (*lead, *x.shape)), memory)

        return parallel.to_device(jax.jit(room)())

    def _come_back(self, state: RunState) -> Live:
        """Play the actions of a saved state again, which fills the memory as it was."""
        env, played = self._start(), state.shards
        memory = self._empty_memory(env)
        actions, count = np.asarray(played.actions).astype(np.int32), int(played.count)
        for start in range(0, count, STEPS_PER_BLOCK):
            env, entries = self._again(env, actions[start : min(start + STEPS_PER_BLOCK, count)])
            for t in range(jax.tree.leaves(entries)[0].shape[0]):
                one = jax.tree.map(lambda x, t=t: x[t : t + 1], entries)
                memory = self._keep(memory, parallel.to_device(one))
        now, then = self._vector.detach(env), played.env
        same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), now, then)
        if not all(jax.tree.leaves(same)):
            raise EmulatorError(
                f"{self._vector.env.name}: got another state after {count} steps played again than "
                "the run had saved, expected the same to the bit; was ale-py or its rom exchanged?"
            )
        memory = played.weights._replace(ring=memory.ring)
        return Live(state, env, memory)

    def _no_metrics(self, learner: Learner, memory: Any) -> dict[str, Mean]:
        if self._metrics is None:  # an update is traced for it, which takes half a second
            lane_keys = keys.per_index(self._key_init, self._lane_ids)
            fit = jax.vmap(self._fit_lane)
            self._metrics = jax.eval_shape(fit, learner, memory, lane_keys)[2]
        return jax.tree.map(lambda x: jnp.zeros(x.shape), self._metrics)

    def _compile_choice(self, learner: Learner, memory: Any, totals: dict[str, Mean]) -> None:
        """Now, and not in some later chunk that happens to be the first to need it."""
        old = self._copy((learner, _without_ring(memory), totals))
        self._put_back(np.ones(len(self._lane_ids), bool), old, old)

    def _check_sound(self, env: Any) -> None:
        if not np.asarray(env.is_sound).all():
            raise EmulatorError(
                f"{self._vector.env.name}: got an emulator stepped out of turn or by an illegal "
                "action (`is_sound`), expected one whose every step this loop made."
            )

    def _report(self, learner: Learner, metrics: dict[str, Mean]) -> ChunkReport:
        is_finite = np.ones(self._config.updates_per_chunk, bool)
        is_finite[-1] = bool(jax.jit(parallel.all_finite)((learner, metrics)))
        return ChunkReport(metrics, is_finite, jax.jit(parallel.checksum)(learner)[None])


def start(vector: Any, seeds: jax.Array) -> Any:
    """The state of an emulator with a lane for each of `seeds [N]`, all at the default task, on the host."""
    params = vector.env.default_params
    tasks = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(seeds), *x.shape)), params)
    return parallel.on_host(vector.start)(seeds, tasks)


def _either(is_new: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: jnp.where(is_new, n, o), new, old)


def _without_ring(memory: Any) -> Any:
    """What cannot be played again: how often each window is to be drawn."""
    return memory._replace(ring=())
