"""The specification of `kernels.linear_recurrence`: an associative scan, log2 T passes over memory."""

import jax

from kernels.linear_recurrence.complex import Complex, product


def recurrence(factor: Complex, drive: Complex, state: Complex) -> Complex:
    """All states `h_t = factor_t h_{t-1} + drive_t`, `[T, ...]`, from `h_{-1} = state [...]`."""
    before = product(Complex(*(part[0] for part in factor)), state)
    drive = Complex(*(d.at[0].add(b) for d, b in zip(drive, before, strict=True)))
    return jax.lax.associative_scan(_compose, (factor, drive))[1]


def _compose(early: tuple[Complex, Complex], late: tuple[Complex, Complex]) -> tuple[Complex, Complex]:
    """Two affine maps `h -> factor h + drive`, one after the other."""
    moved = product(late[0], early[1])
    return product(early[0], late[0]), Complex(moved.real + late[1].real, moved.imag + late[1].imag)
