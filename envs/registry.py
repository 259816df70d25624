"""The single list of environments: static tables, so listing imports neither simulator nor JAX."""

import importlib
from typing import Any, NamedTuple

from envs.names import check_name


class Family(NamedTuple):
    """Environments of one source."""

    module: str  # provides make(name, **overrides) -> env, params
    names: tuple[str, ...]


FAMILIES = {
    "gymnax": Family(
        module="envs.adapters.gymnax",
        # MNISTBandit-bsuite is left out: it downloads its data.
        names=(
            "CartPole-v1",
            "Pendulum-v1",
            "Acrobot-v1",
            "MountainCar-v0",
            "MountainCarContinuous-v0",
            "Asterix-MinAtar",
            "Breakout-MinAtar",
            "Freeway-MinAtar",
            "Seaquest-MinAtar",
            "SpaceInvaders-MinAtar",
            "Catch-bsuite",
            "DeepSea-bsuite",
            "MemoryChain-bsuite",
            "UmbrellaChain-bsuite",
            "DiscountingChain-bsuite",
            "SimpleBandit-bsuite",
            "FourRooms-misc",
            "MetaMaze-misc",
            "PointRobot-misc",
            "BernoulliBandit-misc",
            "GaussianBandit-misc",
            "Reacher-misc",
            "Swimmer-misc",
            "Pong-misc",
            "FrozenLake-misc",
        ),
    ),
    "probe": Family(
        module="envs.probes",
        names=(
            "ConstantReward",
            "ObservedReward",
            "DelayedReward",
            "ActionReward",
            "ObservedActionReward",
            "TimeLimitTrap",
        ),
    ),
}


def registered(family: str | None = None) -> list[str]:
    """List environment ids, `family/name`; of one family if it is given."""
    families = [check_name("environment family", family, FAMILIES)] if family else list(FAMILIES)
    return [f"{f}/{name}" for f in families for name in FAMILIES[f].names]


def make(env_id: str, **overrides: float) -> tuple[Any, Any]:
    """Build an environment and its task: `env, params = make("gymnax/CartPole-v1", length=1.0)`.

    Raises `UnknownName` for an unknown id or parameter and `ValueError` for an illegal value.
    """
    check_name("environment", env_id, registered())
    family, name = env_id.split("/", 1)
    return importlib.import_module(FAMILIES[family].module).make(name, **overrides)
