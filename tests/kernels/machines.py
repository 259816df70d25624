"""What kernels are tested on without an accelerator: lowering for one, and its interpreter."""

import jax

CALLS = {"cuda": "mosaic_gpu", "tpu": "tpu_custom_call"}  # by which a program calls its kernel


def num_calls(fn, *args, platform):
    """Calls of kernels in the program that `fn(*args)` is lowered to for a platform."""
    lowered = jax.jit(fn).trace(*args).lower(lowering_platforms=(platform,))
    return lowered.as_text().count(CALLS[platform])


def gpu_interpreter():
    """One that simulates memory and threads of a GPU; what was never written is NaN, races raise."""
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams  # public since JAX 0.11 alone

    return InterpretGPUParams(detect_races=True)
