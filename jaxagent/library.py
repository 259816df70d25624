"""Trained policies as files: `load(run)` gives one back, in a notebook or a script.

from jaxagent import library
policy = library.load("runs/quickstart", task="CartPole-v1", arm="finetune")
carry = policy.init(batch_size)
action, carry = policy.act(carry, obs, is_first, key)
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import envs
from envs.common.names import check_name
from jaxagent.agents import memory_policy, rainbow, raw_cloning, sequence
from jaxagent.config import MemoryConfig, PPOConfig, RainbowConfig, TransformerConfig, from_dict
from jaxagent.data import normalize, tree_file
from jaxagent.data.frames import channels_last
from jaxagent.files import write_json
from jaxagent.nn import transformer
from jaxagent.nn.q_network import q_network
from jaxagent.nn.sequence_model import token_model
from jaxagent.tokens.component import Codec, Domain
from jaxagent.tokens.scalar import Bins
from jaxagent.types import Policy

FOLDER = "policies"


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


AnyDescription = Description | ValueDescription | ActorDescription


class LoadedPolicy(NamedTuple):
    """A policy with its parameters bound."""

    description: AnyDescription
    policy: Policy
    params: Any

    def init(self, batch_size: int) -> Any:
        """The memory of B = `batch_size` lanes, a pytree."""
        return self.policy.init(batch_size)

    def act(self, carry: Any, obs: jax.Array, is_first: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        """Actions `[B, ...]` for `obs [B, ...]`, and the memory; `is_first [B]` marks lanes that begin."""
        action, _, carry = self.policy.act(self.params, carry, obs, is_first, key)
        return action, carry


def save(run: Path, description: AnyDescription, params: Any) -> None:
    """Write a policy into a run folder."""
    place = Path(run) / FOLDER / f"{description.arm}--{description.task}"
    place.mkdir(parents=True, exist_ok=True)
    tree_file.save(place / "params.npz", params)
    content = description._asdict()
    for name in {"domain", "vocabulary"} & set(content):
        content[name] = content[name]._asdict()
    write_json(place / "policy.json", content)


def available(run: Path) -> list[str]:
    """Names `arm--task` of the policies in a run folder."""
    return sorted(p.parent.name for p in (Path(run) / FOLDER).glob("*/policy.json"))


def load(run: str | Path, task: str | None = None, arm: str | None = None) -> LoadedPolicy:
    """Load a policy of a run; the fine-tuned arm, or else the first, and the first task.

    Raises `UnknownName` with the nearest valid names, `TreeFileError` for a damaged file.
    """
    names = available(Path(run))
    if arm is None:
        arms = [name.split("--")[0] for name in names]
        arm = "finetune" if "finetune" in arms else (arms or [""])[0]
    if task is None:
        task = next((n.split("--")[1] for n in names if n.startswith(f"{arm}--")), "")
    place = Path(run) / FOLDER / check_name(f"policy in {run}", f"{arm}--{task}", names)
    description = _described(json.loads((place / "policy.json").read_text()))
    policy, template = rebuild(description)
    params = tree_file.load(place / "params.npz", template)
    # Arrays of JAX: a closure over numpy cannot be indexed by tracers, so `act` would not jit.
    return LoadedPolicy(description, policy, jax.tree.map(jnp.asarray, params))


def _described(content: dict[str, Any]) -> AnyDescription:
    other = {"values": ValueDescription, "actor": ActorDescription}
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
