"""Classic control in a layout made for speed: scalar fields, no keys, polynomial sines."""

from typing import Any

from envs.common.names import check_name


def make(name: str, **overrides: float) -> tuple[Any, Any]:
    """Build an environment of this family; `overrides` are fields of its params."""
    from envs.classic import acrobot, cartpole, mountain_car, pendulum

    classes = {
        "CartPole-v1": cartpole.CartPole,
        "Acrobot-v1": acrobot.Acrobot,
        "Pendulum-v1": pendulum.Pendulum,
        "MountainCar-v0": mountain_car.MountainCar,
        "MountainCarContinuous-v0": mountain_car.MountainCarContinuous,
    }
    env_class = classes[check_name("environment of family classic", name, classes)]
    return env_class.make(f"classic/{name}", **overrides)
