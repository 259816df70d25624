"""The arms of few-shot cloning: one table of how each begins, is fitted and acts."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from experiments.quickstart.config import AdaptConfig, Config, TaskConfig
from jaxagent import keys, library
from jaxagent.adapt import lora
from jaxagent.agents import raw_cloning, sequence
from jaxagent.agents.pretraining import next_scalars
from jaxagent.config import to_dict
from jaxagent.data import normalize, sampler
from jaxagent.evaluate.episodes import play_lanes
from jaxagent.study import agents, collection, films
from jaxagent.study import corpus as corpora
from jaxagent.study.collection import PRETRAINED
from jaxagent.study.corpus import Corpus
from jaxagent.study.study import Fit, Lanes, Player
from jaxagent.tokens.component import Domain
from jaxagent.types import Trajectory


class Arm(NamedTuple):
    """One way to meet a changed task."""

    about: str
    group: str  # arms of a group are lanes of one fit; "": fitted by none
    begins: str = ""  # which of `PRETRAINED` it begins with; "": its own first parameters
    network: str = "transformer"  # or "raw", which acts on observations as they are


ARMS = {
    "zero-shot": Arm("the pretrained model as it is", "", "model"),
    "scratch": Arm("same network, first parameters random", "network"),
    "finetune": Arm("pretrained, all parameters tuned", "network", "model"),
    "lora": Arm("pretrained and frozen, low-rank adapters tuned", "lora", "model"),
    "saboteur": Arm("pretrained on shuffled steps, all parameters tuned", "network", "saboteur"),
    "renamed": Arm("pretrained on permuted values, all parameters tuned", "network", "renamed"),
    "mlp": Arm("raw-observation MLP, no pretraining", "mlp", network="raw"),
}
LANES = (*PRETRAINED, "renamed")
TUNED = [name for name, arm in ARMS.items() if arm.group == "network"]


class Problem(NamedTuple):
    """A changed task and what its arms share."""

    task: TaskConfig
    adapt: AdaptConfig
    corpus: Corpus
    domain: Domain  # of the corpus, which the task is

    @property
    def raw_network(self) -> raw_cloning.RawNetwork:
        """The raw-observation MLP."""
        size, vocabulary = self.adapt.mlp_hidden_size, self.corpus.model.vocabulary
        return raw_cloning.RawNetwork(self.domain, vocabulary.num_bins, vocabulary.size, (size, size))


def fits_of(config: Config, index: int, pretrain: Fit) -> dict[str, Fit]:
    """A fit a group; equal windows for every arm, and equal seeds draw alike."""
    task, seeds = config.tasks[index], tuple(config.adapt.seeds)

    def lanes(group: str, folder: Path | None) -> Lanes:
        corpus, data = collection.load(config.tasks, config.tokens, config.model, folder)
        problem = Problem(task, config.adapt, corpus, corpus.domains[index])
        networks = pretrain.load(folder, corpus.model.init)
        way = GROUPS[group](problem, {name: agents.take(networks, i) for i, name in enumerate(LANES)})
        count = way.updates or task.cloning.num_updates
        rate = {"learning_rate": way.rate * task.cloning.learning_rate}
        fit = dataclasses.replace(task.cloning, num_updates=count, updates_per_chunk=count, **rate)
        draw, num_arms = corpora.draw(corpus, fit), sum(arm.group == group for arm in ARMS.values())
        windows = demonstrations(problem, data["demonstration"][index])
        return corpora.supervised(
            way.loss,
            lambda data, key: draw(data[0], key),
            way.params,
            fit,
            f"clone/{index}",
            seeds * num_arms,
            data=(jax.tree.map(lambda x: np.concatenate([x] * num_arms), windows), way.frozen),
            data_axis=(0, None),
            units={"tokens": fit.batch_size * config.model.context * problem.domain.period},
        )

    return {group: Fit(f"clone/{task.name}/{group}", partial(lanes, group)) for group in GROUPS}


def demonstrations(problem: Problem, episodes: Sequence[Trajectory]) -> sampler.Windows:
    """Windows `[seeds, ...]` of a few cut episodes for each seed, without repetition inside a seed."""
    task, count = problem.task, problem.task.demonstrations
    if count > len(episodes):
        raise ValueError(
            f"demonstrations: got {count}, expected at most {len(episodes)} finished episodes; "
            "raise collect.demonstration_episodes."
        )
    cut = [agents.take(episode, slice(task.demonstration_steps)) for episode in episodes]
    size = max(len(t.reward) for t in cut) * count  # one shape whatever the draw
    windows = []
    for seed in problem.adapt.seeds:
        order = jax.random.permutation(keys.derive(seed, f"demonstrations/{problem.domain.index}"), len(cut))
        chosen = [cut[i] for i in np.asarray(order)[:count]]
        windows.append(corpora.windows(problem.corpus, problem.domain.index, chosen, size))
    return agents.stack(windows)


class Way(NamedTuple):
    """What a group of arms fits."""

    params: Any  # [arms x seeds, ...]
    loss: Callable  # params, batch, (windows, frozen) -> loss, metrics
    rate: float = 1.0  # multiple of the cloning learning rate
    frozen: Any = ()  # network that the loss reads beside
    updates: int = 0  # 0: as many as the task has


def whole(problem: Problem, pretrained: dict[str, Any]) -> Way:
    """All parameters of the tuned arms."""
    init, seeds = jax.jit(problem.corpus.model.init), problem.adapt.seeds
    first = {name: [network] * len(seeds) for name, network in pretrained.items()}
    first[""] = [init(keys.derive(seed, "scratch/init")) for seed in seeds]
    params = agents.stack([network for name in TUNED for network in first[ARMS[name].begins]])
    return Way(params, partial(network_loss, problem))


def low_rank(problem: Problem, pretrained: dict[str, Any]) -> Way:
    """Adapters, which need a larger learning rate, of the pretrained network."""
    model, rate = pretrained["model"], problem.adapt.lora_learning_rate
    adapters = seeded(problem, adapter_init(problem, model), "lora/init")
    return Way(adapters, partial(network_loss, problem), rate, model)


def raw(problem: Problem, pretrained: dict[str, Any]) -> Way:
    """The raw-observation MLP, which needs a larger learning rate and more updates."""
    del pretrained
    params, adapt = seeded(problem, problem.raw_network.init, "raw/init"), problem.adapt
    return Way(params, partial(raw_loss, problem), adapt.mlp_learning_rate, updates=adapt.mlp_updates)


GROUPS = {"network": whole, "lora": low_rank, "mlp": raw}


def seeded(problem: Problem, init: Callable[[jax.Array], Any], purpose: str) -> Any:
    """First parameters `[seeds, ...]`."""
    return jax.jit(jax.vmap(init))(jnp.stack([keys.derive(seed, purpose) for seed in problem.adapt.seeds]))


def adapter_init(problem: Problem, model: Any) -> Callable[[jax.Array], Any]:
    """A function of a key that makes adapters of a network."""
    return lambda key: lora.init(key, model, problem.adapt.lora_rank)


def network_loss(problem: Problem, params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict]:
    """Cross-entropy of the actions by a network, or by adapters of a frozen one."""
    _, frozen = data
    network, model = lora.merge(frozen, params) if frozen else params, problem.corpus.model
    layout = model.layouts[problem.domain.index]
    return next_scalars(model, network, layout, batch, actions_only=True)


def raw_loss(problem: Problem, params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict]:
    """Cross-entropy of the actions by the raw-observation MLP."""
    del data
    obs = normalize.apply(problem.corpus.moments[problem.domain.index], batch.obs)
    action = batch.unit[..., problem.domain.obs_size :]
    return raw_cloning.cloning_loss(problem.raw_network, params, obs, action, batch.is_real), {}


def arm_params(problem: Problem, pretrain: Fit, fits: dict[str, Fit], folder: Path) -> dict[str, Any]:
    """Network parameters `[seeds, ...]` of every arm of a task."""
    count, init = len(problem.adapt.seeds), problem.corpus.model.init
    model, tuned = agents.take(pretrain.load(folder, init), 0), fits["network"].load(folder, init)
    adapters = fits["lora"].load(folder, adapter_init(problem, model))
    return {
        "zero-shot": jax.tree.map(lambda x: np.broadcast_to(x, (count, *x.shape)), model),
        "lora": jax.jit(jax.vmap(lora.merge, in_axes=(None, 0)))(model, adapters),
        "mlp": fits["mlp"].load(folder, problem.raw_network.init),
        **{name: agents.take(tuned, slice(i * count, (i + 1) * count)) for i, name in enumerate(TUNED)},
    }


def evaluate(
    config: Config, pretrain: Fit, fits: Sequence[dict[str, Fit]], folder: Path, place: Path
) -> dict[str, Any]:
    """Mean return of each seed of each arm on the changed tasks, `[arm][task]`."""
    del place
    corpus, _ = collection.load(config.tasks, config.tokens, config.model, folder)
    returns: dict[str, dict[str, list[float]]] = {name: {} for name in ARMS}
    for index, task in enumerate(config.tasks):
        problem = Problem(task, config.adapt, corpus, corpus.domains[index])
        params = arm_params(problem, pretrain, fits[index], folder)
        for network in ("transformer", "raw"):
            lanes = {name: params[name] for name, arm in ARMS.items() if arm.network == network}
            for name, means in play(problem, lanes, network, folder).items():
                returns[name][task.name] = means
    return {"returns": returns}


def play(problem: Problem, arms: dict[str, Any], network: str, folder: Path) -> dict[str, list[float]]:
    """Mean returns `[seeds]` of arms of one network, `{arm: params [seeds, ...]}`, lanes of one program.

    Arms of a seed meet the same first states. The first seed's policy and an episode of it stay.
    """
    task, dress = problem.task, partial(dressed, problem, network)
    env, changed = envs.make(task.env, **task.overrides)
    policy, _ = library.rebuild(describe(problem, next(iter(arms))))

    @jax.jit
    def run(params: Any, task: Any, lane_keys: jax.Array) -> jax.Array:
        return play_lanes(env, policy, jax.vmap(dress)(params), task, lane_keys, problem.adapt.episodes)

    lanes = jax.tree.map(lambda *x: np.concatenate(x), *jax.device_get(list(arms.values())))
    lane_keys = [keys.derive(seed, f"evaluate/{task.env}") for seed in problem.adapt.seeds]
    returns = np.asarray(run(lanes, changed, jnp.stack(lane_keys * len(arms))))
    filmed = films.player(env, policy)
    for name, params in arms.items():
        first = dress(agents.take(params, 0))
        film_key = keys.derive(problem.adapt.seeds.first, f"picture/{task.env}")
        library.save(folder, describe(problem, name), first)
        films.write(folder, f"{name}--{task.name}", env, policy, first, changed, film_key, play=filmed)
    return dict(zip(arms, returns.reshape(len(arms), -1).tolist(), strict=True))


def dressed(problem: Problem, network: str, params: Any) -> Any:
    """What acts of one seed's network: with the bins it reads, or the moments."""
    codec = problem.corpus.codecs[problem.domain.index]
    if network == "raw":
        return raw_cloning.RawParams(params, codec, problem.corpus.moments[problem.domain.index])
    return sequence.SequenceParams(params, codec)


def player(
    config: Config, pretrain: Fit, fits: Sequence[dict[str, Fit]], folder: Path, arm: str, task: str
) -> Player:
    """An arm as it was fitted, on the changed task."""
    of = agents.task_of(config.tasks, task)
    index = config.tasks.index(of)
    corpus, _ = collection.load(config.tasks, config.tokens, config.model, folder)
    problem = Problem(of, config.adapt, corpus, corpus.domains[index])
    params = arm_params(problem, pretrain, fits[index], folder)[arm]
    every = jax.jit(jax.vmap(partial(dressed, problem, ARMS[arm].network)))(params)
    policy, _ = library.rebuild(describe(problem, arm))
    return Player(*envs.make(of.env, **of.overrides), policy, every, config.adapt.seeds, of.overrides)


def describe(problem: Problem, arm: str) -> library.Description:
    """What `library.load` needs to rebuild the first seed's policy."""
    task, model, kind = problem.task, problem.corpus.model, ARMS[arm].network
    rule, seed, tokens = problem.adapt.decoding, problem.adapt.seeds.first, (problem.domain, model.vocabulary)
    hidden_sizes = list(problem.raw_network.hidden_sizes)
    network = {"hidden_sizes": hidden_sizes} if kind == "raw" else to_dict(model.config)
    return library.Description(arm, task.name, task.env, task.overrides, kind, rule, seed, *tokens, network)
