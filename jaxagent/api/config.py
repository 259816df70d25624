"""What is trained: an agent, its settings and an environment; and the settings that are taken unasked."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from envs.common.names import check_name
from jaxagent.config import (
    Bound,
    Checked,
    CloningConfig,
    Count,
    IQLConfig,
    LatentConfig,
    MuZeroConfig,
    PPOConfig,
    PQNConfig,
    QNetworkConfig,
    RainbowConfig,
    RuntimeConfig,
    SACConfig,
    SearchConfig,
    SelfPlayConfig,
    SequenceConfig,
    SPRConfig,
    TD3BCConfig,
    TokenConfig,
    TransformerConfig,
    TrunkConfig,
    from_dict,
    require,
    require_divides,
    require_unlike,
)
from jaxagent.data import place
from jaxagent.files import sha256_file
from jaxagent.folders import MANIFEST
from jaxagent.study.config import SeedConfig

Memory = Literal["none", "stack", "gru", "lru", "transformer"]
AGENTS = {
    "ppo": "PPO on vectors, boards and frames, discrete or continuous actions, with a memory or without",
    "pqn": "Q-learning without replay or target network, on one category of actions",
    "sac": "soft actor-critic, continuous actions",
    "rainbow": "Rainbow on boards and frames, one category of actions",
    "rainbow-spr": "Rainbow with self-prediction (SPR)",
    "muzero": "Gumbel MuZero, one category of actions",
    "alphazero": "Gumbel AlphaZero on a board game of two, by self-play with search",
    "td3_bc": "TD3+BC on a dataset, real actions",
    "iql": "implicit Q-learning on a dataset, real actions",
    "bc": "behavioural cloning of a dataset by an MLP, any actions",
    "sequence": "the action-state transformer on a dataset: pretrained, cloned, or tuned (LoRA)",
}
OFFLINE = ("td3_bc", "iql", "bc", "sequence")  # agents that are fitted to a dataset
STAGE = "train"  # of a training, before its evaluation
KEPT = f"stages/{STAGE}/kept.npz"  # what it leaves of every snapshot
REMEMBERS = ("ppo", "pqn")  # agents that take a memory


@dataclasses.dataclass(frozen=True)
class TrainConfig(Checked):
    """One agent on one environment, some seeds at once."""

    agent: str
    env: str  # registry id
    fit: Any  # the agent's configuration
    change: tuple[tuple[str, float], ...] = ()  # of the environment's numbers
    memory: Memory = "none"
    dataset: str = ""  # of an offline agent: a store, Minari's folder, .hdf5 or .npz
    dataset_sha256: str = ""
    begin: str = ""  # of the agent "sequence": the run whose best seed it begins with
    begin_sha256: str = ""
    seeds: SeedConfig = SeedConfig(0, 1)
    episodes: Count = 32  # of each snapshot and seed
    runtime: RuntimeConfig = RuntimeConfig(optimization_level=1)

    @property
    def unit(self) -> str:
        """What its curve is over."""
        return "updates" if self.agent in OFFLINE else "env steps"

    @property
    def num_chunks(self) -> int:
        """Chunks of the training, after each of which a snapshot is kept."""
        return self.fit.num_updates // self.fit.updates_per_chunk

    @property
    def train(self) -> "TrainConfig":
        """Itself: what is trained, as a sweep has it."""
        return self

    @property
    def task(self) -> str:
        """Short name, such as TMaze-length=6."""
        return "-".join([self.env.split("/")[-1], *(f"{name}={value:g}" for name, value in self.change)])

    def check(self) -> None:
        """Raise for an agent that is none, or a memory that it does not take."""
        check_name("agent", self.agent, AGENTS)
        expected = type(_of_family(self.agent, self.env))
        is_its = isinstance(self.fit, expected)
        require(is_its, f"settings of {self.agent}", type(self.fit).__name__, expected.__name__, "pass those")
        check_name("memory", self.memory, get_args(Memory))
        needs = "a dataset" if self.agent in OFFLINE else "none"
        is_met = bool(self.dataset) == (self.agent in OFFLINE)
        require(
            is_met, f"dataset of {self.agent}", self.dataset, needs, f"{', '.join(OFFLINE)} are fitted to one"
        )
        if self.agent == "sequence":
            has_base = bool(self.begin) or self.fit.tuning == "all"
            require(
                has_base, "tuning", self.fit.tuning, "all", "or a run to `begin` with, whose model is tuned"
            )
            _check_begun(self.begin, self.fit)
        takes = self.memory == "none" or self.agent in REMEMBERS
        require(takes, f"memory of {self.agent}", self.memory, "none", f"take {' or '.join(REMEMBERS)}")


@dataclasses.dataclass(frozen=True)
class SweepConfig(Checked):
    """One agent on one environment under all combinations of some of its numbers."""

    train: TrainConfig
    grid: tuple[tuple[str, tuple[float, ...]], ...]  # a number of the agent's settings, and its values
    at_once: Count = 64  # agents in one program, which share its memory

    @property
    def runtime(self) -> RuntimeConfig:
        """Of all of it."""
        return self.train.runtime

    @property
    def combinations(self) -> dict[str, dict[str, float]]:
        """Values of all fields by the name of their combination, the first field varying slowest."""
        fields = [field for field, _ in self.grid]
        drawn = (dict(zip(fields, values, strict=True)) for values in product(*(v for _, v in self.grid)))
        return {" ".join(f"{f}={v!r}" for f, v in values.items()): values for values in drawn}

    def check(self) -> None:
        """Raise for a field that is no number of the agent's, a value twice, or one that is illegal."""
        fit = self.train.fit
        _check_has_lanes(self.train.agent)
        require(bool(self.grid), "grid", self.grid, "a field with its values", "such as learning_rate")
        require_unlike("fields of the grid", [field for field, _ in self.grid])
        for field, values in self.grid:
            check_name(f"number of {self.train.agent}", field, _numbers(fit))
            require(len(values) > 0, field, values, "at least one value", "name them")
            require_unlike(f"values of {field}", [str(value) for value in values])
        for values in self.combinations.values():
            replace(fit, **values)  # checks itself


@dataclasses.dataclass(frozen=True)
class TuneConfig(Checked):
    """One agent on one environment under settings that a sampler asks for, round after round."""

    train: TrainConfig
    space: tuple[tuple[str, tuple[float, float]], ...]  # a number of the agent's settings, from and to
    trials: Count = 32
    at_once: Count = 8  # trials of a round, which are lanes of one program
    sampler_seed: Annotated[int, Bound(0)] = 0

    @property
    def runtime(self) -> RuntimeConfig:
        """Of all of it."""
        return self.train.runtime

    @property
    def num_rounds(self) -> int:
        """Programs that run one after another."""
        return self.trials // self.at_once

    @property
    def middle(self) -> dict[str, float]:
        """The middle of the space, by field."""
        return {
            field: (low * high) ** 0.5 if is_log(low, high) else (low + high) / 2
            for field, (low, high) in self.space
        }

    def check(self) -> None:
        """Raise for a field that is no number of the agent's, an empty range, or ends that are illegal."""
        fit = self.train.fit
        _check_has_lanes(self.train.agent)
        require(bool(self.space), "space", self.space, "a field with its ends", "such as learning_rate")
        require_unlike("fields of the space", [field for field, _ in self.space])
        for field, (low, high) in self.space:
            check_name(f"number of {self.train.agent}", field, _numbers(fit))
            require(low < high, field, (low, high), "two ends, the lower first", "swap them")
            for end in (low, high):
                replace(fit, **{field: end})  # checks itself
        require_divides("TuneConfig.trials", self.at_once, self.trials, "rounds are of at_once trials")


def _check_has_lanes(agent: str) -> None:
    online = [name for name in AGENTS if name not in OFFLINE]
    require(agent in online, "agent", agent, f"one of {', '.join(online)}", "train each setting by itself")


def is_log(low: float, high: float) -> bool:
    """Whether a range is drawn from by its logarithm: where its ends are ten times apart or more."""
    return low > 0.0 and high >= 10.0 * low


def _numbers(fit: Any) -> list[str]:
    """Numbers of an agent's settings that a program computes with."""
    return [f.name for f in dataclasses.fields(fit) if isinstance(getattr(fit, f.name), float)]


_CLASSIC = PPOConfig(num_updates=120, updates_per_chunk=6, reward_scale=0.1)
_BOARDS = PPOConfig(
    num_envs=64,
    num_steps=32,
    num_updates=240,
    updates_per_chunk=12,
    num_minibatches=8,
    learning_rate=1e-3,
    entropy_weight=0.01,
    hidden_size=128,
)
_RECALLS = PPOConfig(
    num_envs=64, num_steps=16, num_updates=120, updates_per_chunk=12, learning_rate=2e-3, entropy_weight=0.01
)
_ROBOTS = PPOConfig(
    num_envs=64,
    num_steps=64,
    num_updates=240,
    updates_per_chunk=12,
    num_epochs=8,
    num_minibatches=8,
    learning_rate=3e-4,
    reward_scale=0.1,
    initial_log_std=-0.5,
)
_REPLAYED = {"num_updates": 8000, "updates_per_chunk": 500, "capacity": 2**16, "warmup_steps": 1024}
_BOARD = QNetworkConfig(hidden_size=128, dropout=0.0)
_RAINBOW = RainbowConfig(
    model=_BOARD, spr=SPRConfig(weight=0.0), learning_rate=3e-4, num_td_steps=5, **_REPLAYED
)
_MUZERO = MuZeroConfig(
    num_envs=16,
    num_steps=8,
    num_updates=320,
    updates_per_chunk=20,
    num_td_steps=10,
    reanalyse=0.0625,
    model=LatentConfig(TrunkConfig(width=64, num_blocks=1), num_bins=41, reach=6.0, projection_size=64),
    search=SearchConfig(num_simulations=8, value_range=3.0),
)
_ALPHAZERO = SelfPlayConfig(
    num_steps=32, num_gradient_steps=32, search=SearchConfig(num_simulations=32, value_range=1.0)
)
# The longest beginning of an id decides; "" is what is taken of an environment of no known family.
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "ppo": {
        "": PPOConfig(),
        "gymnax/": _CLASSIC,
        "classic/": _CLASSIC,
        "gymnax/Pendulum-v1": replace(_CLASSIC, num_epochs=8, discount=0.95),
        "classic/Pendulum-v1": replace(_CLASSIC, num_epochs=8, discount=0.95),
        "gymnasium/Pendulum": replace(_CLASSIC, num_epochs=8, discount=0.95),
        "minatar/": _BOARDS,
        "memory/": _RECALLS,
        "memory/PositionCartPole": replace(_RECALLS, reward_scale=0.1),
        "brax/": _ROBOTS,
    },
    # Of 12 settings on CartPole and Acrobot, two seeds each, those that are good on both.
    "pqn": {"": PQNConfig(), "gymnax/": PQNConfig(reward_scale=0.1), "classic/": PQNConfig(reward_scale=0.1)},
    "sac": {"": SACConfig()},
    "rainbow": {"": _RAINBOW},
    "rainbow-spr": {"": replace(_RAINBOW, spr=SPRConfig(tau=0.01), model=replace(_BOARD, dropout=0.5))},
    "muzero": {"": _MUZERO},
    "alphazero": {
        "": _ALPHAZERO,
        "pgx/tic_tac_toe": replace(_ALPHAZERO, num_steps=16, num_updates=80, updates_per_chunk=8),
        "pgx/connect_four": replace(_ALPHAZERO, num_explored=8, num_updates=32, updates_per_chunk=4),
    },
    "td3_bc": {"": TD3BCConfig(num_updates=10_000)},
    "iql": {"": IQLConfig(num_updates=10_000)},
    "bc": {"": CloningConfig()},
    "sequence": {"": SequenceConfig()},
}


def recipe(agent: str, env: str, **changes: Any) -> TrainConfig:
    """The settings of an agent for an environment's family, with changes of `TrainConfig` or of the agent's.

    `seeds` may be a number, so many from 0 on, and `change` a mapping; a dataset and the run to begin with
    are held to what they are now, and what begins with a run has its model and tokens. Raises `UnknownName`
    with the nearest agent or field, ValueError for a dataset or run that is not there.
    """
    check_name("agent", agent, AGENTS)
    fit = _of_family(agent, env)
    known = {field.name for field in dataclasses.fields(TrainConfig)} - {"agent", "env", "fit"}
    inner = {field.name for field in dataclasses.fields(fit)}
    for name in changes:
        check_name(f"setting of {agent}", name, sorted(known | inner))
    if isinstance(changes.get("seeds"), Integral):
        changes["seeds"] = SeedConfig(0, int(changes["seeds"]))
    seeds = changes.get("seeds", SeedConfig())
    is_known = isinstance(seeds, SeedConfig)
    require(is_known, "seeds", seeds, "how many, or a SeedConfig(first, count)", "pass one of these")
    if isinstance(changes.get("change"), Mapping):
        changes["change"] = tuple((name, float(value)) for name, value in changes["change"].items())
    for name in inner & set(changes):
        if isinstance(getattr(fit, name), float) and isinstance(changes[name], Real):
            changes[name] = float(changes[name])  # 1 and 1.0 are one setting
    if changes.get("dataset"):
        changes["dataset"] = str(Path(changes["dataset"]).resolve())
        changes["dataset_sha256"] = place.digest(changes["dataset"])
    if changes.get("begin"):
        require(agent == "sequence", f"begin of {agent}", changes["begin"], "none", 'take "sequence"')
        changes = _begun(changes)
    own = {name: value for name, value in changes.items() if name in known}
    fit = replace(fit, **{name: value for name, value in changes.items() if name not in known})
    return TrainConfig(agent, env, fit, **own)


def _begun(changes: dict[str, Any]) -> dict[str, Any]:
    """Changes that begin with a run of the agent "sequence": its model and tokens, and what it learned."""
    run = Path(changes["begin"])
    kept = run / KEPT
    if not (run / "summary.json").is_file() or not kept.is_file():
        raise ValueError(f'begin: got {run}, expected a finished run of the agent "sequence".')
    about = json.loads((run / MANIFEST).read_text())["config"]
    if about.get("agent") != "sequence":
        raise ValueError(f'begin: got a run of {about.get("agent")}, expected one of the agent "sequence".')
    return _of_begun(run) | changes | {"begin": str(run.resolve()), "begin_sha256": sha256_file(kept)}


def _of_begun(run: Path) -> dict[str, Any]:
    """The model and tokens of a run of the agent "sequence"; empty where it is no longer there."""
    if not (run / MANIFEST).is_file():
        return {}
    fit = json.loads((run / MANIFEST).read_text())["config"]["fit"]
    return {
        "model": from_dict(TransformerConfig(), fit["model"]),
        "tokens": from_dict(TokenConfig(), fit["tokens"]),
    }


def _check_begun(begin: str, fit: Any) -> None:
    """Raise where a model is not that of the run it begins with."""
    for name, value in (_of_begun(Path(begin)) if begin else {}).items():
        require(getattr(fit, name) == value, name, getattr(fit, name), f"{value} of {begin}", "leave it out")


def _of_family(agent: str, env: str) -> Any:
    table = RECIPES[agent]
    return table[max((prefix for prefix in table if env.startswith(prefix)), key=len)]


AnyConfig = TrainConfig | SweepConfig | TuneConfig
KIND_OF = {TrainConfig: "train", SweepConfig: "sweep", TuneConfig: "tune"}


def source_of(config: AnyConfig) -> str:
    """What a manifest calls a run, such as train/ppo/classic/CartPole-v1."""
    kind = KIND_OF[type(config)]
    return f"{kind}/{config.train.agent}/{config.train.env}"


def config_of(source: str) -> AnyConfig:
    """What a `source_of` begins with: the recipe, or a sweep or search of one value of it."""
    kind, agent, env = source.split("/", 2)
    dataset = "of the run" if agent in OFFLINE else ""
    train = TrainConfig(agent, env, _of_family(agent, env), dataset=dataset)
    rate = train.fit.learning_rate
    if kind == "tune":
        return TuneConfig(train, (("learning_rate", (rate, 2 * rate)),))
    return train if kind == "train" else SweepConfig(train, (("learning_rate", (rate,)),))
