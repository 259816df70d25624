"""Result rows: a JSON line each, with when, on what and with which versions it was measured."""

import datetime
import json
from pathlib import Path
from typing import Any

import jax

from jaxagent.train.manifest import versions


def emit(row: dict[str, Any], out: Path | None) -> None:
    """Print a row with what it was measured on; append it to the file `out` where that is given."""
    about = {
        "date": datetime.date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "versions": versions(),
    }
    line = json.dumps(row | about)
    print(line, flush=True)
    if out:
        with open(out, "a") as file:
            file.write(line + "\n")
