"""Agents that are fitted to a dataset: what each takes of it, how it is fitted and played."""

import functools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import blank_action
from jaxagent import keys
from jaxagent.adapt import lora
from jaxagent.agents import iql, memory_policy, raw_cloning, sequence, td3_bc
from jaxagent.agents.pretraining import next_scalars
from jaxagent.api.config import KEPT, STAGE, TrainConfig
from jaxagent.config import NUM_SHARDS, TransformerConfig
from jaxagent.data import normalize, place, reading, replay, tree_file
from jaxagent.data.store import Shard
from jaxagent.files import sha256_file
from jaxagent.nn import sequence_model
from jaxagent.nn.sequence_model import SequenceModel
from jaxagent.study import agents, corpus
from jaxagent.study.corpus import Corpus
from jaxagent.study.study import Fit, Lanes
from jaxagent.tokens import component
from jaxagent.tokens.component import Codec, Domain
from jaxagent.tokens.scalar import Bins
from jaxagent.train import loops, optimizer
from jaxagent.train.run import read_done
from jaxagent.types import Policy, Trajectory

FEW = 10  # episodes, below which a clone is told to be one of few
ALGORITHMS = {"td3_bc": td3_bc.td3_bc, "iql": iql.iql}


@functools.lru_cache(maxsize=2)
def _read(path: str, sha256: str) -> list[Shard]:
    found = place.digest(path)
    if sha256 and found != sha256:
        raise ValueError(
            f"dataset {path}: got SHA-256 {found[:12]}..., expected {sha256[:12]}... of the run; it was "
            "changed since: begin anew, or put it back."
        )
    return reading.load(path)


def dataset(config: TrainConfig) -> list[Trajectory]:
    """The trajectories `[T, B, ...]` of a training."""
    return [shard.trajectory for shard in _read(config.dataset, config.dataset_sha256)]


def refuse(env: Any, config: TrainConfig) -> None:
    """Raise ValueError where a dataset is not of the environment, as far as it says or its numbers do.

    A store names the environment that it was recorded in; of other files shapes, dtypes, categories and the
    bounds of actions are all there is to compare.
    """
    for shard in _read(config.dataset, config.dataset_sha256):
        named = str(shard.meta.get("env") or "")
        if "/" in named and named.split("/")[-1] != env.name.split("/")[-1]:
            raise ValueError(
                f"dataset {config.dataset}: got play of {named}, expected of {env.name}; pass that one."
            )
        t = shard.trajectory
        obs, action = t.obs.shape[2:], t.action.shape[2:]
        blank = blank_action(env.action_spec)
        is_one = np.prod(obs) == len(env.obs_spec) and action == blank.shape
        if not is_one or np.issubdtype(t.action.dtype, np.integer) != np.issubdtype(blank.dtype, np.integer):
            raise ValueError(
                f"dataset {config.dataset}: got observations {list(obs)} and {t.action.dtype} actions "
                f"{list(action)}, expected {list(env.obs_shape)} and {blank.dtype} {list(blank.shape)} of "
                f"{env.name}; pass the environment that it was recorded in."
            )
        columns = t.action.reshape(-1, len(env.action_spec))
        for one, column in zip(env.action_spec, columns.T, strict=True):
            low, high = one.low, one.high
            if one.kind == "category":
                low, high = 0, one.cardinality - 1
            slack = 1e-3 * max(1.0, high - low) if np.isfinite(high - low) else 0.0
            if column.min() < low - slack or column.max() > high + slack:
                raise ValueError(
                    f"dataset {config.dataset}: got {one.name} from {column.min():g} to {column.max():g}, "
                    f"expected {low:g} to {high:g} of {env.name}; it is of another environment, or its "
                    "actions are to be scaled."
                )


def limits(config: TrainConfig) -> tuple[str, ...]:
    """What a reader should know of a fit to these data."""
    count = reading.num_episodes(_read(config.dataset, config.dataset_sha256))
    if count >= FEW or config.agent in ALGORITHMS:
        return ()
    return (
        f"Cloned from {count} episodes: a clone errs where no demonstration has been, and goes on from there "
        "(covariate shift, Ross and Bagnell 2010). More episodes help more than more updates.",
    )


# --- TD3+BC and IQL ----------------------------------------------------------------------------------


def _agent(env: Any, config: TrainConfig) -> Any:
    return ALGORITHMS[config.agent](len(env.obs_spec), env.action_spec, config.fit)


def fit_values(stage: str, env: Any, task: Any, config: TrainConfig, purpose: str) -> Fit:
    """Offline reinforcement learning from single steps, of standardised observations; a lane a seed."""
    del task
    agent, fit, ids = _agent(env, config), config.fit, tuple(config.seeds)

    def lanes(folder: Path | None) -> Lanes:
        del folder
        parts = [t._replace(obs=_flat(t.obs), final_obs=_flat(t.final_obs)) for t in dataset(config)]
        moments = normalize.moments_of(np.concatenate([t.obs.reshape(-1, t.obs.shape[-1]) for t in parts]))
        see = normalize.of_spec(env.obs_spec)
        blocks = [replay.flat(jax.device_get(td3_bc.as_steps(t, env.action_spec))) for t in parts]
        steps = jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x)), *blocks)
        steps = steps._replace(obs=see(moments, steps.obs), final_obs=see(moments, steps.final_obs))
        sample = partial(replay.sample, batch_size=fit.batch_size // NUM_SHARDS)

        def keep(learner: loops.Learner) -> Any:
            return learner.params._replace(critics=()), _in_lanes(moments, len(ids))

        return Lanes(
            loops.offline_rl(agent, sample, optimizer.plain_adam(fit.learning_rate), fit.tau),
            lambda: (jnp.stack([keys.derive(seed, f"{purpose}/init") for seed in ids]),),
            fit,
            keys.derive(0, f"{purpose}/update"),
            begin=lambda lane_keys: (jax.vmap(agent.init)(lane_keys),),
            ids=ids,
            data=replay.full(steps),
            keep=keep,
            history=True,
            units={"transitions": fit.batch_size},
        )

    return Fit(stage, lanes)


def play_values(env: Any, config: TrainConfig) -> Policy:
    """The policy of `(params, moments)`."""
    return _of_vectors(memory_policy.standardised(env, _agent(env, config).policy))


def kept_values(env: Any, config: TrainConfig) -> Callable[[jax.Array], Any]:
    """What one seed of TD3+BC or IQL keeps, of a key."""
    agent = _agent(env, config)
    return lambda key: (agent.init(key)._replace(critics=()), normalize.init((len(env.obs_spec),)))


def _of_vectors(policy: Policy) -> Policy:
    """A policy that is given observations of any shape as vectors."""

    def act(params: Any, carry: Any, obs: jax.Array, is_first: jax.Array, key: jax.Array) -> tuple:
        return policy.act(params, carry, obs.reshape(obs.shape[0], -1), is_first, key)

    return Policy(policy.init, act)


def _flat(obs: np.ndarray) -> np.ndarray:
    return obs.reshape(*obs.shape[:2], -1)


def _in_lanes(tree: Any, count: int) -> Any:
    """The same for each of N lanes."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), tree)


# --- cloning by an MLP, and the transformer ----------------------------------------------------------


def _corpus(env: Any, config: TrainConfig, model: TransformerConfig) -> Corpus:
    return corpus.corpus([env], [dataset(config)], config.fit.tokens, model)


def _shape(config: TrainConfig) -> TransformerConfig:
    """A model of which only the context counts."""
    return TransformerConfig(context=config.fit.context)


def _model(env: Any, config: TrainConfig, shape: TransformerConfig) -> tuple[SequenceModel, Domain]:
    """The model and the domain of an environment, which no data decide."""
    (domain,) = component.domains([(env.obs_spec, env.action_spec)])
    return sequence_model.model(shape, config.fit.tokens, (domain,)), domain


def _network(env: Any, config: TrainConfig) -> raw_cloning.RawNetwork:
    model, domain = _model(env, config, _shape(config))
    vocabulary, size = model.vocabulary, config.fit.hidden_size
    return raw_cloning.RawNetwork(domain, vocabulary.num_bins, vocabulary.size, (size, size))


def _codec(env: Any, config: TrainConfig) -> Codec:
    """Bins of an environment's components, all 0."""
    domain, count = _model(env, config, TransformerConfig())[1], config.fit.tokens.num_bins

    def bins(size: int) -> Bins:
        return Bins(jnp.zeros((size, count + 1)), jnp.zeros((size, count)))

    return Codec(bins(domain.obs_size), () if all(domain.action_sizes) else bins(domain.action_size))


def fit_clone(stage: str, env: Any, task: Any, config: TrainConfig, purpose: str) -> Fit:
    """Behavioural cloning by an MLP, a lane a seed; snapshots are `raw_cloning.RawParams`."""
    del task
    ids = tuple(config.seeds)

    def lanes(folder: Path | None) -> Lanes:
        del folder
        of = _corpus(env, config, _shape(config))
        network, moments = _network(env, config), of.moments[0]

        def loss(params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            del data
            action = batch.unit[..., len(env.obs_spec) :]
            obs = normalize.apply(moments, batch.obs)
            return raw_cloning.cloning_loss(network, params, obs, action, batch.is_real), {}

        def keep(learner: loops.Learner) -> raw_cloning.RawParams:
            return raw_cloning.RawParams(learner.params, *_in_lanes((of.codecs[0], moments), len(ids)))

        return _supervised(config, of, loss, _first(network.init, ids, purpose), (), keep, purpose)

    return Fit(stage, lanes)


def play_clone(env: Any, config: TrainConfig) -> Policy:
    """The policy of `raw_cloning.RawParams`."""
    return raw_cloning.raw_policy(_network(env, config), config.fit.rule)


def kept_clone(env: Any, config: TrainConfig) -> Callable[[jax.Array], raw_cloning.RawParams]:
    """What one seed of a clone keeps, of a key."""
    network, codec, moments = _network(env, config), _codec(env, config), normalize.init((len(env.obs_spec),))
    return lambda key: raw_cloning.RawParams(network.init(key), codec, moments)


def fit_sequence(stage: str, env: Any, task: Any, config: TrainConfig, purpose: str) -> Fit:
    """Next tokens of all scalars or of actions, a lane a seed; snapshots are `sequence.SequenceParams`.

    What begins with another run keeps its bins, and tunes all of it or adapters.
    """
    del task
    ids, fit = tuple(config.seeds), config.fit
    has_adapters = bool(config.begin) and fit.tuning == "lora"

    def lanes(folder: Path | None) -> Lanes:
        del folder
        of = _corpus(env, config, fit.model)
        codec, base = of.codecs[0], ()
        if config.begin:
            base, codec = _begun(env, config)
            of = of._replace(tokenizers=[of.tokenizers[0]._replace(codec=codec)])

        def loss(params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            network = lora.merge(data[1], params) if has_adapters else params
            layout = of.model.layouts[0]
            return next_scalars(of.model, network, layout, batch, actions_only=fit.targets == "actions")

        def keep(learner: loops.Learner) -> sequence.SequenceParams:
            network = learner.params
            if has_adapters:
                network = jax.vmap(lora.merge, in_axes=(None, 0))(base, network)
            return sequence.SequenceParams(network, _in_lanes(codec, len(ids)))

        def init(key: jax.Array) -> Any:
            return lora.init(key, base, fit.rank) if has_adapters else of.model.init(key)

        first = _first(init, ids, purpose)
        if config.begin and not has_adapters:
            first = agents.stack([base] * len(ids))
        return _supervised(config, of, loss, first, base if has_adapters else (), keep, purpose)

    return Fit(stage, lanes)


def _begun(env: Any, config: TrainConfig) -> sequence.SequenceParams:
    """What the best seed of another run was after its last update."""
    run = Path(config.begin)
    found = sha256_file(run / KEPT)
    if found != config.begin_sha256:
        raise ValueError(
            f"begin: got SHA-256 {found[:12]}... of {run}, expected {config.begin_sha256[:12]}...."
        )
    try:
        kept = fit_sequence(STAGE, env, None, config, "").load(run, kept_sequence(env, config))
    except tree_file.TreeFileError as error:
        raise ValueError(
            f"begin: got {run}, whose model reads other components than this dataset's ({error}); expected "
            "one of the same observations and actions."
        ) from error
    best = int(np.argmax(read_done(run, "evaluate")["summary"]["returns"][-1]))
    return jax.tree.map(jnp.asarray, agents.take(agents.last(kept), best))


def play_sequence(env: Any, config: TrainConfig) -> Policy:
    """The policy of `sequence.SequenceParams`, through its cache."""
    return sequence.policy(*_model(env, config, config.fit.model), config.fit.rule)


def kept_sequence(env: Any, config: TrainConfig) -> Callable[[jax.Array], sequence.SequenceParams]:
    """What one seed of the transformer keeps, of a key."""
    model, codec = _model(env, config, config.fit.model)[0], _codec(env, config)
    return lambda key: sequence.SequenceParams(model.init(key), codec)


def _first(init: Any, ids: tuple[int, ...], purpose: str) -> Any:
    return jax.jit(jax.vmap(init))(jnp.stack([keys.derive(seed, f"{purpose}/init") for seed in ids]))


def _supervised(
    config: TrainConfig, of: Corpus, loss: Any, params: Any, frozen: Any, keep: Any, purpose: str
) -> Lanes:
    """Lanes of parameters fitted to the windows of a dataset; what is frozen is read with these."""
    fit, draw = config.fit, corpus.draw(of, config.fit)
    windows = corpus.windows(of, 0, dataset(config))
    made = corpus.supervised(
        loss,
        lambda data, key: draw(data[0], key),
        params,
        fit,
        f"{purpose}/update",
        tuple(config.seeds),
        data=(windows, frozen),
        units={"tokens": fit.batch_size * of.model.config.context * of.domains[0].period},
    )
    return replace(made, keep=keep, history=True)
