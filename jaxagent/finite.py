"""Where numbers stop being numbers."""

import numpy as np


def first_not_finite(array: np.ndarray) -> list[int] | None:
    """The place of the first NaN or infinity of an array `[...]`, or None."""
    bad = np.argwhere(~np.isfinite(array))
    return bad[0].tolist() if len(bad) else None
