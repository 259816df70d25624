"""The agent of all parts as lanes of a study: histories, pretraining on them, and what begins with it."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from jaxagent import keys
from jaxagent.adapt import lora
from jaxagent.agents import predictive_pretraining
from jaxagent.agents.memory_policy import fresh_actor
from jaxagent.agents.planning import gumbel_output
from jaxagent.agents.predictive_actor import PredictiveActor, PredictiveParams
from jaxagent.agents.sequence_actor import SequenceActor, actor_of
from jaxagent.agents.sequence_planner import SequencePlanner
from jaxagent.config import (
    NUM_SHARDS,
    FitConfig,
    SearchConfig,
    SequencePlannerConfig,
    TokenConfig,
    TransformerConfig,
)
from jaxagent.data import sampler, store
from jaxagent.evaluate.episodes import record
from jaxagent.nn.token_dynamics import dynamics
from jaxagent.report.figure import tree
from jaxagent.study import agents, collection, histories
from jaxagent.study import corpus as corpora
from jaxagent.study.study import Fit, Lanes
from jaxagent.train.run import stage_folder
from jaxagent.types import Policy, Trajectory

Way = Literal["full", "lora"]  # which parameters of a pretrained transformer learn


class Given(NamedTuple):
    """What was pretrained, and an agent begins with."""

    network: Any
    dynamics: Any


class Adapted(NamedTuple):
    """A transformer that stays, and the adapters beside it that learn."""

    base: Any
    adapters: Any


def planner_of(env: Any, config: SequencePlannerConfig, model: TransformerConfig) -> SequencePlanner:
    """The agent with a fresh transformer, which reads standardised observations."""
    return planner_on(fresh_actor(env, model), config)


def planner_on(actor: SequenceActor, config: SequencePlannerConfig) -> SequencePlanner:
    """The agent on a transformer that acts."""
    model, size = actor.model, actor.domain.action_size
    heard = dynamics(model.vocabulary, model.config.width, size, config.projection_size)
    return SequencePlanner(PredictiveActor(actor, heard), config)


def beginning(planner: SequencePlanner, way: Way, rank: int) -> SequencePlanner:
    """`planner`, which begins with a `Given` of each lane and learns all of it ("full").

    "lora": of the transformer, adapters of `rank`; value and dynamics learn in full.
    """

    def all_of_it(key: jax.Array, init: Callable, given: Given) -> PredictiveParams:
        return init(key)._replace(**given._asdict())

    def adapters(key: jax.Array, init: Callable, given: Given) -> PredictiveParams:
        key_init, key_adapters = jax.random.split(key)
        adapted = Adapted(given.network, lora.init(key_adapters, given.network, rank))
        return init(key_init)._replace(network=adapted, dynamics=given.dynamics)

    def merged(params: PredictiveParams) -> PredictiveParams:
        base, learned = params.network
        return params._replace(network=lora.merge(jax.lax.stop_gradient(base), learned))

    if way == "full":
        return dataclasses.replace(planner, begin=all_of_it)
    return dataclasses.replace(planner, begin=adapters, whole=merged)


def play(
    env: Any,
    task: Any,
    policy: Policy,
    players: Sequence[Any],
    seeds: Sequence[int],
    lanes: int,
    steps: int,
    purpose: str,
    place: Path,
    within: Path,
) -> dict[str, Any]:
    """Store what each seed's players do, trajectories `[T, M lanes, ...]`; returns what there is to tell.

    `players` are a seed's parameters of `policy`, leaves `[M, ...]`. A seed's play depends on it, its
    players and the purpose alone.
    """

    def one(seed: int, params: Any) -> Trajectory:
        key = keys.derive(seed, purpose)
        played = histories.roll_out(env, policy, params, task, lanes, steps, key)
        return jax.tree.map(lambda x: np.moveaxis(x, 0, 1).reshape(steps, -1, *x.shape[3:]), played)

    played = [one(seed, params) for seed, params in zip(seeds, players, strict=True)]
    metas = [{"env": env.name, "seed": seed} for seed in seeds]
    shards = [store.Shard(meta, trajectory) for meta, trajectory in zip(metas, played, strict=True)]
    store.write(place / "store", shards, within=within)
    return {"env_steps": played[0].reward.size, "reward": float(np.mean([t.reward for t in played]))}


def stored(folder: Path | None, stage: str) -> list[Trajectory]:
    """The trajectories of `play`, of a stage of a run's folder; none where there is no folder."""
    if folder is None:
        return []
    return [shard.trajectory for shard in store.read(stage_folder(folder, stage) / "store")]


class Reading(NamedTuple):
    """How play is read: by a transformer in the units of its bins, or in patches."""

    actor: SequenceActor
    windows: Callable[[Sequence[Trajectory]], sampler.Windows]
    played: Sequence[Trajectory]  # by seed

    @property
    def data(self) -> list[sampler.Windows]:
        """What is pretrained on, one a seed."""
        return [self.windows([trajectory]) for trajectory in self.played]


def reading(
    env: Any, played: Sequence[Trajectory], num_seeds: int, tokens: TokenConfig, model: TransformerConfig
) -> Reading:
    """One environment's play by seed; noise where nothing was played. Bins serve all seeds."""
    played = played or [collection.stand_in(env)] * num_seeds
    if model.patch:
        windows = partial(sampler.raw_windows, context=model.context)
        return Reading(fresh_actor(env, model), windows, played)
    of = corpora.corpus([env], [played], tokens, model)
    (bins,) = of.tokenizers
    actor = actor_of(of.model, bins.domain, env.action_spec, bins.codec)
    return Reading(actor, partial(corpora.windows, of, 0), played)


def pretraining(
    of: Reading,
    seeds: Sequence[int],
    config: FitConfig,
    planner: SequencePlannerConfig,
    purpose: str,
    *,
    is_shuffled: bool = False,
) -> Lanes:
    """A lane a seed, each on its own history (`predictive_pretraining.loss`), whose steps count as its.

    `is_shuffled`: no step follows from the one before (`sampler.shuffled`).
    """
    net, data = planner_on(of.actor, planner).predictive, of.data
    if is_shuffled:
        data = [sampler.shuffled(w, keys.derive(s, "shuffle")) for s, w in zip(seeds, data, strict=True)]
    init = jax.jit(net.init)
    params = agents.stack([init(keys.derive(seed, f"{purpose}/init")) for seed in seeds])
    size, context = config.batch_size // NUM_SHARDS, of.actor.model.config.context

    def loss(params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        del data
        return predictive_pretraining.loss(net, planner.spr, params, batch)

    lanes = corpora.supervised(
        loss,
        partial(sampler.sample, batch_size=size, context=context),
        params,
        config,
        purpose,
        seeds,
        data=agents.stack(data),
        data_axis=0,
        units={"tokens": config.batch_size * context * of.actor.domain.period, "env_steps": 0},
    )
    return dataclasses.replace(lanes, before={"env_steps": int(data[0].num_real)})


def given_by(fit: Fit, folder: Path | None) -> Given:
    """What a fit of `pretraining` left in a folder, leaves `[seeds, ...]`; zeros where there is none."""
    params = fit.load(folder)
    return Given(params.network, params.dynamics)


def moment(
    env: Any,
    planner: SequencePlanner,
    params: Any,
    task: Any,
    key: jax.Array,
    search: SearchConfig,
    name: str,
) -> dict[str, Any]:
    """A figure of the search that moves its policy most, of an episode on the task `name`.

    It is the episode that `films.write` shows under the same key.
    """
    policy = planner.policy(gumbel_output(search, gumbel_scale=0.0), lambda output: output)
    play = jax.jit(partial(record, env, policy, num_steps=env.max_steps))
    recording = jax.device_get(play(params, task, key))
    told = jax.tree.map(lambda x: x[: int(recording.num_steps)], recording.extras)
    prior = scipy.special.softmax(told.search_tree.children_prior_logits[:, 0], axis=-1)
    step = int(np.argmax(scipy.special.rel_entr(told.action_weights, prior).sum(axis=-1)))
    output = jax.tree.map(lambda x: x[step], told)
    caption = (
        f"Step {step + 1} of the film, where search moves the policy most. In a circle the visits, below "
        "it the value; an edge has its action and is as thick as its prior; blue is what was decided for."
    )
    nodes = _nodes(planner, output.search_tree, int(output.action))
    return tree(f"A search on {name}", caption, nodes)


def _nodes(planner: SequencePlanner, searched: Any, action: int) -> list[dict[str, Any]]:
    """The nodes of one tree, and on them the way that was decided for."""
    made = [n for n in range(searched.node_visits.shape[0]) if n == 0 or searched.parents[n] >= 0]
    number, way, now = {n: i for i, n in enumerate(made)}, {0}, searched.children_index[0, action]
    while now >= 0:
        way.add(int(now))
        now = searched.children_index[now, np.argmax(searched.children_visits[now])]
    nodes = []
    for n in made:
        parent, edge = int(searched.parents[n]), int(searched.action_from_parent[n])
        label, prior = "", 1.0
        if n:
            taken = planner.action_of(jnp.asarray(searched.embeddings.actions[parent, edge])[None])[0]
            label = ", ".join(f"{x:.2g}" for x in np.atleast_1d(np.asarray(taken)[0]))
            prior = float(scipy.special.softmax(searched.children_prior_logits[parent])[edge])
        numbers = {"visits": int(searched.node_visits[n]), "value": float(searched.node_values[n])}
        place = {"parent": number.get(parent, -1), "label": label, "prior": prior}
        nodes.append(place | numbers | {"is_chosen": n in way})
    return nodes


def shuffled_lanes(state: jax.Array) -> jax.Array:
    """A saboteur's states `[B, D]`: those of the lane before."""
    return jnp.roll(state, 1, axis=0)
