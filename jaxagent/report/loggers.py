"""The trackers that there are, importable without JAX."""

import importlib.util
from collections.abc import Sequence

from envs.common.names import MissingExtra, check_name

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}


def check_loggers(names: Sequence[str]) -> None:
    """Raise `UnknownName` for a tracker that there is not, `MissingExtra` for one that is not installed."""
    for name in names:
        check_name("logger", name, PACKAGES)
        if importlib.util.find_spec(PACKAGES[name]) is None:
            what = f"jaxagent[{name}]" if name != "tensorboard" else PACKAGES[name]  # which all have
            raise MissingExtra(f"logger {name}: not installed; pip install '{what}'")
