"""`recurrence`: a diagonal linear recurrence over time, with complex factors, in one pass over memory.

The reference is an associative scan, which goes over memory some log2 T times; the kernel is
`kernels.scan` with this body.
"""

from kernels import dispatch
from kernels.linear_recurrence import chunked, reference
from kernels.linear_recurrence.complex import Complex, product
from kernels.scan import scan

KERNEL = dispatch.Kernel("linear_recurrence", also=("chunked", "sequential"))


def recurrence(factor: Complex, drive: Complex, state: Complex, *, implementation: str = "auto") -> Complex:
    """All states `h_t = factor_t h_{t-1} + drive_t`, `[T, ...]`, from `h_{-1} = state [...]`.

    `factor` and `drive` are `[T, ...]`, all of one type; a factor of 0 cuts the past off. Raises ValueError
    for other shapes and types. Implementations of its own, by XLA: "chunked" (`chunked.py`) and "sequential",
    step by step, which on a CPU took a half to a ninth of the reference's time.
    Source: Orvieto et al. 2023, eq. 5. What it takes: `cost`.
    """
    _check(factor, drive, state)
    how = dispatch.choose(KERNEL, implementation)
    if not drive.real.size:
        return drive
    if how in ("xla", "chunked"):
        return (reference if how == "xla" else chunked).recurrence(factor, drive, state)
    how = "xla" if how == "sequential" else how
    return scan(_step, state, (factor, drive), implementation=how, kernel=KERNEL)[1]


def cost(length: int, lanes: int) -> tuple[int, int]:
    """FLOPs and bytes in float32: a complex product and sum; four arrays read, two written."""
    return 8 * length * lanes, 4 * 6 * length * lanes


def _check(factor: Complex, drive: Complex, state: Complex) -> None:
    lanes, dtype = state.real.shape, state.real.dtype
    steps = factor.real.shape[:1] or ("T",)
    moving = (*steps, *lanes)
    expected = (("state", state, lanes), ("factor", factor, moving), ("drive", drive, moving))
    for name, part, shape in ((name, part, shape) for name, parts, shape in expected for part in parts):
        if part.shape != shape or part.dtype != dtype:
            raise ValueError(
                f"linear_recurrence: {name} has a part of {part.dtype} {part.shape}, expected {dtype} "
                f"{shape} beside the state's real part; broadcast or cast it."
            )


def _step(state: Complex, now: tuple[Complex, Complex]) -> tuple[Complex, Complex]:
    factor, drive = now
    moved = product(factor, state)
    state = Complex(moved.real + drive.real, moved.imag + drive.imag)
    return state, state
