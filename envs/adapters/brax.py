"""Brax under our contract: its bare environments, without the episode and auto-reset wrappers."""

import contextlib
import copy
import io
import math
import types
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.common.foreign import as_carry, cast_like, foreign
from envs.common.names import check_name
from envs.pictures import bodies
from envs.types import Component, Environment

with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
    # jaxopt says that it is deprecated; mujoco.mjx prints that warp is missing.
    warnings.simplefilter("ignore")
    import brax.envs  # isort: skip  # the third party of this file
    import brax.fluid  # isort: skip
    import mujoco  # isort: skip  # brax's own dependency

# brax 0.14.2 calls `jnp.clip(x, a_min=)`, an argument that jax has removed, in this one module;
# without the repair the swimmer, the only robot in a fluid, does not trace.
brax.fluid.jp = types.SimpleNamespace(**{**vars(jnp), "clip": lambda x, a_min: jnp.clip(x, min=a_min)})

BACKENDS = ("spring", "generalized", "positional", "mjx")
# The first is the default. Brax refuses the others for the swimmer; `fast` has no physics at all.
BACKENDS_OF = {"swimmer": ("generalized",), "fast": ()}
EPISODE_STEPS = 1000  # the default of brax.envs.create

# Bounds that brax's own clips and sines put on observations: name -> (first, last + 1, bound).
BOUNDS = {
    "hopper": ((5, 11, 10.0),),
    "walker2d": ((8, 17, 10.0),),
    "inverted_double_pendulum": ((1, 5, 1.0), (5, 8, 10.0)),
    "reacher": ((0, 4, 1.0),),
}

# Where the camera of `render` stands; the planar robots are seen from the side.
VIEWS = {
    "ant": bodies.View(azimuth=25, elevation=25, span=4.0, height=0.5),
    "fast": bodies.View(span=4.0, height=1.0),
    "halfcheetah": bodies.View(span=3.0, height=0.6),
    "hopper": bodies.View(span=3.2, height=0.85),
    "humanoid": bodies.View(azimuth=40, span=2.8, height=0.85),
    "humanoidstandup": bodies.View(azimuth=40, elevation=20, span=3.0, height=0.6),
    "inverted_double_pendulum": bodies.View(span=4.0, height=0.6, follows=False),
    "inverted_pendulum": bodies.View(span=2.6, height=0.25, follows=False),
    "pusher": bodies.View(azimuth=165, elevation=35, span=2.8, height=-0.2, follows=False),
    "reacher": bodies.View(elevation=75, span=0.9, follows=False),
    "swimmer": bodies.View(elevation=60, span=4.5),
    "walker2d": bodies.View(span=3.4, height=0.85),
}


class BraxParams(NamedTuple):
    """The task.

    Gravity moves nothing where all joints are horizontal (reacher, swimmer). On mjx brax gives
    the ant and the humanoid one solver iteration: their contacts are not converged there, and a
    low friction may stop what it should let slide.
    """

    gravity: jax.Array  # m/s^2, downward, float32
    friction_scale: jax.Array  # factor on the friction of every contact, float32
    max_steps: jax.Array  # int32


class FastParams(NamedTuple):
    """The task of `fast`, brax's unit test: a point that accelerates while the action is > 0."""

    max_steps: jax.Array  # int32


class BraxState(NamedTuple):
    """What brax's `step` reads of its own state, and our clock."""

    pipeline: Any  # the physics state of the backend
    time: jax.Array  # int32 []


class BraxEnvironment(Environment):
    """One brax environment on one physics backend.

    Differs: `truncated` stays true where the episode also terminated in its last step; brax's
    `EpisodeWrapper` reports `truncation = truncated and not terminated`. `info["time_out"]` is
    dropped: brax sets it where the pole fell, which is a termination.
    """

    is_step_random = False

    def __init__(self, name: str, source: Any, params: Any, backend: str):
        """Wrap brax's `source`; `backend` is empty for `fast`."""
        self._source = source
        self._short_name = name
        self.name = f"brax/{name}"
        self.backend = backend
        self.make_options = {"backend": backend} if backend else {}
        obs, _ = jax.eval_shape(self.reset, jax.random.key(0), params)
        self.obs_shape = obs.shape
        self.obs_spec = _obs_spec(name, obs.shape[0])
        self.action_spec = tuple(
            Component(f"action[{i}]", "real", -1.0, 1.0) for i in range(source.action_size)
        )
        self.max_steps = int(params.max_steps)

    @property
    def default_params(self) -> Any:
        return _nominal(self._source)

    def reset(self, key, params):
        with _quiet():
            first = foreign(self._of_task(params).reset)(key)
        state = BraxState(as_carry(first.pipeline_state), jnp.zeros((), jnp.int32))
        return jnp.asarray(first.obs, jnp.float32), state

    def step(self, key, state, action, params):
        del key
        zero = jnp.zeros(())
        before = brax.envs.State(state.pipeline, obs=(), reward=zero, done=zero, metrics={})
        with _quiet():
            after = foreign(self._of_task(params).step)(before, action)
        pipeline = cast_like(after.pipeline_state, state.pipeline)
        time = state.time + 1
        return (
            jnp.asarray(after.obs, jnp.float32),
            BraxState(pipeline, time),
            jnp.asarray(after.reward, jnp.float32),
            jnp.asarray(after.done, bool),
            time >= params.max_steps,
            {name: jnp.asarray(value, jnp.float32) for name, value in after.metrics.items()},
        )

    def invariants(self, state, params):
        norm = jnp.linalg.norm(state.pipeline.x.rot, axis=-1)
        return super().invariants(state, params) | {
            "in_time": state.time <= params.max_steps,
            "unit_rotations": jnp.all(jnp.abs(norm - 1.0) < 1e-3),
        }

    def render(self, state, params) -> np.ndarray:
        del params
        pos, rot = np.asarray(state.pipeline.x.pos), np.asarray(state.pipeline.x.rot)
        if self._short_name == "fast":
            center = pos + np.array([0.0, 0.0, 0.25])
            point = bodies.Capsule(center, center, 0.25, 1)
            return bodies.paint_bodies([point], pos, VIEWS["fast"])
        model = self._source.sys.mj_model
        capsules = _capsules(model, pos, rot)
        view = VIEWS[self._short_name]
        return bodies.paint_bodies(capsules, pos[0], view, floor=_floor(model))

    def _of_task(self, params: Any) -> Any:
        """Brax's environment with the system of the task; the shared one is never written to."""
        if isinstance(params, FastParams):
            return self._source
        source = copy.copy(self._source)
        source.sys = _system(self._source.sys, params)
        return source


def make(
    name: str, backend: str | None = None, **overrides: float
) -> tuple[BraxEnvironment, BraxParams | FastParams]:
    """Build a brax environment on `backend` ("spring" unless given); `overrides` change its task.

    Raises `UnknownName` for an unknown backend or parameter, `ValueError` for an illegal value.
    """
    backend = _check_backend(name, backend)
    with _quiet():
        kwargs = {"backend": backend} if backend else {}
        source = brax.envs.get_environment(name, **kwargs)
    params = _nominal(source)
    for field, value in overrides.items():
        check_name(f"parameter of brax/{name}", field, params._fields)
        _check_value(name, field, value)
    params = params._replace(**{f: jnp.asarray(v, getattr(params, f).dtype) for f, v in overrides.items()})
    return BraxEnvironment(name, source, params, backend), params


def _check_backend(name: str, backend: str | None) -> str:
    valid = BACKENDS_OF.get(name, BACKENDS)
    if backend is None:
        return valid[0] if valid else ""
    if not valid:
        raise ValueError(f"brax/{name}: got backend {backend!r}, expected none; it has no physics.")
    return check_name(f"backend of brax/{name}", backend, valid)


def _check_value(name: str, field: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"brax/{name}.{field}: got {value!r}, expected a finite number.")
    if field == "max_steps" and (value != int(value) or value < 1):
        raise ValueError(f"brax/{name}.{field}: got {value}, expected a whole number from 1 on.")
    if field == "friction_scale" and value <= 0:
        raise ValueError(
            f"brax/{name}.{field}: got {value}, expected a positive number; the contact solver of "
            "the generalized backend divides by it, so use a small one for ice."
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to themselves what brax, mjx and MuJoCo say about their own code.

    MuJoCo would also write a MUJOCO_LOG.TXT into the working directory.
    """
    handler = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Brax System", UserWarning)
            warnings.filterwarnings("ignore", "Accessing `.*` directly from", DeprecationWarning)
            yield
    finally:
        mujoco.set_mju_user_warning(handler)


def _nominal(source: Any) -> BraxParams | FastParams:
    max_steps = jnp.asarray(EPISODE_STEPS, jnp.int32)
    if not hasattr(source, "sys"):
        return FastParams(max_steps)
    return BraxParams(
        gravity=-jnp.asarray(source.sys.gravity[2], jnp.float32),
        friction_scale=jnp.ones((), jnp.float32),
        max_steps=max_steps,
    )


def _system(system: Any, params: BraxParams) -> Any:
    """Brax's system under the task; brax's own backends and mjx read gravity in two places."""
    gravity = system.gravity.at[2].set(-params.gravity)
    return system.replace(
        gravity=gravity,
        opt=system.opt.replace(gravity=gravity),
        geom_friction=system.geom_friction * params.friction_scale,
    )


def _obs_spec(name: str, size: int) -> tuple[Component, ...]:
    bounds = np.full(size, math.inf)
    for first, end, bound in BOUNDS.get(name, ()):
        bounds[first:end] = bound
    return tuple(Component(f"obs[{i}]", "real", -float(b), float(b)) for i, b in enumerate(bounds))


# --- pictures -------------------------------------------------------------------------------------


def _capsules(model: Any, pos: np.ndarray, rot: np.ndarray) -> list[bodies.Capsule]:
    """Capsules and spheres of a MuJoCo model in the world; link poses `[links, 3]`, `[links, 4]`.

    The world itself is body 0 and no link. Brax's models hold no other shape but planes.
    """
    pos = np.concatenate([np.zeros((1, 3)), pos])
    rot = np.concatenate([[[1.0, 0.0, 0.0, 0.0]], rot])
    limbs = _limbs(np.asarray(model.body_parentid))
    found = []
    for i in range(model.ngeom):
        kind = mujoco.mjtGeom(model.geom_type[i])
        if kind not in (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_SPHERE):
            continue
        body = model.geom_bodyid[i]
        half = model.geom_size[i, 1] if kind == mujoco.mjtGeom.mjGEOM_CAPSULE else 0.0
        along = _rotate(np.array([0.0, 0.0, half]), model.geom_quat[i])
        ends = [pos[body] + _rotate(model.geom_pos[i] + sign * along, rot[body]) for sign in (-1, 1)]
        radius = float(model.geom_size[i, 0])
        found.append(bodies.Capsule(ends[0], ends[1], radius, limbs[body]))
    return found


def _limbs(parents: np.ndarray) -> list[int]:
    """Number the limbs of a tree, one number a body: a limb begins at a root and at every fork.

    Body 0, the world, is its own parent and limb 0; parents come before their children.
    """
    limbs, num_children = [0], np.bincount(parents, minlength=len(parents))
    for parent in parents[1:]:
        is_new = parents[parent] == 0 or num_children[parent] > 1
        limbs.append(max(limbs) + 1 if is_new else limbs[parent])
    return limbs


def _floor(model: Any) -> float | None:
    """Height of the model's plane, or None."""
    planes = np.flatnonzero(np.asarray(model.geom_type) == int(mujoco.mjtGeom.mjGEOM_PLANE))
    return float(model.geom_pos[planes[0], 2]) if len(planes) else None


def _rotate(vector: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """Turn `vector` `[3]` by a unit quaternion `[4]` (w first)."""
    axis = quaternion[1:]
    across = np.cross(axis, vector)
    return vector + 2 * (quaternion[0] * across + np.cross(axis, across))
