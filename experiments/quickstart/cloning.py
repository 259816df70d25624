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
from experiments.quickstart.config import Config, TaskConfig
from jaxagent import keys, library
from jaxagent.adapt import lora
from jaxagent.agents import offline, sequence
from jaxagent.agents.offline import RawNetwork, RawParams
from jaxagent.agents.sequence import SequenceParams
from jaxagent.config import FitConfig, to_dict
from jaxagent.data import normalize, sampler
from jaxagent.evaluate.episodes import play_lanes
from jaxagent.study import agents, collection, films
from jaxagent.study import corpus as corpora
from jaxagent.study.corpus import Corpus
from jaxagent.study.study import Fit, Lanes
from jaxagent.types import Policy, Trajectory

LORA_TARGETS = ("query", "key", "value", "output", "up", "down")
PRETRAINED = ("model", "saboteur")  # lanes of the pretraining


class Arm(NamedTuple):
    """One way to meet a changed task."""

    about: str
    group: str  # arms of a group are lanes of one fit; "": fitted by none
    begins: str = ""  # the network of `PRETRAINED` that it begins with; "": its own first parameters
    network: str = "transformer"  # or "raw", which acts on observations as they are


ARMS = {
    "zero-shot": Arm("the pretrained model as it is", "", "model"),
    "scratch": Arm("same network, first parameters random", "network"),
    "finetune": Arm("pretrained, all parameters tuned", "network", "model"),
    "lora": Arm("pretrained and frozen, low-rank adapters tuned", "lora", "model"),
    "saboteur": Arm("pretrained on shuffled steps, all parameters tuned", "network", "saboteur"),
    "mlp": Arm("raw-observation MLP, no pretraining", "mlp", network="raw"),
}
TUNED = [name for name, arm in ARMS.items() if arm.group == "network"]
GROUPS = ("network", "lora", "mlp")


class Shared(NamedTuple):
    """What all stages after the collection read."""

    corpus: Corpus
    data: dict[str, list[list[Trajectory]]]  # by split and task


def shared(config: Config, folder: Path | None) -> Shared:
    """The corpus of a run and its trajectories; demonstrations are cut."""
    corpus, data = collection.load(config.tasks, config.tokens, config.model, folder)
    cut = [
        [agents.take(episode, slice(task.demonstration_steps)) for episode in episodes]
        for task, episodes in zip(config.tasks, data["demonstration"], strict=True)
    ]
    return Shared(corpus, data | {"demonstration": cut})


def pretraining(config: Config) -> Fit:
    """One transformer on all nominal tasks; its saboteur, on shuffled steps, is the second lane."""

    def lanes(folder: Path | None) -> Lanes:
        corpus, data = shared(config, folder)
        clean = [corpora.windows(corpus, i, t) for i, t in enumerate(data["train"])]
        held_out = [corpora.windows(corpus, i, t) for i, t in enumerate(data["validation"])]
        shuffles = [keys.derive(config.seed, f"shuffle/{i}") for i in range(len(clean))]
        pairs = [agents.stack([w, sampler.shuffled(w, k)]) for w, k in zip(clean, shuffles, strict=True)]

        def tell(params: Any) -> dict[str, Any]:
            return {"validation": corpora.validation(corpus, clean, held_out, PRETRAINED, params)}

        return corpora.pretrain(corpus, pairs, [config.seed] * 2, config.pretrain, data_axis=0, tell=tell)

    return Fit("pretrain", lanes)


def demonstrations(
    corpus: Corpus, index: int, episodes: Sequence[Trajectory], count: int, seeds: Sequence[int]
) -> sampler.Windows:
    """Windows `[seeds, ...]` of `count` episodes for each seed, without repetition inside a seed."""
    if count > len(episodes):
        raise ValueError(
            f"demonstrations: got {count}, expected at most {len(episodes)} finished episodes; "
            "raise collect.demonstration_episodes."
        )
    chosen = []
    for seed in seeds:
        order = jax.random.permutation(keys.derive(seed, f"demonstrations/{index}"), len(episodes))
        chosen.append([episodes[i] for i in np.asarray(order)[:count]])
    size = max(len(t.reward) for t in episodes) * count  # one shape whatever the draw
    return agents.stack([corpora.windows(corpus, index, t, size) for t in chosen])


def fits_of(config: Config, index: int, pretrain: Fit) -> dict[str, Fit]:
    """Equal updates on equal windows for every arm of a task; equal seeds draw alike."""
    task, ways = config.tasks[index], {"network": _whole, "lora": _low_rank, "mlp": _raw}

    def lanes(group: str, folder: Path | None) -> Lanes:
        corpus, data = shared(config, folder)
        episodes, seeds = data["demonstration"][index], tuple(config.adapt.seeds)
        windows = demonstrations(corpus, index, episodes, task.demonstrations, seeds)
        networks = pretrain.load(folder, corpus.model.init)
        base = {name: agents.take(networks, i) for i, name in enumerate(PRETRAINED)}
        way = ways[group](config, corpus, index, windows, base)
        tokens = task.cloning.batch_size * config.model.context * corpus.domains[index].period
        ids = seeds * (jax.tree.leaves(way.params)[0].shape[0] // len(seeds))
        return corpora.supervised(
            way.loss,
            way.sample,
            way.params,
            way.fit,
            f"clone/{index}",
            ids,
            data=way.data,
            data_axis=way.axis,
            units={"tokens": tokens},
        )

    return {group: Fit(f"clone/{task.name}/{group}", partial(lanes, group)) for group in GROUPS}


class Way(NamedTuple):
    """What a group of arms fits."""

    params: Any  # [lanes, ...]
    loss: Callable
    sample: Callable
    data: Any
    axis: Any
    fit: FitConfig


def _whole(config: Config, corpus: Corpus, index: int, windows: Any, base: dict[str, Any]) -> Way:
    """The whole network: lanes `[arms x seeds]`."""
    init, task = jax.jit(corpus.model.init), config.tasks[index]
    fresh = [init(keys.derive(seed, "scratch/init")) for seed in config.adapt.seeds]
    begin = {name: [base[ARMS[name].begins]] * len(fresh) if ARMS[name].begins else fresh for name in TUNED}

    def loss(params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict]:
        del data
        tokens = corpora.tokens_of(batch, corpus.domains[index])
        return sequence.loss(corpus.model, params, tokens, actions_only=True), {}

    params = agents.stack([p for name in TUNED for p in begin[name]])
    data = jax.tree.map(lambda x: np.concatenate([x] * len(TUNED)), windows)
    return Way(params, loss, corpora.draw(corpus, task.cloning), data, 0, task.cloning)


def _low_rank(config: Config, corpus: Corpus, index: int, windows: Any, base: dict[str, Any]) -> Way:
    """Low-rank adapters on the frozen model."""
    fit = _faster(config.tasks[index], config.adapt.lora_learning_rate)
    draw = corpora.draw(corpus, fit)

    def loss(adapters: Any, batch: Any, data: Any) -> tuple[jax.Array, dict]:
        params, tokens = lora.merge(data[1], adapters), corpora.tokens_of(batch, corpus.domains[index])
        return sequence.loss(corpus.model, params, tokens, actions_only=True), {}

    adapters = lora_init(base["model"], config.adapt.lora_rank, tuple(config.adapt.seeds))
    return Way(adapters, loss, lambda d, k: draw(d[0], k), (windows, base["model"]), (0, None), fit)


def _raw(config: Config, corpus: Corpus, index: int, windows: Any, base: dict[str, Any]) -> Way:
    """The raw-observation MLP."""
    del base
    fit = _faster(config.tasks[index], config.adapt.mlp_learning_rate)
    network, moments = raw_network(config, corpus, index), corpus.moments[index]

    def loss(params: Any, batch: Any, data: Any) -> tuple[jax.Array, dict]:
        del data
        obs, weight = normalize.apply(moments, batch.obs), batch.segment != sampler.PADDING
        return offline.cloning_loss(network, params, obs, batch.action_tokens, weight), {}

    params = raw_init(network, tuple(config.adapt.seeds))
    return Way(params, loss, corpora.draw(corpus, fit), windows, 0, fit)


def _faster(task: TaskConfig, multiple: float) -> FitConfig:
    """The same fit with a larger learning rate, which adapters and the MLP need."""
    return dataclasses.replace(task.cloning, learning_rate=multiple * task.cloning.learning_rate)


def lora_init(base: Any, rank: int, seeds: Sequence[int]) -> Any:
    """Adapters `[seeds, ...]`."""
    return _lora_lanes(jnp.stack([keys.derive(seed, "lora/init") for seed in seeds]), base, rank)


@partial(jax.jit, static_argnames="rank")
def _lora_lanes(lane_keys: jax.Array, base: Any, rank: int) -> Any:
    return jax.vmap(lambda key: lora.init(key, base, rank, LORA_TARGETS))(lane_keys)


def raw_network(config: Config, corpus: Corpus, index: int) -> RawNetwork:
    """The raw-observation baseline of a task."""
    size, vocabulary = config.adapt.mlp_hidden_size, corpus.model.vocabulary
    return RawNetwork(corpus.domains[index], vocabulary.num_bins, vocabulary.size, (size, size))


def raw_init(network: RawNetwork, seeds: Sequence[int]) -> Any:
    """Parameters `[seeds, ...]` of the raw-observation MLP."""
    return jax.jit(jax.vmap(network.init))(jnp.stack([keys.derive(seed, "raw/init") for seed in seeds]))


def arm_params(
    config: Config, corpus: Corpus, index: int, pretrain: Fit, fits: dict[str, Fit], folder: Path
) -> dict[str, Any]:
    """Network parameters `[seeds, ...]` of every arm of a task."""
    count, init, rank = len(config.adapt.seeds), corpus.model.init, config.adapt.lora_rank
    base, whole = agents.take(pretrain.load(folder, init), 0), fits["network"].load(folder, init)
    adapters = fits["lora"].load(folder, lambda key: lora.init(key, base, rank, LORA_TARGETS))
    return {
        "zero-shot": jax.tree.map(lambda x: np.broadcast_to(x, (count, *x.shape)), base),
        "lora": jax.jit(jax.vmap(lora.merge, in_axes=(None, 0)))(base, adapters),
        "mlp": fits["mlp"].load(folder, raw_network(config, corpus, index).init),
        **{name: agents.take(whole, slice(i * count, (i + 1) * count)) for i, name in enumerate(TUNED)},
    }


def acting(config: Config, corpus: Corpus, index: int, network: str) -> tuple[Policy, Callable[[Any], Any]]:
    """The policy of a network and the function that dresses its parameters for it."""
    codec, moments, rule = corpus.codecs[index], corpus.moments[index], config.adapt.decoding
    if network == "raw":
        policy = offline.raw_policy(raw_network(config, corpus, index), rule)
        return policy, lambda params: RawParams(params, codec, moments)
    policy = sequence.policy(corpus.model, corpus.domains[index], rule)
    return policy, lambda params: SequenceParams(params, codec)


def evaluate(
    config: Config, pretrain: Fit, fits: Sequence[dict[str, Fit]], folder: Path, place: Path
) -> dict[str, Any]:
    """Mean return of each seed of each arm on the changed tasks, `[arm][task]`."""
    del place
    corpus, _ = shared(config, folder)
    returns: dict[str, dict[str, list[float]]] = {name: {} for name in ARMS}
    for index, task in enumerate(config.tasks):
        params = arm_params(config, corpus, index, pretrain, fits[index], folder)
        for network in ("transformer", "raw"):
            lanes = {name: params[name] for name, arm in ARMS.items() if arm.network == network}
            for name, found in play(config, corpus, index, lanes, network, folder).items():
                returns[name][task.name] = found
    return {"returns": returns}


def play(
    config: Config, corpus: Corpus, index: int, arms: dict[str, Any], network: str, folder: Path
) -> dict[str, list[float]]:
    """Mean returns `[seeds]` of arms of one network, `{arm: params [seeds, ...]}`, lanes of one program.

    Arms of a seed meet the same first states. The first seed's policy and an episode of it stay.
    """
    task, seeds = config.tasks[index], tuple(config.adapt.seeds)
    env, changed = envs.make(task.env, **task.overrides)
    policy, dress = acting(config, corpus, index, network)

    @jax.jit
    def run(params: Any, task: Any, lane_keys: jax.Array) -> jax.Array:
        return play_lanes(env, policy, jax.vmap(dress)(params), task, lane_keys, config.adapt.episodes)

    lanes = jax.tree.map(lambda *x: np.concatenate(x), *jax.device_get(list(arms.values())))
    lane_keys = [keys.derive(seed, f"evaluate/{task.env}") for seed in seeds]
    returns = np.asarray(run(lanes, changed, jnp.stack(lane_keys * len(arms))))
    for name, params in arms.items():
        first = dress(agents.take(params, 0))
        library.save(folder, describe(config, corpus, index, name), first)
        film_key = keys.derive(seeds[0], f"picture/{task.env}")
        films.write(folder, f"{name}--{task.name}", env, policy, first, changed, film_key, label=name)
    return dict(zip(arms, returns.reshape(len(arms), -1).tolist(), strict=True))


def describe(config: Config, corpus: Corpus, index: int, arm: str) -> library.Description:
    """What `library.load` needs to rebuild the first seed's policy."""
    task, kind = config.tasks[index], ARMS[arm].network
    hidden = list(raw_network(config, corpus, index).hidden_sizes)
    return library.Description(
        arm=arm,
        task=task.name,
        env=task.env,
        overrides=task.overrides,
        kind=kind,
        rule=config.adapt.decoding,
        seed=config.adapt.seeds.first,
        domain=corpus.domains[index],
        vocabulary=corpus.model.vocabulary,
        model={"hidden_sizes": hidden} if kind == "raw" else to_dict(config.model),
    )
