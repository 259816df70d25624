"""Trained policies as files: `load(run)` gives one back, in a notebook or a script.

from jaxagent import library
policy = library.load("runs/quickstart", task="CartPole-v1", arm="finetune")
carry = policy.init(batch_size)
action, carry = policy.act(carry, obs, is_first, key)

A policy lies in `run/policies/ARM--TASK`, or in a folder of its own: `policy.json` describes it, the
parameters are npz or safetensors. Some are rebuilt from their description; others are *programs*
(`jaxagent.portable`), which need no code of the agent that made them.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import envs
import jaxagent
from envs.common.names import check_name
from envs.types import Component
from jaxagent import folders, portable
from jaxagent.agents import memory_policy, rainbow, raw_cloning, sequence
from jaxagent.config import MemoryConfig, PPOConfig, RainbowConfig, TransformerConfig, from_dict
from jaxagent.data import normalize, tree_file
from jaxagent.data.frames import channels_last
from jaxagent.files import sha256_file, write_json
from jaxagent.nn import transformer
from jaxagent.nn.q_network import q_network
from jaxagent.nn.sequence_model import token_model
from jaxagent.tokens.component import Codec, Domain
from jaxagent.tokens.scalar import Bins
from jaxagent.train import manifest
from jaxagent.types import Policy

FOLDER, POLICY, CARD = "policies", "policy.json", "README.md"
PARAMS, FORMATS = "params", tuple(suffix[1:] for suffix in tree_file.SUFFIXES)


class Description(NamedTuple):
    """The description that rebuilds a cloned policy beside its parameters; JSON-safe fields."""

    arm: str
    task: str  # short name, e.g. CartPole-v1
    env: str  # registry id
    overrides: dict[str, float]
    kind: str  # "transformer" or "raw"
    rule: str  # decoding
    seed: int
    domain: Domain
    vocabulary: transformer.Vocabulary
    model: dict[str, Any]  # TransformerConfig, or {"hidden_sizes": [...]} of the raw network


class ValueDescription(NamedTuple):
    """The description that rebuilds a policy of values, `agents.rainbow`; JSON-safe fields."""

    arm: str
    task: str  # short name, e.g. Breakout
    env: str  # registry id
    overrides: dict[str, Any]
    seed: int
    obs_shape: list[int]  # as the network reads observations, [H, W, C]
    is_stack: bool  # the environment's are stacks of frames, [C, H, W]
    num_actions: int
    config: dict[str, Any]  # RainbowConfig
    kind: str = "values"


class ActorDescription(NamedTuple):
    """The description that rebuilds a policy of `agents.memory_policy`; JSON-safe fields."""

    arm: str
    task: str  # short name, e.g. TMaze-length=6
    env: str  # registry id
    overrides: dict[str, Any]
    seed: int
    ppo: dict[str, Any]  # PPOConfig
    memory: dict[str, Any]  # MemoryConfig or TransformerConfig
    forget: float  # share of steps before which the memory is cleared
    kind: str = "actor"


class ProgramDescription(NamedTuple):
    """The description of a policy that lies there as a program; JSON-safe fields."""

    arm: str
    task: str  # short name, e.g. CartPole-v1
    env: str  # registry id
    overrides: dict[str, Any]
    seed: int
    obs_shape: list[int]
    obs_dtype: str
    actions: list[dict[str, Any]]  # of `env.action_spec`
    precision: str  # of products, as it was lowered
    recipe: dict[str, Any]  # the configuration that trained it
    versions: dict[str, str]
    returns: dict[str, Any] | None = None  # "mean", "episodes", "after"
    num_lanes: int | None = None  # that it takes; None: any number
    files: dict[str, str] | None = None  # of the program, with their SHA-256
    # "view": `types.View`, as it searches with the environment itself; "wrapped": what a study shows of it.
    reads: str = "obs"
    kind: str = "program"


AnyDescription = Description | ValueDescription | ActorDescription | ProgramDescription


class LoadedPolicy(NamedTuple):
    """A policy with its parameters bound."""

    description: AnyDescription
    policy: Policy
    params: Any

    def init(self, batch_size: int) -> Any:
        """The memory of B = `batch_size` lanes, a pytree."""
        return self.policy.init(batch_size)

    def act(self, carry: Any, obs: jax.Array, is_first: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        """Actions `[B, ...]` for `obs [B, ...]`, and the memory; `is_first [B]` marks lanes that begin.

        Who searches with the environment itself sees `types.View` in place of `obs`.
        """
        action, _, carry = self.policy.act(self.params, carry, obs, is_first, key)
        return action, carry

    def export(self, path: str | Path, *, params_as: str = "npz", num_lanes: int = 1) -> Path:
        """Write it as a program that needs no code of the agent (`export`), or as `NAME.onnx`."""
        about = _program(self.description)
        if about.reads == "view":
            raise ValueError(
                f"export: got {about.arm}, which searches with {about.env} itself, expected a policy that "
                "reads observations alone; `result.save(folder)` keeps the run, which `jaxagent.load` opens."
            )
        if Path(path).suffix == ".onnx":
            with jax.default_matmul_precision(about.precision):
                return portable.write_onnx(Path(path), self.policy, self.params, _seen(about))
        return export(Path(path), about, self.policy, self.params, params_as=params_as, num_lanes=num_lanes)


def save(run: Path, description: AnyDescription, params: Any) -> None:
    """Write a policy that its description rebuilds into a run folder."""
    place = Path(run) / FOLDER / f"{description.arm}--{description.task}"
    place.mkdir(parents=True, exist_ok=True)
    tree_file.save(place / f"{PARAMS}.npz", params)
    _describe(place, description)


def export(
    folder: Path,
    description: ProgramDescription,
    policy: Policy,
    params: Any,
    *,
    params_as: str = "npz",
    num_lanes: int = 1,
) -> Path:
    """Write a policy as a program into a folder that is new or empty, with a model card.

    A policy that searches takes `num_lanes` alone. Raises `NotOurs` for a folder that holds something,
    ValueError for parameters as neither npz nor safetensors, `MissingExtra` without the extra `export`.
    """
    check_name("format of parameters", params_as, FORMATS)
    folders.check_new(folder, "policy")
    with jax.default_matmul_precision(description.precision):
        made = portable.program(policy, params, _seen(description), num_lanes)
    folder.mkdir(parents=True, exist_ok=True)
    files = portable.write(folder, made)
    name = f"{PARAMS}.{params_as}"
    tree_file.save(folder / name, params)
    files[name] = sha256_file(folder / name)
    description = description._replace(num_lanes=made.num_lanes, files=files)
    (folder / CARD).write_text(card(description, sum(x.size for x in jax.tree.leaves(params))))
    _describe(folder, description)  # last: without it there is no policy here
    return folder


def describe(env: Any, params: Any, **about: Any) -> ProgramDescription:
    """The description of a policy of `env`, whose task is `params`; `about` are the other fields."""
    obs, _ = jax.eval_shape(env.reset, jax.random.key(0), params)
    return ProgramDescription(
        env=env.name,
        obs_shape=list(env.obs_shape),
        obs_dtype=str(obs.dtype),
        actions=[_json_safe(component) for component in env.action_spec],
        versions={"jaxagent": jaxagent.__version__} | manifest.versions(),
        **about,
    )


def _program(about: AnyDescription) -> ProgramDescription:
    """The description of a policy that another one rebuilds, were it a program."""
    if isinstance(about, ProgramDescription):
        return about
    env, params = envs.make(about.env, **about.overrides)
    told = {
        name: value for name, value in about._asdict().items() if name in ("arm", "task", "overrides", "seed")
    }
    precision = jax.config.jax_default_matmul_precision or "default"
    recipe = {name: value for name, value in about._asdict().items() if isinstance(value, dict)}
    return describe(env, params, precision=precision, recipe=recipe, **told)


def _json_safe(component: Component) -> dict[str, Any]:
    ends = {
        name: x if math.isfinite(x) else None
        for name, x in (("low", component.low), ("high", component.high))
    }
    return component._asdict() | ends


def _seen(about: ProgramDescription) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(about.obs_shape), jnp.dtype(about.obs_dtype))


def _describe(place: Path, description: AnyDescription) -> None:
    content = description._asdict()
    for name in {"domain", "vocabulary"} & set(content):
        content[name] = content[name]._asdict()
    write_json(place / POLICY, content)


def available(run: Path) -> list[str]:
    """Names `arm--task` of the policies in a run folder."""
    return sorted(p.parent.name for p in (Path(run) / FOLDER).glob(f"*/{POLICY}"))


def load(run: str | Path, task: str | None = None, arm: str | None = None) -> LoadedPolicy:
    """Load the policy of a folder, or one of a run: of the fine-tuned or the first arm, of its first task.

    Raises `UnknownName` with the nearest valid names, `TreeFileError` or ValueError for a damaged file.
    """
    place = Path(run) if (Path(run) / POLICY).is_file() else _place(Path(run), task, arm)
    description = _described(json.loads((place / POLICY).read_text()))
    params = next((place / f"{PARAMS}.{s}" for s in FORMATS if (place / f"{PARAMS}.{s}").is_file()), None)
    if params is None:
        raise tree_file.TreeFileError(f"{place}: got no parameters, expected {PARAMS}.npz or .safetensors.")
    if isinstance(description, ProgramDescription):
        program = portable.read(place, description.files or {}, description.num_lanes)
        return LoadedPolicy(
            description, program.policy, [jnp.asarray(x) for x in tree_file.read(params).values()]
        )
    policy, template = rebuild(description)
    # Arrays of JAX: a closure over numpy cannot be indexed by tracers, so `act` would not jit.
    return LoadedPolicy(description, policy, jax.tree.map(jnp.asarray, tree_file.load(params, template)))


def _place(run: Path, task: str | None, arm: str | None) -> Path:
    names = available(run)
    if arm is None:
        arms = [name.split("--")[0] for name in names]
        arm = "finetune" if "finetune" in arms else (arms or [""])[0]
    if task is None:
        task = next((n.split("--")[1] for n in names if n.startswith(f"{arm}--")), "")
    return run / FOLDER / check_name(f"policy in {run}", f"{arm}--{task}", names)


def card(about: ProgramDescription, num_params: int) -> str:
    """The model card of a program, Markdown that begins as Hugging Face's do."""
    actions = ", ".join(
        f"{c['name']}: "
        + (f"one of {c['cardinality']}" if c["kind"] == "category" else f"{c['low']} to {c['high']}")
        for c in about.actions
    )
    settings = "\n".join(f"| {name} | {value} |" for name, value in _settings(about.recipe))
    changes = f" with {about.overrides}" if about.overrides else ""
    returned = "not measured"
    wrapped = ", as a study wraps the environment" if about.reads == "wrapped" else ""
    if about.returns:
        returned = "{mean:.4g} over {episodes} episodes, after {after}".format(**about.returns)
    lanes = "any number" if about.num_lanes is None else str(about.num_lanes)
    return f"""---
library_name: jaxagent
tags: [reinforcement-learning, jax, {about.arm}, {about.env}]
---

# {about.arm} on {about.env}

A policy trained by jaxagent: {num_params:,} parameters, seed {about.seed}.

| | |
| --- | --- |
| environment | `{about.env}`{changes} |
| observations | {about.obs_dtype} {about.obs_shape}{wrapped} |
| actions | {actions} |
| mean return | {returned} |
| lanes a call | {lanes} |
| products in | {about.precision} |
| versions | {", ".join(f"{name} {number}" for name, number in about.versions.items())} |

The return is of the environment that it was trained on; where it is the best of several seeds, it was
chosen by these very episodes.

```python
from jaxagent import library

policy = library.load("FOLDER")
carry = policy.init(1)
action, carry = policy.act(carry, obs, is_first, key)  # obs [1, ...], is_first [1], a key of jax.random
```

## Recipe

| setting | value |
| --- | --- |
{settings}
"""


def _settings(recipe: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Names such as fit.learning_rate and values of a nested configuration."""
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{before}{name}.")
        else:
            yield before + name, value


def _described(content: dict[str, Any]) -> AnyDescription:
    other = {"values": ValueDescription, "actor": ActorDescription, "program": ProgramDescription}
    if content["kind"] in other:
        return other[content["kind"]](**content)
    domain = {name: tuple(x) if isinstance(x, list) else x for name, x in content["domain"].items()}
    content["domain"] = Domain(**domain)
    content["vocabulary"] = transformer.Vocabulary(**content["vocabulary"])
    return Description(**content)


def rebuild(description: AnyDescription) -> tuple[Policy, Any]:
    """The functions of a described policy and a template of its parameters."""
    if isinstance(description, ValueDescription):
        return _of_values(description)
    if isinstance(description, ActorDescription):
        return _of_actor(description)
    domain, vocabulary = description.domain, description.vocabulary
    codec = _codec_template(domain, vocabulary.num_bins)
    if description.kind == "raw":
        network = raw_cloning.RawNetwork(
            domain, vocabulary.num_bins, vocabulary.size, tuple(description.model["hidden_sizes"])
        )
        init = jax.eval_shape(lambda: network.init(jax.random.key(0)))
        moments = jax.eval_shape(lambda: normalize.init((domain.obs_size,)))
        return raw_cloning.raw_policy(network, description.rule), raw_cloning.RawParams(init, codec, moments)
    model = token_model(TransformerConfig(**description.model), vocabulary)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    return sequence.policy(model, domain, description.rule), sequence.SequenceParams(params, codec)


def _of_values(about: ValueDescription) -> tuple[Policy, Any]:
    config = from_dict(RainbowConfig(), about.config)
    network = q_network(config.model, tuple(about.obs_shape), about.num_actions)
    template = jax.eval_shape(network.init, jax.random.key(0))
    policy = rainbow.policy(network, config)
    if not about.is_stack:
        return policy, template

    def act(params: Any, carry: Any, obs: jax.Array, *others: jax.Array) -> tuple[jax.Array, Any, Any]:
        return policy.act(params, carry, channels_last(obs), *others)

    return policy._replace(act=act), template


def _of_actor(about: ActorDescription) -> tuple[Policy, Any]:
    env, _ = envs.make(about.env, **about.overrides)
    ppo = from_dict(PPOConfig(), about.ppo)
    memory = from_dict(MemoryConfig() if "kind" in about.memory else TransformerConfig(), about.memory)
    agent, policy = memory_policy.learner_and_player(env, ppo, memory, about.forget)
    template = jax.eval_shape(lambda key: (agent.init(key), normalize.init(env.obs_shape)), jax.random.key(0))
    return policy, template


def _codec_template(domain: Domain, num_bins: int) -> Codec:
    def bins(size: int) -> Bins:
        return Bins(
            edges=jax.ShapeDtypeStruct((size, num_bins + 1), jnp.float32),
            centres=jax.ShapeDtypeStruct((size, num_bins), jnp.float32),
        )

    action = () if all(domain.action_sizes) else bins(domain.action_size)
    return Codec(bins(domain.obs_size), action)
