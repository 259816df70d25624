"""Configuration and presets of the PASTA study, importable without JAX."""

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any, Literal, get_args

from envs.common.names import check_name
from envs.registry import registered
from jaxagent.config import (
    Bound,
    Count,
    FitConfig,
    IQLConfig,
    Pool,
    Positive,
    PPOConfig,
    RuntimeConfig,
    ScalarTokens,
    TD3BCConfig,
    TokenConfig,
    TransformerConfig,
    check,
    require,
    require_at_most,
    require_unlike,
)
from jaxagent.study.config import SeedConfig

DESCRIPTION = "pretrain on action-state tokens of robots, adapt to few demonstrations (PASTA)"
BELIEF = """
On the hopper, from two demonstrations, a transformer pretrained on other agents' histories clones better than
one from scratch; halfcheetah gains nothing, so no claim of both stands ({cpu-full: A3m} against as many
operations, {cpu-full: A3} against as many updates). What follows what has no part: pretrained on shuffled
steps it is as good ({cpu-full: A3s}); where values were permuted before, it is worse than scratch ({cpu-full:
A3r}). So what carries over is how values become tokens and which go together, not dynamics. A model of all
other robots gains less than was claimed ({cpu-full: A5x}). What a token is matters more than pretraining: a
token a state and action reached {cpu-full: =M-GPT} by next tokens and {cpu-full: =M-SPR} by self-prediction,
a token a scalar {cpu-full: =full} and {cpu-full: =C-SPR} (not a frozen claim), and a network on raw
observations needs none of it ({cpu-full: A13}; {cpu-full: =mlp}), also where sensors fail ({cpu-full: A8})
and in offline reinforcement learning ({cpu-full: A11 td3_bc}, {cpu-full: A11 iql}). Tasks where the next
state says what to do, far more data, or frozen claims of modality tokens would change this.
"""
ADAPTER_LIMIT = 10_000  # parameters that an adapter may have
MODEL_LIMIT = 10_000_000
Failure = Literal["mean", "mask", "drop"]
Tier = Literal["expert", "mixed", "replay"]
Granularity = Literal["component", "modality"]
Values = Literal["bins", "two_hot", "reals"]
LONGER = "scratch, longer"  # the arm that is given the operations of pretraining
IMITATION = FitConfig(num_updates=300, batch_size=32, warmup_updates=10, weight_decay=0.0)


@dataclass(frozen=True)
class DomainConfig:
    """One robot and the tasks on it."""

    env: str
    horizon: Count  # env steps of an episode, of demonstrations and of evaluation
    # Episodes that a seed sees, of the last one perhaps a stretch; calibrated on development seeds.
    demonstrations: Positive = 1.0
    updates: Annotated[int, Bound(0)] = 0  # of imitation, calibrated too; 0: as `adapt.fit`
    history: Annotated[int, Bound(0)] = 0  # env steps before the present one that policies read
    kept: tuple[int, ...] = ()  # sensors that models and policies see of the robot's; (): all
    gravities: tuple[float, ...] = ()  # factors of the dynamics change; (): none
    sensors: tuple[int, ...] = ()  # that fail, one after another; (): none
    failures: tuple[Failure, ...] = ("mean",)  # how they fail

    @property
    def name(self) -> str:
        """Short name, such as hopper, or hopper-partial where sensors are left out."""
        return self.env.split("/")[-1] + ("-partial" if self.kept else "")

    @property
    def num_episodes(self) -> int:
        """Episodes that a seed's demonstrations are taken from."""
        return math.ceil(self.demonstrations)

    def last(self, length: int) -> int:
        """Steps that are kept of the last of them, which has so many."""
        share = round(self.demonstrations - (self.num_episodes - 1), 6)
        return math.ceil(round(share * length, 6))

    @property
    def num_steps(self) -> int:
        """Steps of a seed's demonstrations at most."""
        return (self.num_episodes - 1) * self.horizon + self.last(self.horizon)


@dataclass(frozen=True)
class CollectConfig:
    """What the frozen populations leave: histories of the training agents, demonstrations."""

    tier: Tier = "replay"  # of what is pretrained on
    lanes: Count = 8  # parallel episodes per snapshot
    steps: Count = 500  # env steps per lane
    # The pool from which each seed draws its demonstrations; as many of random actions.
    demonstration_episodes: Count = 32


@dataclass(frozen=True)
class ModelConfig:
    """One pretrained model."""

    name: str
    objective: Literal["gpt", "bert", "mtm", "smart", "maskdp", "spr", "spr_tokens", "spr_token"] = "gpt"
    granularity: Granularity = "component"
    values: Values = "bins"
    # Of saboteurs: no action or state follows from the step before, or values stand where others should.
    data: Literal["intact", "shuffled", "renamed"] = "intact"
    domains: str = ""  # the name of a single domain; "": all
    held_out: str = ""  # the name of a domain that it never sees, and is then adapted to
    updates: Positive = 1.0  # as a multiple of `pretrain.num_updates`
    width: int = 0  # 0: as `network.width`
    pool: Literal["", Pool] = ""  # how T(s) is read off its tokens; "": as `adapt.pool`

    @property
    def is_causal(self) -> bool:
        """Whether the objective looks back only."""
        return self.objective in ("gpt", "spr")


@dataclass(frozen=True)
class ArmConfig:
    """One way to meet a task."""

    description: str
    model: str  # a pretrained model's name; "" for none
    method: Literal["full", "last_layer", "probe", "lora", "ia3", "raw"]
    is_pretrained: bool = True
    rate: float = 1.0  # multiple of the learning rate of imitation
    length: float = 1.0  # multiple of its updates


@dataclass(frozen=True)
class AdaptConfig:
    """Imitation from few demonstrations on top of T(s)."""

    seeds: SeedConfig = SeedConfig(1000, 5)  # nested in the pretrainings, which they take in turn
    arms: tuple[str, ...] = ()  # names of those to run; (): all
    tested: tuple[str, ...] = ()  # under changed conditions too; (): all
    filmed: tuple[str, ...] = ("scratch", "full")  # an episode of their first seed is drawn
    fit: FitConfig = IMITATION
    # Multiples of the learning rate and of the updates, by arm. Of 0.3, 1 and 3 (and of 1 at four times the
    # updates) these were best on development seeds, of three tasks together.
    rates: tuple[tuple[str, float], ...] = tuple((arm, 3.0) for arm in ("probe", "lora", "ia3", "mlp"))
    lengths: tuple[tuple[str, float], ...] = ()
    # The only target of a causal model at its last state token is the first action: linear probes
    # there read the hopper's four actions with R2 0.96, 0.71, 0.36, 0.57, of all tokens side by side
    # with 0.97, 0.87, 0.94, 0.86.
    pool: Pool = "concat"
    head_size: Count = 64  # hidden units between T(s) and the action
    lora_rank: Count = 1
    lora_targets: tuple[str, ...] = ("query", "value")
    episodes: Count = 16  # per seed and arm
    margin: Positive = 0.10  # of claims that an arm is better
    tolerance: Annotated[float, Bound(0)] = 0.05  # of claims that it is no worse; 0: too few seeds for them


@dataclass(frozen=True)
class RewardConfig:
    """Learning from rewards on top of T(s): offline from a stored history, online by PPO."""

    offline: tuple[Literal["td3_bc", "iql"], ...] = ()
    online: bool = False
    arms: tuple[Literal["full", "probe", "scratch", "mlp"], ...] = ("full", "probe", "scratch", "mlp")
    td3_bc: TD3BCConfig = TD3BCConfig()
    iql: IQLConfig = IQLConfig()
    ppo: PPOConfig = PPOConfig()

    @property
    def online_arms(self) -> tuple[str, ...]:
        """PPO sees T(s) frozen, so tuned arms do not exist for it."""
        return tuple(a for a in self.arms if a in ("probe", "mlp")) if self.online else ()


def _of_length(fit: FitConfig, num_updates: int) -> FitConfig:
    """A fit of other length: long ones in whole chunks, as near as they come, short ones in one that fits."""
    chunk = fit.updates_per_chunk
    if num_updates >= 10 * chunk:
        return replace(fit, num_updates=round(num_updates / chunk) * chunk)
    chunk = next((c for c in range(chunk, 0, -1) if num_updates % c == 0), 1)
    return replace(fit, num_updates=num_updates, updates_per_chunk=chunk)


@dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    domains: tuple[DomainConfig, ...]
    models: tuple[ModelConfig, ...]
    seed: int = 0  # of the data and of pretraining
    num_pretrainings: Count = 5  # of each model
    collect: CollectConfig = CollectConfig()
    tokens: ScalarTokens = TokenConfig()
    network: TransformerConfig = TransformerConfig()
    pretrain: FitConfig = FitConfig()
    slow_rate: Positive = 0.005  # of the average that latent objectives predict, per update
    adapt: AdaptConfig = AdaptConfig()
    reward: RewardConfig = RewardConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @property
    def arms(self) -> dict[str, ArmConfig]:
        """The ways to meet a task that are run."""
        return {n: arm for n, arm in self.all_arms.items() if n in (self.adapt.arms or self.all_arms)}

    @property
    def all_arms(self) -> dict[str, ArmConfig]:
        """Every way to meet a task: the main model in all of them, the other models tuned."""
        main, fresh = self.main.name, "the same network, first parameters random"
        names = [model.name for model in self.models[1:]]
        more = "the same, for as many operations as pretraining and tuning take"
        arms = {
            "scratch": ArmConfig(fresh, main, "full", is_pretrained=False),
            LONGER: ArmConfig(more, main, "full", is_pretrained=False),
            "full": ArmConfig("pretrained, all parameters tuned", main, "full"),
            "last layer": ArmConfig("pretrained, last block tuned", main, "last_layer"),
            "probe": ArmConfig("pretrained and frozen, a head on T(s)", main, "probe"),
            "lora": ArmConfig("pretrained and frozen, low-rank adapters", main, "lora"),
            "ia3": ArmConfig("pretrained and frozen, (IA)^3 scales", main, "ia3"),
            **{name: ArmConfig(f"{name}, all parameters tuned", name, "full") for name in names},
            "mlp": ArmConfig("raw-observation MLP of as many parameters", "", "raw"),
        }
        rates, lengths = dict(self.adapt.rates), dict(self.adapt.lengths)
        return {
            name: replace(arm, rate=rates.get(name, 1.0), length=lengths.get(name, 1.0))
            for name, arm in arms.items()
        }

    @property
    def main(self) -> ModelConfig:
        """The model that is adapted in every way."""
        return self.models[0]

    def tokens_of(self, model: ModelConfig) -> TokenConfig:
        """How a model's scalars become tokens."""
        return replace(self.tokens, granularity=model.granularity, values=model.values)

    def pool_of(self, model: ModelConfig) -> Pool:
        """How T(s) of a model is read off its tokens."""
        return model.pool or self.adapt.pool

    def network_of(self, model: ModelConfig) -> TransformerConfig:
        """A model's transformer."""
        return replace(self.network, width=model.width or self.network.width)

    def imitation_of(self, domain: DomainConfig, arm: ArmConfig) -> FitConfig:
        """An arm's imitation in a domain."""
        fit = self.adapt.fit
        longer = _of_length(fit, round(arm.length * (domain.updates or fit.num_updates)))
        return replace(longer, learning_rate=arm.rate * fit.learning_rate)

    def fit_of(self, model: ModelConfig) -> FitConfig:
        """A model's pretraining."""
        return _of_length(self.pretrain, round(model.updates * self.pretrain.num_updates))

    def tested_on(self, model: ModelConfig) -> tuple[DomainConfig, ...]:
        """The domains that a model is adapted to."""
        return tuple(d for d in self.domains_of(model) if model.held_out in ("", d.name))

    def domains_of(self, model: ModelConfig) -> tuple[DomainConfig, ...]:
        """The domains that a model has tokens for; it is pretrained on all but one held out."""
        return tuple(d for d in self.domains if model.domains in ("", d.name))

    def check(self) -> None:
        """Raise where a name is unknown, or a part that the others make is illegal."""
        most = self.collect.demonstration_episodes
        for domain in self.domains:
            check_name("environment", domain.env, registered())
            for arm in self.arms.values():
                check(self.imitation_of(domain, arm))
            require_at_most(domain, most, "demonstrations", "collect.demonstration_episodes")
            require_at_most(domain, self.network.context - 1, "history", "network.context - 1")
        for model in self.models:
            for domain in filter(None, (model.domains, model.held_out)):
                check_name(f"domain of model {model.name}", domain, [d.name for d in self.domains])
            check(self.network_of(model))
            is_legal, fix = model.data != "renamed" or model.values == "bins", "reals have no other places"
            require(is_legal, f"values of model {model.name}", model.values, '"bins" with renamed data', fix)
            check(self.fit_of(model))
        for field in ("arms", "rates", "lengths", "tested", "filmed"):
            given = [a if isinstance(a, str) else a[0] for a in getattr(self.adapt, field)]
            require_unlike(f"AdaptConfig.{field}", given)
            for arm in given:
                check_name(f"arm of adapt.{field}", arm, self.all_arms)
        derived, fix = "an arm other than that, whose length is derived", "leave it out"
        require(LONGER not in dict(self.adapt.lengths), "AdaptConfig.lengths", LONGER, derived, fix)
        require_unlike("names of domains", [d.name for d in self.domains])
        require_unlike("names of models", [m.name for m in self.models])
        seeds, parts = len(self.adapt.seeds), self.num_pretrainings
        expected, fix = f"a multiple of num_pretrainings = {parts}", "seeds are nested in pretrainings"
        require(seeds % parts == 0, "AdaptConfig.seeds.count", seeds, expected, fix)
        learns = bool(self.reward.offline or self.reward.online)
        pool, fix = self.pool_of(self.main), "learning from rewards has no queries to learn"
        require(not learns or pool != "attention", "the pool of T(s)", pool, "one without parameters", fix)


C_GPT = ModelConfig("C-GPT")
M_GPT = ModelConfig("M-GPT", granularity="modality")
SABOTEURS = (ModelConfig("saboteur", data="shuffled"), ModelConfig("renamed", data="renamed"))

# What both cores do in ten minutes: one robot, the arms that its claims compare.
# Left out, on development seeds: of Pendulum no arm on T(s) learns from ten demonstrations (0.18 at best,
# the raw MLP 0.76), of the reacher all do from two (0.97); the hopper with a third of its sensors and
# halfcheetah show no gain of pretraining (0.54 and 0.34, scratch 0.49 and 0.33); M-GPT and adapters are
# arms of cpu-full.
CPU = Config(
    domains=(DomainConfig("brax/hopper", horizon=400, demonstrations=2.0),),
    models=(C_GPT, SABOTEURS[0]),
    num_pretrainings=8,
    tokens=TokenConfig(num_bins=64),
    network=TransformerConfig(context=4),
    # After 800 updates at 1e-3 it predicted next states worse than copying; after 500 at 1e-2 better, but
    # what was pretrained was of no use for imitation.
    pretrain=FitConfig(num_updates=1600, learning_rate=6e-3),
    adapt=AdaptConfig(
        SeedConfig(100, 8),  # 0 to 7 were spent on another design
        arms=("scratch", LONGER, "full", "saboteur", "mlp"),
        margin=0.25,
    ),
    runtime=RuntimeConfig(optimization_level=1, lanes_in_turn=True),
)

_TINY = FitConfig(num_updates=2, updates_per_chunk=1, batch_size=4, warmup_updates=1)
_OFFLINE = {"num_updates": 4, "updates_per_chunk": 2, "batch_size": 8, "hidden_size": 8}
SMOKE = replace(
    CPU,
    models=(C_GPT, M_GPT, *SABOTEURS),
    domains=(
        DomainConfig("classic/Pendulum-v1", horizon=20, sensors=(0,), failures=get_args(Failure)),
        DomainConfig("brax/inverted_pendulum", 20, 1.5, history=1, kept=(0, 1, 2), gravities=(0.5,)),
    ),
    collect=CollectConfig(lanes=2, steps=20, demonstration_episodes=2),
    tokens=TokenConfig(num_bins=16),
    network=TransformerConfig(width=16, num_layers=1, num_heads=2, context=4),
    pretrain=replace(_TINY, num_updates=4, updates_per_chunk=2),
    num_pretrainings=2,
    adapt=AdaptConfig(SeedConfig(1000, 2), episodes=2, head_size=8, fit=replace(_TINY, weight_decay=0.0)),
    reward=RewardConfig(
        td3_bc=TD3BCConfig(**_OFFLINE, critic_hidden_size=8),
        iql=IQLConfig(**_OFFLINE, critic_hidden_size=8),
        ppo=PPOConfig(num_envs=4, num_steps=8, num_updates=2, updates_per_chunk=1, hidden_size=8),
    ),
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=0),
)

_GRAVITIES = (0.5, 0.75, 1.25, 1.5)
_OBJECTIVES = ("gpt", "bert", "mtm", "smart", "maskdp", "spr")
_TOKENS = {"hopper": 14, "halfcheetah": 23, "walker2d": 23, "ant": 35}  # a transition


def _models(robots: tuple[str, ...]) -> tuple[ModelConfig, ...]:
    """All models of the paper's tables, of a study of these robots."""
    total = sum(_TOKENS[name] for name in robots)
    tokens = {name: total / _TOKENS[name] for name in robots}
    return (
        C_GPT,
        *SABOTEURS,
        *(ModelConfig(f"C-{o.upper()}", o) for o in _OBJECTIVES[1:]),
        *(ModelConfig(f"M-{o.upper()}", o, "modality") for o in _OBJECTIVES),
        # As many operations as the component model: two tokens a transition instead of many.
        ModelConfig("M-GPT flops", granularity="modality", updates=total / (2 * len(robots))),
        # A model of each domain alone, twice: seeing as much of it, and as many tokens, as all do.
        *(ModelConfig(f"{name} epochs", domains=name) for name in robots),
        *(ModelConfig(f"{name} tokens", domains=name, updates=tokens[name]) for name in robots),
        *(ModelConfig(f"without {name}", held_out=name) for name in robots),
    )


# The paper's tables on two robots: two cores, at most 150 minutes.
_STEPS = {"num_updates": 1000, "updates_per_chunk": 100, "batch_size": 64, "learning_rate": 1e-3}
_SIZES = {"hidden_size": 64, "critic_hidden_size": 128, "reward_scale": 0.1}
CPU_FULL = replace(
    CPU,
    domains=(
        DomainConfig("brax/hopper", 400, 2.0, gravities=_GRAVITIES, sensors=tuple(range(11))),
        DomainConfig("brax/halfcheetah", 400, gravities=_GRAVITIES, sensors=tuple(range(17))),
    ),
    models=_models(("hopper", "halfcheetah")),
    num_pretrainings=5,
    adapt=replace(
        CPU.adapt, seeds=SeedConfig(600, 5), arms=(), tested=("full", "M-GPT", "mlp"), tolerance=0.0
    ),
    reward=RewardConfig(
        offline=("td3_bc", "iql"),
        online=True,
        td3_bc=TD3BCConfig(**_STEPS, **_SIZES),
        iql=IQLConfig(**_STEPS, **_SIZES),
        ppo=PPOConfig(num_updates=60, updates_per_chunk=10, reward_scale=0.1, initial_log_std=-0.5),
    ),
)

# One accelerator, each stage at most ten minutes. Never run so far.
_PPO = PPOConfig(num_envs=512, num_steps=32, num_minibatches=8, learning_rate=3e-4, reward_scale=0.1)
_SEVERE = {"gravities": _GRAVITIES, "sensors": tuple(range(11)), "failures": get_args(Failure)}
GPU = Config(
    domains=tuple(DomainConfig(f"brax/{name}", horizon=1000, **_SEVERE) for name in _TOKENS),
    models=(
        *_models(tuple(_TOKENS)),
        ModelConfig("C-GPT reals", values="reals"),
        ModelConfig("M-GPT reals", granularity="modality", values="reals"),
    ),
    collect=CollectConfig(lanes=64, steps=1000),
    tokens=TokenConfig(num_bins=1024),
    network=TransformerConfig(width=256, num_layers=6, dtype="bfloat16"),
    pretrain=FitConfig(3000, batch_size=128, learning_rate=3e-4, warmup_updates=300, weight_decay=0.1),
    adapt=AdaptConfig(
        SeedConfig(700, 5), episodes=256, head_size=256, fit=FitConfig(batch_size=256, weight_decay=0.0)
    ),
    reward=RewardConfig(
        offline=("td3_bc", "iql"),
        online=True,
        ppo=replace(_PPO, num_updates=300, updates_per_chunk=30, initial_log_std=-0.5),
    ),
)
# One robot in about ten minutes of one accelerator, most of which compiles.
_IMITATION = replace(IMITATION, batch_size=64)
ROBOT = replace(
    GPU,
    models=(C_GPT, M_GPT),
    collect=CollectConfig(lanes=64, steps=500),
    pretrain=replace(GPU.pretrain, num_updates=1000, learning_rate=1e-3, warmup_updates=100),
    adapt=AdaptConfig(SeedConfig(300, 10), episodes=32, head_size=256, filmed=(), fit=_IMITATION),
    reward=RewardConfig(),
)
_MILD = {"gravities": (0.75, 1.25), "sensors": (0, 1)}
ROBOTS = {
    f"gpu-{name}": replace(ROBOT, domains=(DomainConfig(f"brax/{name}", horizon=500, **_MILD),))
    for name in _TOKENS
}
# 680 million tokens a model: 87 tokens a step of all four robots, 8 steps, 512 windows.
PAPER = replace(
    GPU,
    pretrain=replace(GPU.pretrain, num_updates=1900, batch_size=512, warmup_updates=200),
    adapt=replace(GPU.adapt, seeds=SeedConfig(720, 10)),
)


ABLATED = "full"  # the arm that cells of the ablation are judged by


def ablations(config: Config) -> dict[str, Config]:
    """Cells of the ablation, by name: each changes one thing of `config`."""
    arms = ("scratch", "full")
    rates, lengths = (
        tuple(x for x in of if x[0] in arms) for of in (config.adapt.rates, config.adapt.lengths)
    )
    lean = replace(config.adapt, arms=arms, tested=(ABLATED,), rates=rates, lengths=lengths)
    base = replace(config, models=config.models[:1], adapt=lean, reward=RewardConfig())
    cells = {"baseline": base}

    def vary(name: str, part: str, **changes: Any) -> None:
        cells[name] = replace(base, **{part: replace(getattr(base, part), **changes)})

    def model(name: str, **changes: Any) -> None:
        cells[name] = replace(base, models=(replace(base.main, name=name, **changes),))

    def scaled(size: int, factor: float, least: int = 1) -> int:
        return max(least, int(factor * size))

    granularities = get_args(Granularity)
    for granularity, values in list(product(granularities, get_args(Values)))[1:]:
        model(f"{granularity} {values}", granularity=granularity, values=values)
    for objective, granularity in product(_OBJECTIVES[1:], granularities):
        model(f"{objective} {granularity}", objective=objective, granularity=granularity)
    for data in ("shuffled", "renamed"):
        model(data, data=data)
    for rule in ("uniform", "quantile"):
        vary(f"obs_bins {rule}", "tokens", obs_bins=rule)
    vary("action_bins mu_law", "tokens", action_bins="mu_law")
    for factor in (0.25, 4.0):
        vary(f"bins x{factor:g}", "tokens", num_bins=scaled(config.tokens.num_bins, factor, least=2))
    for factor in (0.5, 2.0):
        vary(f"width x{factor:g}", "network", width=scaled(config.network.width, factor))
        vary(f"context x{factor:g}", "network", context=scaled(config.network.context, factor))
    for factor in (0.25, 0.5):
        vary(f"data x{factor:g}", "collect", steps=scaled(config.collect.steps, factor))
    for tier in get_args(Tier):
        if tier != config.collect.tier:
            vary(f"tier {tier}", "collect", tier=tier)
    for pool in get_args(Pool):
        if pool != config.adapt.pool:
            vary(f"pool {pool}", "adapt", pool=pool)
    return cells


PRESETS = {"smoke": SMOKE, "cpu": CPU, "cpu-full": CPU_FULL, **ROBOTS, "gpu": GPU, "paper": PAPER}
