"""Optimisers against closed forms: the schedule, what decays, the clip."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxagent.config import FitConfig, PPOConfig, RainbowConfig
from jaxagent.train import optimizer as optimizers

CONFIG = FitConfig(
    num_updates=20,
    updates_per_chunk=20,
    learning_rate=0.1,
    warmup_updates=5,
    final_learning_rate=0.2,
    weight_decay=0.5,
)


def params():
    return {"matrix": jnp.full((2, 3), 2.0), "bias": jnp.full((3,), 2.0), "gain": jnp.array(2.0)}


def schedule(config, count):
    """Linear from 0 to the peak, then half a cosine down to the final share of it."""
    if count < config.warmup_updates:
        return config.learning_rate * count / config.warmup_updates
    done = (count - config.warmup_updates) / (config.num_updates - config.warmup_updates)
    final = config.learning_rate * config.final_learning_rate
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return final + (config.learning_rate - final) * cosine


@pytest.mark.slow
def test_schedule_by_the_decay_of_idle_weights():
    """Without gradients a matrix shrinks by 1 - rate * decay a step, which shows the rate."""
    optimizer = optimizers.adamw(CONFIG)
    weights = params()
    state = optimizers.init(optimizer, weights)
    zeros = jax.tree.map(jnp.zeros_like, weights)
    rates = []
    for _ in range(25):
        before = float(weights["matrix"][0, 0])
        weights, state = optimizers.apply(optimizer, zeros, state, weights)
        rates.append((1 - float(weights["matrix"][0, 0]) / before) / CONFIG.weight_decay)
    expected = [schedule(CONFIG, count) for count in range(25)]
    np.testing.assert_allclose(rates, expected, rtol=1e-3, atol=1e-6)
    assert expected[0] == 0.0
    assert max(expected) == expected[5] == 0.1
    assert expected[20] == expected[24] == pytest.approx(0.02)


def test_no_warm_up_starts_at_the_peak():
    config = dataclasses.replace(CONFIG, warmup_updates=0)
    optimizer = optimizers.adamw(config)
    weights = params()
    zeros = jax.tree.map(jnp.zeros_like, weights)
    weights, _ = optimizers.apply(optimizer, zeros, optimizers.init(optimizer, weights), weights)
    np.testing.assert_allclose(weights["matrix"], 2.0 * (1 - 0.1 * 0.5), rtol=1e-6)


def test_vectors_and_scalars_do_not_decay():
    config = dataclasses.replace(CONFIG, warmup_updates=0)
    optimizer = optimizers.adamw(config)
    weights = params()
    state = optimizers.init(optimizer, weights)
    zeros = jax.tree.map(jnp.zeros_like, weights)
    for _ in range(3):
        weights, state = optimizers.apply(optimizer, zeros, state, weights)
    np.testing.assert_array_equal(weights["bias"], params()["bias"])
    np.testing.assert_array_equal(weights["gain"], params()["gain"])
    assert (weights["matrix"] < 1.9).all()


def chains():
    fit = dataclasses.replace(CONFIG, warmup_updates=0, weight_decay=0.0, max_gradient_norm=0.5)
    return {"adam": optimizers.adam(0.1, 0.5), "adamw": optimizers.adamw(fit)}


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_clip_acts_on_the_global_norm_before_adam(name):
    """Clipping element by element or leaf by leaf would change the direction; it must not."""
    optimizer = chains()[name]
    weights = {"a": jnp.zeros((2, 2)), "b": jnp.zeros((3,))}
    gradients = {"a": jnp.full((2, 2), 30.0), "b": jnp.array([1.0, -2.0, 4.0])}
    _, state = optimizers.apply(optimizer, gradients, optimizers.init(optimizer, weights), weights)
    norm = math.sqrt(4 * 30.0**2 + 1 + 4 + 16)
    first_moment = optax.tree_utils.tree_get(state, "mu")  # (1 - b1) * clipped gradient, b1 = 0.9
    for leaf in weights:
        expected = 0.1 * np.asarray(gradients[leaf]) * 0.5 / norm
        np.testing.assert_allclose(first_moment[leaf], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_small_gradients_are_not_clipped(name):
    optimizer = chains()[name]
    weights = {"a": jnp.zeros((2, 2))}
    gradients = {"a": jnp.full((2, 2), 0.2)}  # norm 0.4
    _, state = optimizers.apply(optimizer, gradients, optimizers.init(optimizer, weights), weights)
    np.testing.assert_allclose(optax.tree_utils.tree_get(state, "mu")["a"], 0.02, rtol=1e-6)


@pytest.mark.parametrize(("name", "epsilon"), [("adam", 1e-5), ("adamw", 1e-8)])
def test_first_step_goes_down_the_gradient_by_the_learning_rate(name, epsilon):
    optimizer = chains()[name]
    weights = {"a": jnp.array([[1.0, 1.0]])}
    gradients = {"a": jnp.array([[1e-5, -0.3]])}
    new, _ = optimizers.apply(optimizer, gradients, optimizers.init(optimizer, weights), weights)
    expected = [-0.1 * 1e-5 / (1e-5 + epsilon), 0.1 * 0.3 / (0.3 + epsilon)]
    np.testing.assert_allclose(np.asarray(new["a"] - weights["a"])[0], expected, rtol=1e-4)


def test_apply_keeps_dtypes_and_structure_under_jit():
    optimizer = optimizers.adamw(CONFIG)
    weights = params()
    state = optimizers.init(optimizer, weights)
    step = jax.jit(lambda g, s, w: optimizers.apply(optimizer, g, s, w))
    new, new_state = step(params(), state, weights)
    for old_tree, new_tree in ((weights, new), (state, new_state)):
        old = [(x.shape, x.dtype) for x in jax.tree.leaves(old_tree)]
        assert [(x.shape, x.dtype) for x in jax.tree.leaves(new_tree)] == old
        assert jax.tree.structure(new_tree) == jax.tree.structure(old_tree)


def test_linear_decay_counts_gradient_steps():
    """3 updates of 2 epochs of 4 minibatches are 24 steps, from 1e-2 down to a tenth of it."""
    config = PPOConfig(
        num_updates=3,
        updates_per_chunk=1,
        num_epochs=2,
        num_minibatches=4,
        learning_rate=1e-2,
        final_learning_rate=0.1,
    )
    rate = optimizers.linear_decay(config)
    assert [float(rate(i)) for i in (0, 12, 24, 99)] == pytest.approx([1e-2, 5.5e-3, 1e-3, 1e-3])


def test_inverse_sqrt_by_hand():
    """Up to the peak in 5 updates, at 20 down to half of it."""
    config = dataclasses.replace(CONFIG, schedule="inverse_sqrt")
    rate = optimizers.warmup_inverse_sqrt(config)
    np.testing.assert_allclose(rate(0), 0.1 / 5, rtol=1e-6)
    np.testing.assert_allclose(rate(4), 0.1, rtol=1e-6)
    np.testing.assert_allclose(rate(19), 0.05, rtol=1e-6)
    weights = params()
    transformation = optimizers.adamw(config)
    state = optimizers.init(transformation, weights)
    zero = jax.tree.map(jnp.zeros_like, weights)
    for count in range(8):
        before = weights
        weights, state = optimizers.apply(transformation, zero, state, weights)
        np.testing.assert_allclose(
            weights["matrix"], before["matrix"] * (1 - 0.5 * float(rate(count))), rtol=1e-5
        )


# --- parts of a Q-network -------------------------------------------------------------------------


def parts(value=2.0):
    names = ("encoder", "head", "transition", "predictor")
    return {"params": {name: {"kernel": jnp.full((2, 2), value)} for name in names}}


def moved(optimizer, gradients, start, count=1):
    """Parameters after some equal steps."""
    weights, state = start, optimizers.init(optimizer, start)
    for _ in range(count):
        weights, state = optimizers.apply(optimizer, gradients, state, weights)
    return weights


def test_value_and_transition_are_clipped_apart_and_the_predictor_is_not():
    """Shown by plain descent behind the same clips: Adam would hide a scale."""
    config = RainbowConfig(max_gradient_norm=4.0)
    clip = optimizers.rainbow_clip(config)
    gradients = {
        "params": {
            "encoder": {"kernel": jnp.full((2, 2), 3.0)},  # norm 6, with the head's 8: 10
            "head": {"kernel": jnp.full((2, 2), 4.0)},
            "transition": {"kernel": jnp.full((2, 2), 1.0)},  # norm 2: as it is
            "predictor": {"kernel": jnp.full((2, 2), 50.0)},
        }
    }
    clipped, _ = clip.update(gradients, clip.init(parts()))
    found = {name: float(x["kernel"][0, 0]) for name, x in clipped["params"].items()}
    assert found == pytest.approx(
        {"encoder": 1.2, "head": 1.6, "transition": 1.0, "predictor": 50.0}, rel=1e-5
    )


def test_named_parts_learn_faster():
    config = dataclasses.replace(
        CONFIG, warmup_updates=0, final_learning_rate=1.0, weight_decay=0.0, max_gradient_norm=1e9
    )
    optimizer = optimizers.adamw_by_part(config, {"predictor": 10.0})
    after = moved(optimizer, parts(1.0), parts())["params"]
    steps = {name: 2.0 - float(x["kernel"][0, 0]) for name, x in after.items()}
    assert steps == pytest.approx(
        {"encoder": 0.1, "head": 0.1, "transition": 0.1, "predictor": 1.0}, rel=1e-3
    )


def test_resets_mix_fresh_parameters_in_on_time_and_forget_the_moments():
    config = RainbowConfig(reset_share=0.2)
    fresh = parts(7.0)
    inner = optax.chain(optax.trace(decay=1.0), optax.scale(-0.1))  # momentum that never fades
    optimizer = optimizers.with_resets(
        inner, lambda key: fresh, lambda count: count == 3, optimizers.rainbow_shares(config)
    )
    gradients = parts(1.0)
    before = moved(optimizer, gradients, parts(), 2)["params"]
    assert float(before["head"]["kernel"][0, 0]) == pytest.approx(2.0 - 0.1 - 0.2)
    after = moved(optimizer, gradients, parts(), 3)["params"]
    old = 2.0 - 0.1 - 0.2 - 0.3
    expected = {
        "encoder": 0.8 * old + 0.2 * 7.0,
        "transition": 0.8 * old + 0.2 * 7.0,
        "head": 7.0,
        "predictor": 7.0,
    }
    assert {n: float(x["kernel"][0, 0]) for n, x in after.items()} == pytest.approx(expected)
    # The first step after the reset is as large as the very first one was.
    later = moved(optimizer, gradients, parts(), 4)["params"]
    assert float(later["head"]["kernel"][0, 0]) == pytest.approx(7.0 - 0.1)


def test_seeds_are_reset_to_different_parameters_and_again_to_others():
    def fresh(key):
        return jax.tree.map(
            lambda x: jax.random.normal(key, x.shape), {"params": {"head": {"kernel": jnp.zeros((2, 2))}}}
        )

    shares = optimizers.rainbow_shares(RainbowConfig())
    optimizer = optimizers.with_resets(optax.sgd(0.0), fresh, lambda count: count > 0, shares)
    starts = [{"params": {"head": {"kernel": jnp.full((2, 2), v)}}} for v in (1.0, 2.0)]
    zeros = jax.tree.map(jnp.zeros_like, starts[0])
    found = [
        np.asarray(moved(optimizer, zeros, start, count)["params"]["head"]["kernel"])
        for start in starts
        for count in (1, 2)
    ]
    assert len({x.tobytes() for x in found}) == 4


@pytest.mark.slow
def test_lanes_of_seeds_draw_fresh_parameters_at_resets_alone():
    """Under `vmap` a `cond` would become a select that draws in every update."""
    shares = optimizers.rainbow_shares(RainbowConfig())

    def fresh(key):
        leaves, structure = jax.tree.flatten(parts())
        drawn = jax.random.normal(key, (len(leaves), *leaves[0].shape))
        return jax.tree.unflatten(structure, list(drawn))

    optimizer = optimizers.with_resets(optax.sgd(0.1), fresh, lambda count: count == 2, shares)
    starts = jax.tree.map(lambda x: jnp.stack([x, x + 1.0]), parts())
    state = jax.vmap(optimizer.init)(starts)
    update = jax.vmap(optimizer.update)
    jaxpr = str(jax.make_jaxpr(update)(starts, state, starts))
    assert "cond[" in jaxpr
    lanes, alone = starts, [jax.tree.map(lambda x, i=i: x[i], starts) for i in range(2)]
    for _ in range(3):
        updates, state = jax.jit(update)(lanes, state, lanes)
        lanes = jax.tree.map(jnp.add, lanes, updates)
    for i, start in enumerate(alone):
        weights, own = start, optimizer.init(start)
        for _ in range(3):
            updates, own = optimizer.update(weights, own, weights)
            weights = jax.tree.map(jnp.add, weights, updates)
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-5), lanes, weights)


def test_no_limit_is_no_clip():
    clip = optimizers.rainbow_clip(RainbowConfig(max_gradient_norm=0.0))
    gradients = parts(100.0)
    clipped, _ = clip.update(gradients, clip.init(parts()))
    jax.tree.map(np.testing.assert_array_equal, clipped, gradients)
