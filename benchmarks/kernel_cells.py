"""What `benchmarks.kernels` measures: every kernel as its user calls it, at some sizes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import envs
from benchmarks.mcts import problem
from envs.vector import VectorEnv, num_lanes
from envs.words import below, lane_step, seed_of
from jaxagent import mcts
from jaxagent.mcts.reuse import depths
from kernels import decode, linear_recurrence, rollout, scan, search
from kernels.attention import attention, masks
from kernels.attention import cost as attention_cost
from kernels.mlp import cost as mlp_cost
from kernels.mlp import mlp

CHECKED = 64  # lanes, at most, that are compared in the interpreter
SEARCHED = 82  # actions of a search
HEADS, HEAD_SIZE = 8, 64
GAMES = ("classic/CartPole-v1", "minatar/Breakout")


class Cell(NamedTuple):
    """One kernel at one shape: `run(*args, implementation=...)`, and what it must compute and move."""

    shape: dict[str, int]
    run: Callable
    args: tuple[Any, ...]
    num_flops: int
    num_bytes: int
    also: tuple[str, ...] = ()  # implementations that it alone has
    peers: tuple[tuple[str, Callable], ...] = ()  # of other libraries, `peer(*args)`


class Sizes(NamedTuple):
    """A kernel's cell `make(*sizes)`: measured, measured quickly, and compared in the interpreter."""

    make: Callable[..., Cell]
    full: tuple[int, ...]
    quick: tuple[int, ...]
    checked: tuple[int, ...]


def _steps(length: int, lanes: int) -> dict[str, int]:
    return {"steps": length, "lanes": lanes}


def advantages(length: int, lanes: int) -> Cell:
    """Generalised advantages, as `objectives.returns.gae` has them."""
    keys = jax.random.split(jax.random.key(0), 2)
    delta = jax.random.normal(keys[0], (length, lanes))
    keeps = jnp.where(jax.random.bernoulli(keys[1], 0.05, (length, lanes)), 0.0, 0.94)

    def run(delta: jax.Array, keeps: jax.Array, *, implementation: str) -> jax.Array:
        return scan.scan(
            lambda following, now: (now[0] + now[1] * following,) * 2,
            jnp.zeros(delta.shape[1:]),
            (delta, keeps),
            reverse=True,
            implementation=implementation,
        )[1]

    cost = scan.cost(length, lanes, num_inputs=2, num_outputs=1, operations=2)
    return Cell(_steps(length, lanes), run, (delta, keeps), *cost)


def recurrence(length: int, lanes: int) -> Cell:
    """A linear recurrence of complex numbers."""
    draw = partial(jax.random.uniform, shape=(length, lanes), minval=-0.7, maxval=0.7)
    parts = [draw(key) for key in jax.random.split(jax.random.key(0), 4)]
    factor, drive = linear_recurrence.Complex(*parts[:2]), linear_recurrence.Complex(*parts[2:])
    state = linear_recurrence.Complex(jnp.zeros(lanes), jnp.zeros(lanes))
    args, cost = (factor, drive, state), linear_recurrence.cost(length, lanes)
    also = linear_recurrence.KERNEL.also
    return Cell(_steps(length, lanes), linear_recurrence.recurrence, args, *cost, also)


def game(name: str, length: int, lanes: int) -> Cell:
    """Random play, of which rewards alone are summed."""
    env, task = envs.make(name)
    act = partial(_random, env.action_spec[0].cardinality)
    step = lane_step(env, act, task)
    key, key_steps = jax.random.split(jax.random.key(0))
    state = VectorEnv(env, num_lanes=lanes).reset(key, task).env
    seeds = seed_of(jax.random.split(key_steps, length))

    def summed(carry: tuple[Any, jax.Array], lane: jax.Array, seed: Any) -> tuple[Any, tuple]:
        state, told = step(carry[0], lane, seed)
        return (state, carry[1] + told.reward), ()

    def run(state: Any, seeds: Any, *, implementation: str) -> Any:
        begin = state, jnp.zeros(num_lanes(state))
        return rollout.rollout(summed, begin, seeds, implementation=implementation)[0]

    fields = len(jax.tree.leaves(state)) + 1
    cost = rollout.cost(length, lanes, num_fields=fields, num_outputs=0, operations=0)
    return Cell(_steps(length, lanes), run, (state, seeds), *cost)


def tree_search(length: int, lanes: int) -> Cell:
    """A whole search of so many simulations, with a tiny model; the reference is `jaxagent.mcts`'s own.

    Bytes are the tree part's, so that its share of the roofline is of a time that the model has part in.
    """

    def grown(root: mcts.RootFnOutput, model: Callable, implementation: str) -> mcts.Tree:
        rule = mcts.muzero_action_selection
        return mcts.search(
            (),
            jax.random.key(0),
            root=root,
            recurrent_fn=model,
            root_action_selection_fn=partial(rule, depth=0),
            interior_action_selection_fn=rule,
            num_simulations=length,
            implementation=implementation,
        )

    def run(root: mcts.RootFnOutput, *, implementation: str) -> tuple[jax.Array, jax.Array]:
        tree = grown(root, problem(mcts, lanes, SEARCHED)[1], implementation)
        return tree.children_visits, tree.node_values

    few = jax.jit(lambda: grown(*problem(mcts, CHECKED, SEARCHED), "xla").parents)()
    depth = float(jnp.mean(depths(few)[:, 1:]))  # of the walk that made each node
    num_bytes = length * search.cost(lanes, SEARCHED, depth, num_rows=1, operations=0)[1]
    return Cell(_steps(length, lanes), run, (problem(mcts, lanes, SEARCHED)[0],), 0, round(num_bytes))


def _random(num_actions: int, words: tuple[jax.Array, ...], state: Any) -> jax.Array:
    del state
    return below(words[0], num_actions)


def tokens(with_gradient: bool, length: int, batch_size: int) -> Cell:
    """Block-causal attention of packed episodes: tokens of a state see each other, and what came before."""
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (batch_size, length, HEADS, HEAD_SIZE)
    *args, weight = (jax.random.normal(key, shape, jnp.bfloat16) for key in keys)
    block = jnp.arange(length, dtype=jnp.int32)[None] // 8
    episode = jnp.arange(length, dtype=jnp.int32)[None] // max(length // 4, 1)
    sight = masks.both(masks.ordered(block, block), masks.same(episode, episode))
    seen = masks.table(sight)

    def differentiated(attend: Callable) -> Callable:
        def weighed(*args: jax.Array) -> jax.Array:
            return jnp.sum((attend(*args) * weight).astype(jnp.float32))

        return jax.grad(weighed, argnums=(0, 1, 2)) if with_gradient else attend

    def run(*args: jax.Array, implementation: str) -> Any:
        return differentiated(partial(attention, sight=sight, implementation=implementation))(*args)

    def peer(name: str) -> Callable:
        if name == "tokamax":
            return differentiated(partial(_by_tokamax, mask=seen[:, None]))
        return differentiated(partial(jax.nn.dot_product_attention, mask=seen[:, None], implementation=name))

    share = float(jnp.mean(seen))
    flops, num_bytes = attention_cost(batch_size, length, length, HEADS, HEAD_SIZE, share=share)
    if with_gradient:  # forward as well
        flops, num_bytes = round(3.5 * flops), 4 * num_bytes
    peers = (("jax.nn xla", peer("xla")), ("jax.nn cudnn", peer("cudnn")), ("tokamax", peer("tokamax")))
    shape = {"tokens": length, "batch": batch_size, "heads": HEADS, "head_size": HEAD_SIZE}
    return Cell(shape, run, tuple(args), flops, num_bytes, peers=peers)


def _by_tokamax(*args: jax.Array, mask: jax.Array) -> jax.Array:
    import tokamax  # of whoever has it; not a dependency

    return tokamax.dot_product_attention(*args, mask=mask)


def wide_layer(num_rows: int, width: int) -> Cell:
    """The MLP block of a transformer, four times as wide as the stream."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (num_rows, width), (width, 4 * width), (4 * width, width)
    args = tuple(
        jax.random.normal(key, shape, jnp.bfloat16) / shape[0] ** 0.5
        for key, shape in zip(keys, shapes, strict=True)
    )
    cost = mlp_cost(num_rows, width, 4 * width)
    return Cell({"rows": num_rows, "width": width}, mlp, args, *cost)


def acting(num_rows: int, width: int) -> Cell:
    """What stands behind the attention of a block, of a few tokens a lane."""
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = [(num_rows, width)] * 2 + [(width, width), (width, 4 * width), (4 * width, width)]
    drawn = (
        jax.random.normal(key, shape, jnp.bfloat16) / shape[0] ** 0.5
        for key, shape in zip(keys, shapes, strict=True)
    )
    x, mixed, output, up, down = drawn
    args = x, mixed, decode.Weights(output, jnp.ones(width), up, down)
    cost = decode.cost(num_rows, width, 4 * width)
    return Cell({"rows": num_rows, "width": width}, decode.behind, args, *cost)


CELLS = {
    "scan": Sizes(advantages, (128, 4096), (32, 256), (16, CHECKED)),
    "linear_recurrence": Sizes(recurrence, (128, 4096), (32, 256), (16, CHECKED)),
    **{f"rollout of {g}": Sizes(partial(game, g), (128, 8192), (32, 256), (16, CHECKED)) for g in GAMES},
    "attention": Sizes(partial(tokens, False), (1024, 16), (128, 2), (130, 1)),
    "attention with its gradient": Sizes(partial(tokens, True), (1024, 16), (128, 2), (130, 1)),
    "search": Sizes(tree_search, (256, 1024), (16, 64), (16, CHECKED)),
    "decode": Sizes(acting, (512, 256), (64, 64), (CHECKED, 64)),
    "mlp": Sizes(wide_layer, (16384, 256), (256, 64), (CHECKED, 64)),
}
