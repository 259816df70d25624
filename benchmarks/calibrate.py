"""How fast this machine pretrains and acts: tokens/s, MFU, env steps/s; JSON lines.

    python -m benchmarks.calibrate                 # the paper's size: D 256, 6 layers, 280 tokens
    python -m benchmarks.calibrate --preset cpu    # the size that two cores pretrain in minutes
    python -m benchmarks.calibrate --out FILE      # also append the lines to FILE

MFU is the model's operations (matrix products and attention, forward and backward, no
recomputation counted) over the rate of a large matrix product measured in the same process, of the
same precision, alternating. Acting compares the cached policy, one pass for the last action and the
new state and one for each further action token, with a pass over the whole window for every action
token; ratios are medians over alternating rounds. Compile seconds are apart.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.rows import emit
from jaxagent.agents import pretraining, sequence
from jaxagent.agents.pretraining import OBJECTIVES
from jaxagent.config import NUM_SHARDS, FitConfig, TokenConfig, TransformerConfig
from jaxagent.data.sampler import Batch
from jaxagent.nn import sequence_model, transformer
from jaxagent.tokens import component, scalar, stream
from jaxagent.tokens.component import Codec, Domain
from jaxagent.train import loops, optimizer, parallel
from jaxagent.train.peak import square_product

SIZES = {  # of the presets of the PASTA study
    "smoke": (TransformerConfig(width=16, num_layers=1, num_heads=2, context=2), 16),
    "cpu": (TransformerConfig(width=64, num_layers=3, num_heads=4, context=4), 64),
    "gpu": (TransformerConfig(width=256, num_layers=6, num_heads=4, context=8, dtype="bfloat16"), 1024),
}
ROUNDS = 7
UPDATES = 4  # of a timed call
ANT = Domain(27, 8, 0, 0, 0)  # 35 tokens a transition; 8 of them are 280
HOPPER = Domain(11, 3, 0, 0, 0)


def seconds_of(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    for _ in range(repeats):
        result = run()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / repeats


def alternating(runs: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Seconds of one call of each, `ROUNDS` times in turn."""
    repeats = {}
    for name, run in runs.items():
        jax.block_until_ready(run())
        repeats[name] = max(1, round(seconds / seconds_of(run, 1)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            times[name].append(seconds_of(run, repeats[name]))
    return times


def pretraining_chunk(
    config: TransformerConfig, tokens: TokenConfig, domain: Domain, batch_size: int
) -> tuple[Callable[[], Any], float, int]:
    """Updates of next-token pretraining by the study's loop: a call, its operations and tokens."""
    model = sequence_model.model(config, tokens, (domain,))
    objective, layout = OBJECTIVES["gpt"], model.layouts[0]
    shape = (batch_size // NUM_SHARDS, config.context, domain.period)

    def sample(data: Any, key: jax.Array) -> Batch:
        del data
        unit = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
        return Batch(unit, jnp.ones(shape[:2], bool))

    def loss(params: Any, batch: Batch, data: Any, slow: loops.Slow) -> tuple[jax.Array, dict]:
        return objective.loss(model, params, slow.params, layout, batch, None, slow.num_updates)

    in_turn = jax.default_backend() == "cpu"  # shards, as the cpu presets have them
    slow, adamw = loops.averaged(0.005), optimizer.adamw(FitConfig())
    loop = loops.supervised(loss, sample, adamw, slow=slow, in_turn=in_turn)
    chunk = parallel.chunked(loop, UPDATES, 1)
    params = jax.jit(partial(pretraining.init, model, objective))(jax.random.key(0))
    state = parallel.first_state(*loop.init(params))

    def run() -> Any:
        nonlocal state
        state, report = chunk(state, jax.random.key(1))
        return report

    num_tokens = UPDATES * batch_size * config.context * layout.num_tokens
    per_token = transformer.flops_per_token(config, model.vocabulary.size, layout.num_tokens)
    return run, float(per_token * num_tokens), num_tokens


def measure_pretraining(
    config: TransformerConfig, tokens: TokenConfig, domain: Domain, batch_size: int, seconds: float
) -> dict[str, Any]:
    """Tokens/s and MFU of one size, of rounds of about so many seconds."""
    step, flops, num_tokens = pretraining_chunk(config, tokens, domain, batch_size)
    product, product_flops = square_product(config.dtype)
    start = time.perf_counter()
    jax.block_until_ready(step())
    compile_seconds = time.perf_counter() - start
    times = alternating({"step": step, "product": product}, seconds)
    rates = [flops / t for t in times["step"]]
    peaks = [product_flops / t for t in times["product"]]
    return {
        "row": "pretraining",
        "width": config.width,
        "layers": config.num_layers,
        "tokens_in_window": config.context * domain.period,
        "windows": batch_size,
        "dtype": config.dtype,
        "tokens_per_second": num_tokens / statistics.median(times["step"]),
        "model_flops_per_second": statistics.median(rates),
        "product_flops_per_second": statistics.median(peaks),
        "mfu": statistics.median(r / p for r, p in zip(rates, peaks, strict=True)),
        "compile_seconds": compile_seconds,
    }


def measure_acting(
    config: TransformerConfig, num_bins: int, domain: Domain, num_envs: int, seconds: float
) -> dict[str, Any]:
    """Env steps/s of the cached policy and of recomputing the window, physics left out; rounds as above."""
    model = sequence_model.model(config, TokenConfig(num_bins), (domain,))
    ones = jnp.ones
    codec = Codec(
        scalar.uniform(-ones(domain.obs_size), ones(domain.obs_size), num_bins),
        scalar.uniform(-ones(domain.action_size), ones(domain.action_size), num_bins),
    )
    params = sequence.SequenceParams(jax.jit(model.init)(jax.random.key(0)), codec)
    policy = sequence.policy(model, domain, "argmax")
    obs = jax.random.uniform(jax.random.key(1), (num_envs, domain.obs_size), minval=-1.0)
    num_steps = 2 * config.context

    @jax.jit
    def cached(params: Any) -> jax.Array:
        def step(memory: Any, t: jax.Array) -> tuple[Any, jax.Array]:
            is_first = jnp.broadcast_to(t == 0, (num_envs,))
            action, _, memory = policy.act(params, memory, obs, is_first, jax.random.key(0))
            return memory, action

        return jax.lax.scan(step, policy.init(num_envs), jnp.arange(num_steps))[1]

    @jax.jit
    def recomputed(params: Any) -> jax.Array:
        window = jnp.zeros((num_envs, config.context, domain.period), jnp.int32)

        def step(window: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
            del t
            window = jnp.roll(window, -1, axis=1)
            tokens = component.encode_obs(params.codec, domain, num_bins, obs)
            window = window.at[:, -1, : domain.obs_size].set(tokens)
            for i in range(domain.action_size):
                flat = stream.flatten(
                    window[..., : domain.obs_size],
                    window[..., domain.obs_size :],
                    jnp.zeros((num_envs, config.context), jnp.int32),
                    domain,
                )
                place = domain.obs_size + i
                logits = model.apply(params.network, flat)[:, -domain.period + place - 1]
                chosen = jnp.argmax(logits, axis=-1).astype(jnp.int32)
                window = window.at[:, -1, place].set(chosen)
            action = window[:, -1, domain.obs_size :]
            return window, component.decode_action(params.codec, domain, num_bins, action)

        return jax.lax.scan(step, window, jnp.arange(num_steps))[1]

    times = alternating({"cached": lambda: cached(params), "recomputed": lambda: recomputed(params)}, seconds)
    pairs = zip(times["recomputed"], times["cached"], strict=True)
    steps = num_steps * num_envs
    return {
        "row": "acting",
        "width": config.width,
        "layers": config.num_layers,
        "tokens_in_window": config.context * domain.period,
        "envs": num_envs,
        "cached_steps_per_second": steps / statistics.median(times["cached"]),
        "recomputed_steps_per_second": steps / statistics.median(times["recomputed"]),
        "ratio": statistics.median(r / c for r, c in pairs),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=SIZES)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a timed round")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    config, num_bins = SIZES[given.preset or "gpu"]
    if not given.preset:
        config = dataclasses.replace(config, dtype=given.dtype)
    rows = (
        lambda: measure_pretraining(
            config, TokenConfig(num_bins=num_bins), ANT, given.windows, given.seconds
        ),
        lambda: measure_acting(config, num_bins, HOPPER, given.envs, given.seconds),
    )
    for row in rows:
        emit(row(), given.out)


if __name__ == "__main__":
    main()
