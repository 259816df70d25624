"""The learned world and search over a policy's own samples: exact on a line, better than a draw."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import envs
from envs.types import Component
from envs.vector import broadcast_params
from jaxagent.agents import planning, world_model
from jaxagent.agents.world_model import ModelStep
from jaxagent.config import SearchConfig
from jaxagent.evaluate.episodes import play
from jaxagent.train import loops, parallel
from jaxagent.types import Policy, Trajectory, View, see_obs

SPEC = (Component("push", "real", -2.0, 2.0),)
DISCOUNT = 0.5


def line(seed=0, size=2048):
    """A point moves by half of its push, pays its new place and ends beyond 1."""
    rng = np.random.default_rng(seed)
    x, push = rng.uniform(-1, 1, (size, 1)), rng.uniform(-2, 2, (size, 1))
    after = x + 0.5 * push
    as_real = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    return ModelStep(
        as_real(x), as_real(push), as_real(after[:, 0]), jnp.asarray(after[:, 0] > 1.0), as_real(after)
    )


def test_stored_steps_are_those_of_all_lanes_of_all_trajectories():
    real, action = np.arange(6.0).reshape(3, 2), np.arange(6).reshape(3, 2)
    one = Trajectory(real[..., None], action, real, real > 4, real > 9, real[..., None] + 1, ())
    steps = world_model.stored_steps([one, one])
    np.testing.assert_array_equal(steps.action, [0, 1, 2, 3, 4, 5] * 2)
    np.testing.assert_array_equal(steps.final_obs[:, 0], steps.obs[:, 0] + 1)
    assert steps.terminated.tolist() == ([False] * 5 + [True]) * 2


@functools.cache
def learned():
    """A world fitted to the line."""
    steps = line()
    world = world_model.world_model(steps, SPEC, discount=DISCOUNT, hidden_size=64)

    def sample(data, key):
        row = jax.random.randint(key, (64,), 0, data.reward.shape[0])
        return jax.tree.map(lambda x: x[row], data)

    loop = loops.supervised(world.loss, sample, optax.adam(3e-3), slow=loops.averaged(0.05))
    state = parallel.first_state(*loop.init(jax.jit(world.init)(jax.random.key(0))))
    state, report = parallel.chunked(loop, 1500, 1, steps)(state, jax.random.key(1))
    assert report.is_finite.all()
    return world, state.learner.params


def view_of(x):
    return View(jnp.asarray(x, jnp.float32), (), ())


@pytest.mark.slow
def test_a_step_moves_pays_and_ends_as_the_line_does():
    world, params = learned()
    steps = line(seed=1, size=512)
    reward, discount, after = jax.jit(world.step)(params, jax.random.key(0), steps.action, view_of(steps.obs))
    np.testing.assert_allclose(after.obs, steps.final_obs, atol=0.12)
    np.testing.assert_allclose(reward, steps.reward, atol=0.12)
    clear = np.abs(np.asarray(steps.final_obs[:, 0]) - 1.0) > 0.2
    ended = np.asarray(steps.terminated)
    assert (np.asarray(discount)[ended & clear] < 0.2 * DISCOUNT).all()
    assert (np.asarray(discount)[~ended & clear] > 0.8 * DISCOUNT).all()


def test_the_loss_by_hand():
    """A network of zeros: errors are the standardised targets themselves, ends cost log 2."""
    steps = line(size=64)
    world = world_model.world_model(steps, SPEC, discount=DISCOUNT, hidden_size=8)
    zeros = jax.tree.map(jnp.zeros_like, world.init(jax.random.key(0)))
    total, named = world.loss(zeros, steps, (), loops.Slow(zeros, jnp.int32(0)))
    x, after, reward = (np.asarray(v, np.float64) for v in (steps.obs, steps.final_obs, steps.reward))
    change, scale = after - x, np.abs(reward).max()
    expected = {
        "change": ((change / change.std(0)) ** 2).mean(),
        "reward": ((reward / scale) ** 2).mean(),
        "end": np.log(2.0),
        "value": ((reward / (scale / (1 - DISCOUNT))) ** 2).mean(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(named[f"train/loss/{name}"], value, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(total, sum(expected.values()), rtol=1e-4)


def test_values_bootstrap_from_the_slow_copy_and_never_past_an_end():
    steps = line(size=64)
    world = world_model.world_model(steps, SPEC, discount=DISCOUNT, hidden_size=8)
    zeros = jax.tree.map(jnp.zeros_like, world.init(jax.random.key(0)))
    ones = zeros._replace(value=jax.tree.map(jnp.ones_like, zeros.value))
    apart = [
        float(
            world.loss(
                zeros, steps._replace(terminated=jnp.full((64,), ended)), (), loops.Slow(slow, jnp.int32(0))
            )[1]["train/loss/value"]
        )
        for ended in (False, True)
        for slow in (zeros, ones)
    ]
    assert apart[0] != pytest.approx(apart[1])
    assert apart[2] == apart[3]


def test_categories_are_told_one_by_one():
    steps = line(size=64)
    category = (Component("choice", "category", cardinality=3),)
    told = steps._replace(action=jnp.arange(64, dtype=jnp.int32) % 3)
    world = world_model.world_model(told, category, discount=DISCOUNT, hidden_size=8)
    params = world.init(jax.random.key(0))
    same = view_of(jnp.zeros((3, 1)))
    _, _, after = world.step(params, jax.random.key(0), jnp.arange(3), same)
    assert len(np.unique(np.asarray(after.obs))) == 3


def test_rewards_that_are_all_zero_have_no_unit():
    steps = line(size=8)
    with pytest.raises(ValueError, match="rewards are all 0"):
        world_model.world_model(steps._replace(reward=jnp.zeros((8,))), SPEC, discount=0.9, hidden_size=8)


# --- search over a policy's samples ---------------------------------------------------------------


def drawing(params, carry, obs, is_first, key):
    """Pushes at random, whatever it sees; `params` is the largest push."""
    assert is_first.shape == obs.shape[:1]
    return params * jax.random.uniform(key, (obs.shape[0], 1), minval=-1.0), (), carry


POLICY = Policy(lambda batch_size: (), drawing)


def exact_step(params, key, action, view):
    """The line itself."""
    del params, key
    after = view.obs + 0.5 * action
    discount = jnp.where(after[:, 0] > 1.0, 0.0, DISCOUNT)
    return after[:, 0], discount, view._replace(obs=after)


def chosen_by(step, params, value=lambda params, obs: jnp.zeros((obs.shape[0],))):
    plan = planning.gumbel_search(SearchConfig(num_simulations=32), gumbel_scale=0.0)
    policy = planning.sample_planner(POLICY, step, value, plan, num_samples=8)
    view = view_of(jnp.full((64, 1), -1.0))
    act = jax.jit(policy.act)
    return act(params, (), view, jnp.ones((64,), bool), jax.random.key(3))[0]


@pytest.mark.slow
def test_the_best_of_a_policy_s_own_samples_is_chosen():
    """From -1 no push ends, so the largest of 8 is best; its mean is 2 - 4 / 9."""
    push = np.asarray(chosen_by(exact_step, (jnp.float32(2.0), ())))
    assert push.shape == (64, 1)
    assert 1.3 < push.mean() < 1.75
    assert (np.abs(push) <= 2.0).all()
    small = np.asarray(chosen_by(exact_step, (jnp.float32(0.1), ())))
    assert (np.abs(small) <= 0.1).all()  # nothing but samples of the policy


@pytest.mark.slow
def test_the_learned_world_serves_as_well():
    world, params = learned()
    push = np.asarray(chosen_by(world.step, (jnp.float32(2.0), params)))
    assert push.mean() > 1.2


@pytest.mark.slow
def test_values_say_what_lies_beyond_the_samples():
    """With a value that likes the left more than rewards like the right, search goes left."""
    left = lambda params, obs: -20.0 * obs[:, 0]  # noqa: E731
    assert np.asarray(chosen_by(exact_step, (jnp.float32(2.0), ()), left)).mean() < -1.0


@pytest.mark.slow
def test_search_in_the_true_world_holds_a_pole_that_draws_drop():
    env, task = envs.make("classic/CartPole-v1")
    tasks = broadcast_params(task, 8)

    def draw(params, carry, obs, is_first, key):
        return jax.random.randint(key, obs.shape[:1], 0, 2, dtype=jnp.int32), (), carry

    policy = Policy(lambda batch_size: (), draw)
    flat = lambda params, obs: jnp.zeros((obs.shape[0],))  # noqa: E731
    plan = planning.gumbel_search(SearchConfig(num_simulations=32), gumbel_scale=0.0)
    search = planning.sample_planner(
        policy, planning.true_step(env, discount=0.99), flat, plan, num_samples=4
    )

    def mean_return(policy, see):
        run = jax.jit(lambda key: play(env, policy, ((), ()), tasks, key, see).returns)
        return float(run(jax.random.key(0)).mean())

    assert mean_return(policy, see_obs) < 28
    assert mean_return(search, View) > 33
