"""Atari 2600 under our contract, through the XLA interface of ale-py's vector environment.

The emulator is neither pure nor an array: its steps are side effects, and what XLA carries is a raw
pointer without clone or restore. Hence the seeds of a study are the lanes of one `AtariVector`
(never a `vmap` over environments), a state can be stepped only once, and a run resumes by `replay`,
not from a checkpoint. ALE's XLA handlers exist for the CPU alone; on a machine with an accelerator
step inside `jax.default_device(jax.devices("cpu")[0])`.
"""

import functools
import warnings
import weakref
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from envs.common.foreign import foreign
from envs.common.names import check_name
from envs.types import Component, Environment, Transition
from envs.vector import broadcast_params

with warnings.catch_warnings():  # gymnasium's and ale-py's deprecations are not ours
    warnings.simplefilter("ignore")
    import ale_py
    from ale_py import roms
    from ale_py.vector_env import AtariVectorEnv

ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner for every emulator

FRAME_SKIP = 4
STACK = (4, 84, 84)  # frames, oldest first; height; width
SCREEN = (320, 420)  # pixels of a picture: twice the emulator's 160 x 210
MAX_SEED = 2**31 - 1  # of an ALE seed, exclusive


class AtariOptions(NamedTuple):
    """What `make` may change; the defaults are Atari-100k training as in SPR (mila-iqia/spr).

    Fixed: 84 x 84 grey, stack 4, frame skip 4 with the maximum of the last two frames, rewards as
    the game gives them (clipping belongs to the learner). Evaluation: `episodic_life=False`.
    Differs from src/rlpyt_atari_env.py: ALE shrinks pictures by area, SPR by interpolation; ALE
    draws 0 to 29 no-ops, SPR 1 to 30; at a lost life SPR blanks the older frames of the stack and
    inserts a no-op.
    """

    # True: a lost life terminates, and the game goes on from there, as SPR's `episodic_lives`.
    # (That is ALE's `life_loss_info`. ALE's own `episodic_life` starts a new game after each life,
    # so the agent would never play with fewer lives than at the start.)
    episodic_life: bool = True
    repeat_action_probability: float = 0.0  # sticky actions; 0.25 in Machado et al. 2018
    noop_max: int = 30  # a game starts after 0 to noop_max - 1 no-ops
    fire_reset: bool = False  # press FIRE at the start of a game; SPR leaves that to the agent
    full_action_space: bool = False  # 18 actions instead of the game's minimal set
    max_frames: int = 108_000  # of a game, 30 minutes; SPR's horizon of 27 000 steps


LIMITS = {  # least and largest legal value
    "repeat_action_probability": (0.0, 1.0),
    "noop_max": (0, MAX_SEED),
    "max_frames": (1, MAX_SEED),
}


class AtariParams(NamedTuple):
    """The task, as far as arrays can say it; set by `make`, see `AtariState.is_sound`."""

    max_steps: jax.Array  # int32: env steps of a game, max_frames / 4 rounded up


class AtariState(NamedTuple):
    """State of B lanes; the games themselves live in the emulator, which goes on with every step.

    Take `AtariVector.detach(state)` before it leaves the process.
    """

    obs: jax.Array  # [B, 4, 84, 84] uint8: what the agent sees now
    params: AtariParams  # leaves [B]
    time: jax.Array  # [B] int32: env steps since the game began
    lives: jax.Array  # [B] int32: lives left, 0 in games without lives
    birth: jax.Array  # [B] int32: the emulator's frame number when the game began
    frame: jax.Array  # [B] int32: frames emulated since the seed
    # [B] bool: False for good once the lane got an illegal action, was stepped from a state that
    # had been stepped before (as the frame numbers tell), or has the params of another task. Its
    # rewards are then NaN.
    is_sound: jax.Array
    handle: jax.Array  # [B, 8] uint8: raw pointer to the emulator, never to be checkpointed


class AtariEnvironment(Environment):
    """Specs and pictures of one Atari game; `vector(num_lanes)` plays it."""

    obs_shape = STACK
    obs_dtype = np.uint8
    is_pure = False
    is_step_random = False  # sticky actions and no-ops come from the seed of the reset

    def __init__(self, name: str, options: AtariOptions):
        """Read the action set of rom `name`."""
        self.name = f"ale/{name}"
        self.options = options
        self._rom = name
        self.max_steps = -(-options.max_frames // FRAME_SKIP)
        self.obs_spec = _pixels()
        self.action_names = _action_names(name, options.full_action_space)
        self.action_spec = (Component("action", "category", cardinality=len(self.action_names)),)

    @property
    def default_params(self) -> AtariParams:
        return AtariParams(max_steps=jnp.array(self.max_steps, jnp.int32))

    def make_source(self, num_lanes: int, num_threads: int = 0) -> AtariVectorEnv:
        """Start ale-py's own vector environment under our options."""
        return AtariVectorEnv(
            self._rom,
            num_lanes,
            num_threads=num_threads,
            img_height=STACK[1],
            img_width=STACK[2],
            stack_num=STACK[0],
            frameskip=FRAME_SKIP,
            maxpool=True,
            grayscale=True,
            reward_clipping=False,
            life_loss_info=self.options.episodic_life,
            repeat_action_probability=self.options.repeat_action_probability,
            noop_max=self.options.noop_max,
            use_fire_reset=self.options.fire_reset,
            full_action_space=self.options.full_action_space,
            max_num_frames_per_episode=self.options.max_frames,
        )

    def vector(self, num_lanes: int, num_threads: int = 0) -> "AtariVector":
        """Start an emulator of `num_lanes` games; `num_threads` 0 leaves their number to ALE."""
        return AtariVector(self, num_lanes, num_threads)

    def reset(self, key, params):
        self._refuse("reset")

    def step(self, key, state, action, params):
        self._refuse("step")

    def _refuse(self, method: str) -> None:
        raise NotImplementedError(
            f"{self.name}: got a call of the single-lane {method}, expected the lanes of one "
            "emulator, because stepping Atari has side effects; fix: vector = "
            "env.vector(num_lanes), then vector.reset and vector.step instead of "
            "envs.vector.VectorEnv or vmap."
        )

    def invariants(self, state, params):
        del params
        return {
            "sound": jnp.all(state.is_sound),
            "in_time": jnp.all(state.time <= state.params.max_steps),
            "lives": jnp.all(state.lives >= 0),
        }

    def render(self, state, params) -> np.ndarray:
        """Paint the newest frame of one lane, stretched back to the shape of the screen.

        The vector interface gives no colour screen; the lane is what the agent sees, in grey.
        """
        del params
        stack = np.asarray(state.obs)
        if stack.shape != STACK:
            raise ValueError(
                f"{self.name}: got a state with frames {stack.shape}, expected one lane, {STACK}; "
                "fix: jax.tree.map(lambda x: x[i], state)"
            )
        picture = Image.fromarray(stack[-1]).resize(SCREEN, Image.Resampling.BICUBIC)
        return np.array(picture.convert("RGB"))


class AtariVector:
    """B lanes of one Atari game in one emulator, in the place of `envs.vector.VectorEnv`.

    `step` works inside `jit`, `scan` and `pmap` (one vector a device: the state holds the pointer,
    so stacked states of several vectors run under the `step` of any one). A finished game starts
    anew at the *next* step, whose action is ignored and whose transition is marked `valid=False`;
    only ALE's next-step reset exists under XLA.

    What JAX cannot see: step a state once, and keep this object alive as long as its states are
    stepped, for they point into it. Two steps of one emulator at the same time crash the process.
    """

    def __init__(self, env: AtariEnvironment, num_lanes: int, num_threads: int = 0):
        """Start the emulator; nothing is played before `reset`."""
        if num_lanes < 1 or num_threads < 0:
            raise ValueError(
                f"{env.name}: got num_lanes={num_lanes} and num_threads={num_threads}, expected "
                "at least 1 lane and 0 (ALE's choice) or more threads."
            )
        self.env = env
        self.num_lanes = num_lanes
        self._source = env.make_source(num_lanes, num_threads)  # owns the emulator
        # Steps under way work in memory that goes with this object: they are waited for.
        weakref.finalize(self, jax.effects_barrier)
        self._handle, reset, step = foreign(self._source.xla)()
        self._reset, self._step = _unbatched(env, reset), _unbatched(env, step)

    def reset(self, key: jax.Array, params: AtariParams, after: AtariState | None = None) -> AtariState:
        """Seed every lane from `key` and start its first game; `params` has leaves `[B]`.

        There is one emulator, so a reset ends the games of every earlier state. On the host it
        waits for steps that are under way; inside a program nothing would order the two, so there
        an earlier state has to be given as `after`. Takes 0.1 to 0.3 s a lane: ALE loads the rom.
        """
        return self.start(lane_seeds(key, self.num_lanes), params, after)

    def start(self, seeds: jax.Array, params: AtariParams, after: AtariState | None = None) -> AtariState:
        """Start from ALE's own seeds, int32 `[B]` in [0, 2^31 - 1): equal seeds, equal games."""
        for name, value in {"seeds": seeds, "params.max_steps": params.max_steps}.items():
            if jnp.shape(value) != (self.num_lanes,):
                raise ValueError(
                    f"{self.env.name}: got {name} of shape {jnp.shape(value)}, expected "
                    f"({self.num_lanes},), one a lane; fix: envs.vector.broadcast_params for "
                    "params, lane_seeds for seeds."
                )
        if after is None:
            jax.effects_barrier()  # of every program that called an emulator
        handle = self._handle if after is None else after.handle[0]
        handle, (obs, info) = self._reset(handle, seeds)
        if after is None and isinstance(handle, jax.core.Tracer):
            raise ValueError(
                f"{self.env.name}: got a reset inside a traced program, expected it outside, or "
                "after=state, which orders it behind the steps of an earlier state."
            )
        return AtariState(
            obs=obs,
            params=params,
            time=jnp.zeros_like(info["lives"]),
            lives=info["lives"],
            birth=info["frame_number"] - info["episode_frame_number"],
            frame=info["frame_number"],
            is_sound=(params.max_steps == self.env.max_steps) & (seeds >= 0),
            handle=self._lanes(handle),
        )

    def step(
        self, key: jax.Array | None, state: AtariState, action: jax.Array
    ) -> tuple[AtariState, Transition]:
        """Step every lane, `action` int32 `[B]`; lanes whose game is over start a new one.

        `terminated`: game over or, under `episodic_life`, a lost life (the game goes on at the next
        step, which is valid). `truncated`: `max_frames` alone. `obs` and `final_obs` are the same
        here: the last observation of a game, or the first one where `valid` is False. (The frame
        that ends a game is never in its last observation: ALE stops before it takes the picture,
        and stacks the one before again where it stopped early.)
        """
        del key  # the emulator draws from its own generators, seeded by `reset`
        is_legal = (action >= 0) & (action < self.env.action_spec[0].cardinality)
        # An illegal action kills ALE's worker thread, and the program would wait for it for ever.
        played = jnp.where(is_legal, action, 0)
        handle, (obs, reward, terminated, truncated, info) = self._step(state.handle[0], played)
        # ALE does not say which steps were resets; a game that began elsewhere does.
        birth = info["frame_number"] - info["episode_frame_number"]
        valid = birth == state.birth
        is_sound = state.is_sound & is_legal & self._follows(state, birth, info["frame_number"])
        reward = jnp.where(valid, reward.astype(jnp.float32), 0.0)
        next_state = AtariState(
            obs=obs,
            params=state.params,
            time=jnp.where(valid, state.time + 1, 0),
            lives=info["lives"],
            birth=birth,
            frame=info["frame_number"],
            is_sound=is_sound,
            handle=self._lanes(handle),
        )
        return next_state, Transition(
            obs=obs,
            reward=jnp.where(is_sound, reward, jnp.nan),
            terminated=terminated & valid,
            truncated=truncated & valid,
            final_obs=obs,
            valid=valid,
        )

    def detach(self, state: AtariState) -> AtariState:
        """Take the pointer out, for files; stepping the result is an error, not a crash."""
        return state._replace(handle=jnp.zeros_like(state.handle))

    def _follows(self, state: AtariState, birth: jax.Array, frame: jax.Array) -> jax.Array:
        """Whether the emulator went on from `state`, and not from a later state of its own."""
        goes_on = birth == state.birth
        num_frames = jnp.where(goes_on, frame, birth) - state.frame
        # A new game begins with the last frame of the old one, or later if no-ops alone ended some.
        least = jnp.where(goes_on, 1, 0)
        most = jnp.where(goes_on, FRAME_SKIP, self.env.options.noop_max)
        return (least <= num_frames) & (num_frames <= most)

    def _lanes(self, handle: jax.Array) -> jax.Array:
        """Repeat the pointer for every lane, so that all leaves of a state are `[B, ...]`."""
        return jnp.broadcast_to(handle[None], (self.num_lanes, *handle.shape))


def lane_seeds(key: jax.Array, num_lanes: int) -> jax.Array:
    """ALE seeds int32 `[B]`; a lane's seed does not depend on how many lanes there are."""
    return seeds_of(key, jnp.arange(num_lanes))


def seeds_of(key: jax.Array, ids: jax.Array) -> jax.Array:
    """ALE seeds int32 `[B]` of numbers `[B]`, say of training seeds."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(ids)
    return jax.vmap(lambda k: jax.random.randint(k, (), 1, MAX_SEED, jnp.int32))(keys)


def replay(vector: AtariVector, key: jax.Array, actions: jax.Array) -> AtariState:
    """Bring an emulator to where a run stood: `reset(key)` on the host, then actions `[T, B]`.

    This is the exact resume: the key and the actions (all of them, those of invalid transitions
    too) determine every bit. Compare the result with the saved `detach(state)`.
    """
    state = vector.reset(key, broadcast_params(vector.env.default_params, vector.num_lanes))

    def step(state: AtariState, action: jax.Array) -> tuple[AtariState, None]:
        return vector.step(None, state, action)[0], None

    return jax.lax.scan(step, state, actions)[0]


def make(name: str, **options: Any) -> tuple[AtariEnvironment, AtariParams]:
    """Build an Atari game by its rom id, e.g. `make("ms_pacman", episodic_life=False)`.

    Raises `UnknownName` for an unknown game or option, `ValueError` for an illegal value.
    """
    check_name("game of ale", name, roms.get_all_rom_ids())
    if ale_py.ALEInterface.isSupportedROM(roms.get_rom_path(name)) is None:
        # Asked to load such a rom, ALE would end the whole process.
        raise ValueError(
            f"ale/{name}: got a rom without rewards for one player (a game for two that ALE "
            "ships for PettingZoo), expected one that ALE can play alone."
        )
    for field, value in options.items():
        check_name(f"option of ale/{name}", field, AtariOptions._fields)
        _check_value(name, field, value)
    env = AtariEnvironment(name, AtariOptions(**options))
    return env, env.default_params


def _check_value(name: str, field: str, value: Any) -> None:
    kind = type(AtariOptions._field_defaults[field])
    if field not in LIMITS:
        if not isinstance(value, bool):
            raise ValueError(f"ale/{name}.{field}: got {value!r}, expected True or False.")
        return
    is_number = isinstance(value, int | float if kind is float else int)
    low, high = LIMITS[field]
    if isinstance(value, bool) or not is_number or not low <= value <= high:
        raise ValueError(f"ale/{name}.{field}: got {value!r}, expected {kind.__name__} from {low} to {high}.")


def _unbatched(env: AtariEnvironment, fn: Any) -> Any:
    """Let ALE's XLA function `fn` say why it cannot be vmapped, where XLA's error would not."""
    call = jax.custom_batching.custom_vmap(foreign(fn))

    @call.def_vmap
    def refuse(*_):
        raise NotImplementedError(
            f"{env.name}: got a vmap over an emulator, expected its lanes; fix: "
            "env.vector(num_lanes) has all seeds as lanes, vmap the agent instead."
        )

    return call


@functools.cache  # ALE has to load the rom for it
def _action_names(rom: str, is_full: bool) -> tuple[str, ...]:
    emulator = ale_py.ALEInterface()
    emulator.loadROM(roms.get_rom_path(rom))
    actions = emulator.getLegalActionSet() if is_full else emulator.getMinimalActionSet()
    return tuple(action.name for action in actions)


@functools.cache
def _pixels() -> tuple[Component, ...]:
    names = (f"pixel[{','.join(map(str, index))}]" for index in np.ndindex(*STACK))
    return tuple(Component(name, "real", 0.0, 255.0) for name in names)
