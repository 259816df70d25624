"""What a stage is expected to take, for `--dry-run`."""

from typing import NamedTuple


class Cost(NamedTuple):
    """Size of a stage, before it runs."""

    stage: str
    parameters: int
    flops: float
    bytes: float  # of device memory, the largest buffers
    efficiency: float  # share of the matrix-product rate, as measured on two cores
    compile_seconds: float
