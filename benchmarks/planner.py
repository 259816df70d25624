"""What acting by search costs whose nodes hold a state, or a slice of the cache; JSON lines.

    python -m benchmarks.planner                       # width 64, two layers, 8 env steps of context
    python -m benchmarks.planner --simulations 16 --lanes 64
    python -m benchmarks.planner --out FILE            # also append the lines to FILE

A step of the action-state transformer in every lane (one pass through its cache) and Gumbel's search, of
three kinds, alternating in one process, medians of seven rounds: "state", as `agents.sequence_planner`
walks `nn.token_dynamics`; "cache", the transformer itself, which reads an imagined action behind the cache
that a node holds; "policy", without search. Beside them MuZero's step, of dense layers of the same width.
Microseconds are of a lane; a node's bytes are those of its state or slice. The transformer reads imagined
actions without any observation between, so that its cost stands and its predictions do not. Compile
seconds are apart.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import envs
from benchmarks.memory import seconds
from benchmarks.rows import emit
from jaxagent import mcts
from jaxagent.agents import muzero
from jaxagent.agents.planning import gumbel_search
from jaxagent.agents.sequence import Memory
from jaxagent.agents.sequence_planner import SequencePlanner
from jaxagent.config import (
    LatentConfig,
    MuZeroConfig,
    PPOConfig,
    SearchConfig,
    SequencePlannerConfig,
    TransformerConfig,
    TrunkConfig,
)
from jaxagent.nn.attention import Cache
from jaxagent.study.planner_agents import planner_of
from jaxagent.tokens import stream

ROUNDS = 7


def cache_model(planner: SequencePlanner, discount: float) -> mcts.RecurrentFn:
    """The transformer as a `recurrent_fn`: it reads an action's token behind the cache of a node's lane."""
    actor = planner.predictive.actor
    model, domain, first = actor.model, actor.domain, actor.num_bins
    rows, size = model.config.context + 1, domain.action_cardinality

    def one(params: Any, node: Cache, action: jax.Array) -> tuple[jax.Array, Cache]:
        cache = node._replace(keys=node.keys[:, None], values=node.values[:, None], start=node.start[None])
        place = jnp.array([domain.obs_size], jnp.int32)
        tokens = stream.at_places((first + action)[None, None], place, cache.time[None], domain)
        slot = ((cache.time + 1) % rows) * domain.period
        states, cache = model.advance(params.network, tokens, slot, cache)
        node = cache._replace(keys=cache.keys[:, 0], values=cache.values[:, 0], start=cache.start[0])
        return states[0, -1], node._replace(time=node.time + 1)

    def step(
        params: Any, key: jax.Array, action: jax.Array, node: Cache
    ) -> tuple[mcts.RecurrentFnOutput, Cache]:
        del key
        state, node = jax.vmap(one, (None, 0, 0))(params, node, action)
        logits = planner.predictive.choices(params, state, 0).logits[:, first : first + size]
        reward = planner.predictive.dynamics.reward(params.dynamics, state)
        told = {"reward": reward, "discount": jnp.full_like(reward, discount)}
        value = actor.value_of(params, state)
        return mcts.RecurrentFnOutput(**told, prior_logits=logits, value=value), node

    return step


def by_lane(memory: Memory, batch_size: int) -> Cache:
    """The cache with lanes first in every leaf."""
    cache = memory.cache
    repeated = {
        name: jnp.broadcast_to(x, (batch_size, *x.shape))
        for name, x in (("order", cache.order), ("token_time", cache.token_time), ("time", cache.time))
    }
    return cache._replace(
        keys=jnp.moveaxis(cache.keys, 1, 0), values=jnp.moveaxis(cache.values, 1, 0), **repeated
    )


def programs(args: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], dict[str, Any]]:
    """A call a kind of node, and what else is told of it."""
    env, _ = envs.make(args.env)
    search = SearchConfig(args.simulations, value_range=1.0)
    config = SequencePlannerConfig(PPOConfig(num_envs=args.lanes), search=search)
    transformer = TransformerConfig(
        width=args.width, num_layers=args.layers, num_heads=4, context=args.context
    )
    planner, plan = planner_of(env, config, transformer), gumbel_search(search)
    actor = planner.predictive.actor
    params, first = jax.jit(planner.init)(jax.random.key(0)), jnp.ones((args.lanes,), bool)
    obs = jax.random.normal(jax.random.key(1), (args.lanes, *env.obs_shape))
    memory, key = actor.init_carry(args.lanes), jax.random.key(2)

    def by_caches(params: Any, memory: Memory, obs: jax.Array, first: jax.Array, key: jax.Array) -> Any:
        state, memory = planner.predictive.see(params, memory, obs, first)
        value, samples = planner.propose(params, key, state)
        root = mcts.RootFnOutput(
            prior_logits=samples.log_policy, value=value, embedding=by_lane(memory, args.lanes)
        )
        return plan(params, key, root, cache_model(planner, 0.99), samples.is_copy).action

    trunk = TrunkConfig(width=args.width, num_blocks=1)
    of_muzero = MuZeroConfig(model=LatentConfig(trunk), search=search)
    model = muzero.model_of(env.obs_shape, env.action_spec, of_muzero.model)
    latent = jax.jit(model.init)(jax.random.key(0))

    def by_muzero(params: Any, memory: Any, obs: jax.Array, first: jax.Array, key: jax.Array) -> Any:
        del memory, first
        return muzero.decide(model, plan, of_muzero, params, obs, key).action

    kinds = {
        "state": (planner.policy(plan).act, params),
        "cache": (by_caches, params),
        "policy": (planner.policy(None).act, params),
        "muzero": (by_muzero, latent),
    }
    runs, compiling = {}, {}
    for name, (fn, own) in kinds.items():
        began = time.perf_counter()
        call = jax.jit(fn).lower(own, memory, obs, first, key).compile()
        compiling[name] = time.perf_counter() - began
        runs[name] = lambda call=call, own=own: call(own, memory, obs, first, key)
    lane = jax.eval_shape(lambda m: jax.tree.map(lambda x: x[0], by_lane(m, args.lanes)), memory)
    sizes = {"state": 4 * args.width, "cache": sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(lane))}
    return runs, {"compile_seconds": compiling, "node_bytes": sizes}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--env", default="memory/CountRecall")
    for name, size in (("width", 64), ("layers", 2), ("context", 8), ("simulations", 8), ("lanes", 32)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    runs, about = programs(args)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + ROUNDS):
        for name, run in runs.items():
            times[name].append(seconds(run))
    for name in runs:
        spent = statistics.median(times[name][1:]) / args.lanes  # the first round warms up
        of_muzero = spent / (statistics.median(times["muzero"][1:]) / args.lanes)
        row = {"nodes": name, "microseconds": round(1e6 * spent, 1), "of_muzero": round(of_muzero, 2)}
        row["node_bytes"] = about["node_bytes"].get(name)
        row["compile_seconds"] = round(about["compile_seconds"][name], 1)
        sizes = {k: v for k, v in vars(args).items() if k != "out"}
        emit({"benchmark": "planner"} | row | sizes, args.out)


if __name__ == "__main__":
    main()
