"""Few-shot cloning of changed tasks: the bookkeeping between the stages of such a study."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.returns import Reference, reference, task_name
from experiments.parts import experts, pictures, sequences
from experiments.parts.comparison import scores_of
from experiments.parts.cost import Cost
from experiments.parts.sequences import Corpus
from jaxagent import keys, library
from jaxagent.adapt import lora
from jaxagent.agents import offline, sequence
from jaxagent.agents.offline import RawNetwork, RawParams
from jaxagent.agents.sequence import SequenceParams
from jaxagent.config import FitConfig, to_dict
from jaxagent.data import store
from jaxagent.data.store import Shard
from jaxagent.evaluate import statistics
from jaxagent.evaluate.claims import Precondition
from jaxagent.evaluate.episodes import play_lanes, record
from jaxagent.nn import transformer
from jaxagent.tokens import component
from jaxagent.train.run import read_done, stage_folder
from jaxagent.types import Policy

LIMITS = [
    "One pretraining seed: the claim is about downstream seeds given this pretrained model.",
    "The tasks are small classic-control problems; absolute numbers mean nothing elsewhere.",
    "Demonstrations, updates, bins and decoding were chosen on development seeds (1000 and up).",
]
CURVES = [
    {
        "metric": "train/return",
        "stages": ["agents/*"],
        "title": "PPO agents: return while training",
        "x": "env_steps",
        "x_label": "env steps (all lanes)",
        "y_label": "episode return",
    },
    {
        "metric": "train/loss",
        "stages": ["pretrain"],
        "title": "Pretraining: next-token loss (edges: model, saboteur)",
        "x": "tokens",
        "x_label": "tokens (both lanes)",
        "y_label": "nats per token",
    },
]
EXPERT_SCORE = 0.85  # normalised return that a demonstrator must reach
UNIGRAM_SHARE = 0.8  # of the unigram entropy, above which pretraining has learned nothing
SCRATCH_RANGE = (0.2, 0.8)  # where an effect can show
ZERO_SHOT_BELOW = 0.7
ADAPTER_LIMIT = 10_000  # parameters


def seeds(config: Any) -> tuple[int, ...]:
    """Downstream seeds."""
    return experts.seeds_of(config.adapt)


def references(config: Any) -> dict[str, Reference]:
    """Random and expert returns of the changed tasks."""
    return {t.name: reference(t.env, t.overrides) for t in config.tasks}


def collect(config: Any, folder: Path, place: Path) -> dict[str, Any]:
    """Write the store of all environments to `place`; returns a card for each."""
    shards, cards = [], {}
    for task in config.tasks:
        snapshots_at = stage_folder(folder, f"agents/{task.name}")
        new, cards[task.name] = collect_task(config, task, snapshots_at)
        shards += new
    store.write(place / "store", shards)
    return cards


def collect_task(config: Any, task: Any, place: Path) -> tuple[list[Shard], dict[str, Any]]:
    """Shards of one environment and their card: early trajectories by split, demonstrations."""
    c = config.collect
    env, nominal, changed = experts.make_tasks(task.env, task.overrides)
    num_nominal = c.train_agents + c.validation_agents
    snapshots = experts.load_snapshots(place, env, task.ppo, num_nominal + c.demonstrators)

    def key(purpose: str) -> jax.Array:
        return keys.derive(config.seed, f"collect/{task.env}/{purpose}")

    sampled = experts.as_policy(env, task.ppo, is_greedy=False)
    tasks = [nominal] * num_nominal + [changed] * c.demonstrators
    returns = experts.mean_returns(env, sampled, snapshots, tasks, c.evaluation_episodes, key("evaluate"))
    ref = reference(task.env)
    scores = statistics.normalise(returns, ref.random, ref.expert)
    splits = {"train": range(c.train_agents), "validation": range(c.train_agents, num_nominal)}
    pairs, metas = [], []
    for split, agents in splits.items():
        chosen = experts.early_checkpoints(scores, agents, c.max_return, c.checkpoints_per_agent)
        pairs += chosen
        metas += [_meta(task.env, {}, split, a, s, float(scores[s, a])) for s, a in chosen]
    early = experts.roll_out(
        env, sampled, experts.take(snapshots, pairs), nominal, c.lanes, c.steps, key("early")
    )

    last = returns.shape[0] - 1
    best = num_nominal + int(np.argmax(returns[last, num_nominal:]))
    expert = experts.roll_out(
        env,
        experts.as_policy(env, task.ppo, is_greedy=not task.sampled_demonstrations),
        experts.take(snapshots, [(last, best)]),
        changed,
        c.demonstration_episodes,
        env.max_steps,
        key("demonstration"),
    )
    episodes = experts.first_episodes(jax.tree.map(lambda x: x[0], expert))
    mean = float(np.mean([e.reward.sum() for e in episodes]))
    changed_ref = reference(task.env, task.overrides)
    score = float(statistics.normalise(mean, changed_ref.random, changed_ref.expert))
    metas += [_meta(task.env, task.overrides, "demonstration", best, last, score)]
    card = {
        split: {
            "agents": sorted({m["agent"] for m in metas if m["split"] == split}),
            "scores": [m["score"] for m in metas if m["split"] == split],
        }
        for split in (*splits, "demonstration")
    }
    early_shards = experts.shards_of(early, metas[:-1])
    return early_shards + experts.shards_of(expert, metas[-1:]), card


def _meta(env: str, overrides: dict, split: str, agent: int, snapshot: int, score: float) -> dict:
    return {
        "env": env,
        "task": task_name(env, overrides),
        "split": split,
        "agent": agent,
        "snapshot": snapshot,
        "score": round(score, 4),
    }


def load(config: Any, folder: Path) -> tuple[Corpus, dict[str, list[list[Any]]]]:
    """The corpus and, per split, a list of trajectories for each task."""
    shards = store.read(stage_folder(folder, "collect") / "store")

    def of(split: str) -> list[list[Shard]]:
        return [
            [s for s in shards if s.meta["env"] == t.env and s.meta["split"] == split] for t in config.tasks
        ]

    environments = [experts.make_tasks(t.env, t.overrides)[0] for t in config.tasks]
    corpus = sequences.corpus(environments, of("train"), config.tokens, config.model)
    data = {s: [[x.trajectory for x in part] for part in of(s)] for s in ("train", "validation")}
    episodes = [
        [cut(e, task.demonstration_steps) for e in experts.first_episodes(part[0].trajectory)]
        for task, part in zip(config.tasks, of("demonstration"), strict=True)
    ]
    return corpus, data | {"demonstration": episodes}


def cut(episode: Any, num_steps: int) -> Any:
    """The first `num_steps` steps of an episode."""
    return jax.tree.map(lambda x: x[:num_steps], episode)


def pretrained(corpus: Corpus, folder: Path) -> tuple[Any, Any]:
    """Parameters of the pretrained model and of its saboteur."""
    one = jax.eval_shape(lambda: corpus.model.init(jax.random.key(0)))
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), one)
    both = sequences.load_params(stage_folder(folder, "pretrain"), template)
    return tuple(jax.tree.map(lambda x, i=i: x[i], both) for i in (0, 1))


def faster(fit: FitConfig, multiple: float) -> FitConfig:
    """The same fit with a larger learning rate, which adapters and the MLP need."""
    return dataclasses.replace(fit, learning_rate=multiple * fit.learning_rate)


def raw_network(config: Any, corpus: Corpus, index: int) -> RawNetwork:
    """The raw-observation baseline of a task."""
    size = config.adapt.mlp_hidden_size
    vocabulary = corpus.model.vocabulary
    return RawNetwork(corpus.domains[index], vocabulary.num_bins, vocabulary.size, (size, size))


def arm_params(config: Any, corpus: Corpus, index: int, folder: Path, tuned: Sequence[str]) -> dict[str, Any]:
    """Network parameters `[seeds, ...]` of every arm of a task."""
    name, n = config.tasks[index].name, config.adapt.num_seeds
    base, _ = pretrained(corpus, folder)

    def place(group: str) -> Path:
        return stage_folder(folder, f"clone/{name}/{group}")

    def template(tree: Any, count: int) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), tree)

    lanes = sequences.load_params(place("network"), template(base, len(tuned) * n))
    arms = {arm: jax.tree.map(lambda x, i=i: x[i * n : (i + 1) * n], lanes) for i, arm in enumerate(tuned)}
    adapters = jax.eval_shape(lambda: sequences.lora_init(base, config.adapt.lora_rank, seeds(config)))
    adapters = sequences.load_params(place("lora"), adapters)
    raw = raw_network(config, corpus, index)
    raw_template = jax.eval_shape(lambda: sequences.raw_init(raw, seeds(config)))
    return arms | {
        "zero-shot": jax.tree.map(lambda x: np.broadcast_to(x, (n, *x.shape)), base),
        "lora": jax.jit(jax.vmap(lora.merge, in_axes=(None, 0)))(base, adapters),
        "mlp": sequences.load_params(place("mlp"), raw_template),
    }


def acting(config: Any, corpus: Corpus, index: int, kind: str) -> tuple[Policy, Any]:
    """The policy of a network and the function that dresses its parameters for it."""
    codec, moments = corpus.codecs[index], corpus.moments[index]
    rule = config.adapt.decoding
    if kind == "raw":
        policy = offline.raw_policy(raw_network(config, corpus, index), rule)
        return policy, lambda params: RawParams(params, codec, moments)
    policy = sequence.policy(corpus.model, corpus.domains[index], rule)
    return policy, lambda params: SequenceParams(params, codec)


def evaluate_task(
    config: Any, corpus: Corpus, index: int, arms: Mapping[str, Any], kind: str, folder: Path
) -> dict[str, list[float]]:
    """Mean return of each seed of each arm `{arm: params [seeds, ...]}` on the changed task.

    All arms of one kind are lanes of one program; arms of a seed meet the same first states. The
    first seed's policy and an episode of it stay in the run folder.
    """
    task = config.tasks[index]
    env, _, changed = experts.make_tasks(task.env, task.overrides)
    policy, dress = acting(config, corpus, index, kind)

    @jax.jit
    def play(params: Any, task: Any, lane_keys: jax.Array) -> jax.Array:
        dressed = jax.vmap(dress)(params)
        return play_lanes(env, policy, dressed, task, lane_keys, config.adapt.episodes)

    @jax.jit
    def film(params: Any, task: Any, key: jax.Array) -> Any:
        return record(env, policy, dress(params), task, key, env.max_steps)

    lanes = jax.tree.map(lambda *x: np.concatenate(x), *jax.device_get(list(arms.values())))
    seed_keys = [keys.derive(s, f"evaluate/{task.env}") for s in seeds(config)]
    returns = np.asarray(play(lanes, changed, jnp.stack(seed_keys * len(arms))))
    film_key = keys.derive(seeds(config)[0], f"picture/{task.env}")
    for i, arm in enumerate(arms):
        first = jax.tree.map(lambda x, i=i: x[i * len(seed_keys)], lanes)
        library.save(folder, describe_policy(config, corpus, index, arm, kind), dress(first))
        episode = jax.device_get(film(first, changed, film_key))
        path = folder / "pictures" / f"{arm}--{task.name}.gif"
        pictures.write_episode(path, env, jax.device_get(changed), episode, arm)
    by_arm = returns.reshape(len(arms), -1).tolist()
    return dict(zip(arms, by_arm, strict=True))


def describe_policy(config: Any, corpus: Corpus, index: int, arm: str, kind: str) -> library.Description:
    """What `library.load` needs to rebuild the first seed's policy."""
    task = config.tasks[index]
    hidden = list(raw_network(config, corpus, index).hidden_sizes)
    return library.Description(
        arm=arm,
        task=task.name,
        env=task.env,
        overrides=task.overrides,
        kind=kind,
        rule=config.adapt.decoding,
        seed=seeds(config)[0],
        domain=corpus.domains[index],
        vocabulary=corpus.model.vocabulary,
        model={"hidden_sizes": hidden} if kind == "raw" else to_dict(config.model),
    )


def preconditions(
    config: Any, folder: Path, returns: Mapping[str, Mapping[str, Sequence[float]]]
) -> list[Precondition]:
    """What must hold for the comparison to mean anything."""
    cards = read_done(folder, "collect")["summary"]
    rows = read_done(folder, "pretrain")["summary"]["validation"]
    scores = scores_of(returns, references(config))
    names = [t.name for t in config.tasks]

    def check(name: str, values: Sequence[float], low: float, high: float) -> Precondition:
        passed = all(low <= v <= high for v in values)
        shown = ", ".join(f"{n} {v:.2f}" for n, v in zip(names, values, strict=True))
        return Precondition(name, passed, f"{shown}; expected {_range(low, high)}")

    def by_task(arm: str) -> list[float]:
        return [float(statistics.iqm(row[None])) for row in scores[arm]]

    splits = [c[s]["agents"] for c in cards.values() for s in c]
    disjoint = all(
        len({a for s in c for a in c[s]["agents"]}) == sum(len(c[s]["agents"]) for s in c)
        for c in cards.values()
    )
    early = [max(c["train"]["scores"]) for c in cards.values()]
    return [
        check(
            "demonstrators solve the changed tasks",
            [c["demonstration"]["scores"][0] for c in cards.values()],
            EXPERT_SCORE,
            math.inf,
        ),
        check("pretraining data are early", early, -math.inf, config.collect.max_return),
        check(
            "pretraining learned (validation loss / unigram entropy)",
            [r["model"] / r["unigram"] for r in rows],
            0.0,
            UNIGRAM_SHARE,
        ),
        check("scratch is neither at floor nor at ceiling", by_task("scratch"), *SCRATCH_RANGE),
        check("zero-shot leaves room", by_task("zero-shot"), -math.inf, ZERO_SHOT_BELOW),
        Precondition("splits are disjoint by agent", disjoint, f"agents per split {splits}"),
    ]


def _range(low: float, high: float) -> str:
    if math.isinf(high):
        return f"at least {low:g}"
    return f"at most {high:g}" if math.isinf(low) else f"{low:g} to {high:g}"


def budgets(config: Any, folder: Path, arms: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each arm may spend: parameters, updates, tokens, operations."""
    corpus, _ = load(config, folder)
    base, _ = pretrained(corpus, folder)
    full = transformer.num_parameters(base)
    adapters = transformer.num_parameters(sequences.lora_init(base, config.adapt.lora_rank, (0,)))
    raw = transformer.num_parameters(sequences.raw_init(raw_network(config, corpus, 0), (0,)))
    if adapters >= ADAPTER_LIMIT:
        raise ValueError(
            f"adapters: got {adapters} parameters, expected fewer than {ADAPTER_LIMIT}; lower "
            "adapt.lora_rank."
        )
    tokens = sum(
        t.cloning.num_updates * t.cloning.batch_size * config.model.context * d.period
        for t, d in zip(config.tasks, corpus.domains, strict=True)
    )
    windows = config.pretrain.num_updates * config.pretrain.batch_size * config.model.context
    pretraining = windows * sum(d.period for d in corpus.domains)
    trained = {"zero-shot": 0, "lora": adapters, "mlp": raw}
    return {
        arm: {
            "parameters": raw if arm == "mlp" else full + (adapters if arm == "lora" else 0),
            "trained_parameters": trained.get(arm, full),
            "cloning_tokens": 0 if arm == "zero-shot" else tokens,
            "pretraining_tokens": 0 if arm in ("scratch", "mlp") else pretraining,
        }
        for arm in arms
    }


def costs(config: Any) -> list[Cost]:
    """Estimate every group of stages from the configuration alone."""
    environments = [experts.make_tasks(t.env, t.overrides)[0] for t in config.tasks]
    c, width = config.collect, config.model.width
    agents = c.train_agents + c.validation_agents + c.demonstrators
    rows = []
    for task, env in zip(config.tasks, environments, strict=True):
        size = 2 * task.ppo.hidden_size * (len(env.obs_spec) + task.ppo.hidden_size + 2)
        steps = task.ppo.num_updates * task.ppo.num_envs * task.ppo.num_steps * agents
        flops = steps * size * (2 + 2 + 6 * task.ppo.num_epochs)
        data = task.ppo.num_envs * task.ppo.num_steps * agents * (2 * len(env.obs_spec) + 8) * 4
        rows.append(Cost(f"agents/{task.name}", agents * size, flops, data, 0.1, 8.0))
    bins = config.tokens.num_bins
    specs = [(env.obs_spec, env.action_spec) for env in environments]
    all_domains = component.domains(specs)
    categories = max(d.action_cardinality for d in all_domains)
    total = sum(d.period for d in all_domains)
    vocabulary = transformer.Vocabulary(bins, categories, total, len(all_domains))
    model = transformer.model(config.model, vocabulary)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    parameters = transformer.num_parameters(shapes)

    def fit(stage: str, settings: FitConfig, periods: Sequence[int], lanes: int) -> Cost:
        windows = settings.batch_size * config.model.context * lanes
        tokens = windows * settings.num_updates
        flops = sum(tokens * p * transformer.flops_per_token(config.model, vocabulary, p) for p in periods)
        activations = windows * max(periods) * width * config.model.num_layers * 16 * 4
        memory = activations + lanes * parameters * 4 * 4
        return Cost(stage, parameters * lanes, flops, memory, 0.2, 8.0)

    rows.append(Cost("collect", 0, 0.0, agents * c.lanes * c.steps * total * 4.0, 0.1, 20.0))
    rows.append(fit("pretrain", config.pretrain, [d.period for d in all_domains], 2))
    for task, domain in zip(config.tasks, all_domains, strict=True):
        lanes = 4 * config.adapt.num_seeds
        rows.append(fit(f"clone/{task.name}", task.cloning, [domain.period], lanes))
    episodes = 5 * config.adapt.num_seeds * config.adapt.episodes
    acting = sum(
        episodes * e.max_steps * d.period * 2 * parameters
        for e, d in zip(environments, all_domains, strict=True)
    )
    rows.append(Cost("evaluate", 0, acting, parameters * 4.0, 0.05, 20.0))
    return rows
