"""Policies as programs: files that act where the code that made them is not (jax.export, ONNX).

What is written is one step, lowered for CPU, CUDA and TPU, with its memory as a list of arrays and its
key as two words.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.common.names import MissingExtra
from jaxagent.files import sha256_file
from jaxagent.types import Policy

PLATFORMS = ("cpu", "cuda", "tpu")
BEGIN, STEP = "begin.stablehlo", "step.stablehlo"
EXPORT_FIX = "pip install 'jaxagent[export]'"
# Its metadata wants another orbax-checkpoint than ours, which nothing that is used of it does.
ONNX_FIX = "pip install onnx onnx-ir onnxruntime equinox einops && pip install --no-deps jax2onnx dm-pix"


class Step(NamedTuple):
    """A policy whose parameters, memory and key are plain arrays."""

    begin: Callable[[jax.Array], list[jax.Array]]  # is_first [B] -> memory
    # (parameters, memory, obs [B, ...], is_first [B], key [2] uint32) -> actions [B, ...], memory
    step: Callable[..., tuple[jax.Array, list[jax.Array]]]
    params: list[jax.Array]


def flat(policy: Policy, params: Any) -> Step:
    """A policy over lists of arrays."""
    leaves, tree = jax.tree.flatten(params)
    memory = jax.tree.structure(jax.eval_shape(lambda: policy.init(1)))

    def begin(is_first: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(policy.init(is_first.shape[0]))

    def step(
        params: list[jax.Array], carry: list[jax.Array], obs: jax.Array, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, list[jax.Array]]:
        of, now = jax.tree.unflatten(tree, params), jax.tree.unflatten(memory, carry)
        action, _, then = policy.act(of, now, obs, is_first, jax.random.wrap_key_data(key))
        return action, jax.tree.leaves(then)

    return Step(begin, step, leaves)


class Program(NamedTuple):
    """A policy's two functions, exported."""

    begin: Any  # jax.export.Exported of `Step.begin`
    step: Any  # of `Step.step`
    num_lanes: int | None  # that it takes; None: any number

    @property
    def policy(self) -> Policy:
        """A policy of a list of parameters. Raises ValueError for another number of lanes than its own."""

        def init(batch_size: int) -> list[jax.Array]:
            if self.num_lanes not in (None, batch_size):
                raise ValueError(
                    f"batch_size: got {batch_size}, expected {self.num_lanes}, as this program searches; "
                    "export it with that many lanes."
                )
            return self.begin.call(jnp.ones((batch_size,), bool))

        def act(params: Any, carry: Any, obs: Any, is_first: Any, key: Any) -> tuple[Any, Any, Any]:
            action, carry = self.step.call(params, carry, obs, is_first, jax.random.key_data(key))
            return action, (), carry

        return Policy(init, act)


def program(policy: Policy, params: Any, obs: jax.ShapeDtypeStruct, num_lanes: int = 1) -> Program:
    """Lower one step for observations `obs [...]`, for any number of lanes where the policy allows that.

    A search decides by its number of lanes how it works, so that its program takes `num_lanes` alone.
    Raises `MissingExtra` without the extra `export`.
    """
    _import("flatbuffers", EXPORT_FIX)
    made = flat(policy, params)
    try:
        return _lowered(made, obs, jax.export.symbolic_shape("lanes")[0], None)
    except jax.errors.InconclusiveDimensionOperation:
        return _lowered(made, obs, num_lanes, num_lanes)


def _lowered(made: Step, obs: jax.ShapeDtypeStruct, lanes: Any, num_lanes: int | None) -> Program:
    is_first = jax.ShapeDtypeStruct((lanes,), bool)
    seen = jax.ShapeDtypeStruct((lanes, *obs.shape), obs.dtype)
    begin = jax.export.export(jax.jit(made.begin), platforms=PLATFORMS)(is_first)
    carry = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in begin.out_avals]
    params = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in made.params]
    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    step = jax.export.export(jax.jit(made.step), platforms=PLATFORMS)(params, carry, seen, is_first, key)
    return Program(begin, step, num_lanes)


def write(folder: Path, made: Program) -> dict[str, str]:
    """Write a program as two files into a folder that exists; their names and SHA-256."""
    for name, exported in ((BEGIN, made.begin), (STEP, made.step)):
        (folder / name).write_bytes(exported.serialize())
    return {name: sha256_file(folder / name) for name in (BEGIN, STEP)}


def read(folder: Path, files: Mapping[str, str], num_lanes: int | None) -> Program:
    """Read what `write` wrote, and check all `files`, their SHA-256 by name.

    Raises ValueError for a file that is another, `MissingExtra` without the extra `export`.
    """
    _import("flatbuffers", EXPORT_FIX)
    for name, expected in files.items():
        found = sha256_file(folder / name) if (folder / name).is_file() else "no file"
        if found != expected:
            raise ValueError(f"{folder / name}: got SHA-256 {found}, expected {expected}; fetch it again.")
    begin, step = (jax.export.deserialize((folder / name).read_bytes()) for name in (BEGIN, STEP))
    return Program(begin, step, num_lanes)


def write_onnx(path: Path, policy: Policy, params: Any, obs: jax.ShapeDtypeStruct) -> Path:
    """Write one step of one lane as ONNX, parameters inside, through jax2onnx.

    Inputs are the arrays of the memory, the observation `[1, ...]` and whether an episode begins `[1]`;
    outputs the action `[1, ...]` and the memory. There is no key: what a policy draws is drawn as if by
    key 0, so export a greedy one. Raises `MissingExtra` without jax2onnx, ValueError for a
    policy with an operation that it does not know.
    """
    jax2onnx = _import("jax2onnx", ONNX_FIX)
    made, key = flat(policy, params), jax.random.key_data(jax.random.key(0))
    is_first = jax.ShapeDtypeStruct((1,), bool)
    carry = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in jax.eval_shape(made.begin, is_first)]

    def step(*inputs: jax.Array) -> tuple[jax.Array, ...]:
        *memory, seen, begins = inputs
        action, then = made.step(made.params, memory, seen, begins, key)
        return (action, *then)

    inputs = [*carry, jax.ShapeDtypeStruct((1, *obs.shape), obs.dtype), is_first]
    try:
        jax2onnx.to_onnx(step, inputs, model_name=path.stem, return_mode="file", output_path=str(path))
    except Exception as error:  # of many kinds, by the operation
        raise ValueError(
            f"{path}: jax2onnx cannot write this policy ({type(error).__name__}: {error})."
        ) from error
    return path


def _import(module: str, fix: str) -> Any:
    if importlib.util.find_spec(module) is None:
        raise MissingExtra(f"{module} is not installed; {fix}")
    return importlib.import_module(module)
