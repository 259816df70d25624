"""Clocks of a run: wall time, and the compile time and count that JAX reports itself."""

import time

import jax

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
LOWER_EVENT = "/jax/core/compile/jaxpr_to_mlir_module_duration"
# Tracing is left out: nested functions report theirs inside their caller's, so the sum misleads.


class CompileClock:
    """Seconds of compiling (lowering and XLA) and programs compiled since the clock was made."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.programs = 0
        self.started = time.perf_counter()
        jax.monitoring.register_event_duration_secs_listener(self._on_event)

    def _on_event(self, event: str, duration: float, **_: object) -> None:
        if event == COMPILE_EVENT:
            self.programs += 1
        if event in (COMPILE_EVENT, LOWER_EVENT):
            self.seconds += duration

    @property
    def wall_seconds(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.started
