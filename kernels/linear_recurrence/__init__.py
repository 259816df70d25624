"""`recurrence`: a diagonal linear recurrence over time, with complex factors, in one pass over memory.

The reference is an associative scan, which goes over memory some log2 T times; the kernel is
`kernels.scan` with this body.
"""

from kernels import dispatch
from kernels.linear_recurrence import reference
from kernels.linear_recurrence.complex import Complex, product
from kernels.scan import scan

KERNEL = dispatch.Kernel("linear_recurrence")


def recurrence(factor: Complex, drive: Complex, state: Complex, *, implementation: str = "auto") -> Complex:
    """All states `h_t = factor_t h_{t-1} + drive_t`, `[T, ...]`, from `h_{-1} = state [...]`.

    `factor` and `drive` are `[T, ...]`; a factor of 0 cuts the past off. Raises ValueError for other shapes.
    Source: Orvieto et al. 2023, eq. 5. What it takes: `cost`.
    """
    wrong = [leaf.shape for leaf in (*factor, *drive) if leaf.shape[1:] != state.real.shape]
    if wrong:
        raise ValueError(
            f"linear_recurrence: got {wrong[0]} beside a state of {state.real.shape}, expected "
            f"[T, {', '.join(map(str, state.real.shape))}]; broadcast it."
        )
    how = dispatch.choose(KERNEL, implementation)
    if how == "xla":
        return reference.recurrence(factor, drive, state)
    return scan(_step, state, (factor, drive), implementation=how, kernel=KERNEL)[1]


def cost(length: int, lanes: int) -> tuple[int, int]:
    """FLOPs and bytes in float32: a complex product and sum; four arrays read, two written."""
    return 8 * length * lanes, 4 * 6 * length * lanes


def _step(state: Complex, now: tuple[Complex, Complex]) -> tuple[Complex, Complex]:
    factor, drive = now
    moved = product(factor, state)
    state = Complex(moved.real + drive.real, moved.imag + drive.imag)
    return state, state
