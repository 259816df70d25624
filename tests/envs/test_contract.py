"""The environment contract, for every registered id: what `envs/types.py` promises, checked.

The fast tier takes one id per family, of what compiles long only traces; the slow tier takes all.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need

import envs
from envs.registry import FAMILIES
from envs.types import contains, sample_action

FAST = (
    "gymnax/CartPole-v1",
    "classic/Pendulum-v1",
    "minatar/Breakout",
    "brax/inverted_pendulum",
    "pgx/tic_tac_toe",
    "craftax/Classic-Symbolic",
    "xminigrid/MiniGrid-Empty-5x5",
    "memory/TMaze",
    "probe/DelayedReward",
    "probe/TimeLimitTrap",
)
# Half a minute of compilation each; their own files step them beside their sources.
HEAVY = ("brax/inverted_pendulum", "craftax/Classic-Symbolic", "xminigrid/MiniGrid-Empty-5x5")
# Not pure, so exempt by name from these tests; `test_ale.py` holds it to what it can promise.
EXEMPT = ("ale",)
IDS = [i for i in envs.registered() if i.split("/")[0] not in EXEMPT]
# How `envs.make` names the time limit of a family; gymnax keeps its source's name.
LIMITS = {"gymnax": "max_steps_in_episode"}
# What gymnax declares and does not keep; the adapter passes both on as they are.
OUTSIDE_SPEC = {
    "gymnax/MemoryChain-bsuite": "declared [0, 2], the context bit is shown as -1 or 1",
    "gymnax/UmbrellaChain-bsuite": "1 - 10 * (1 / 10) rounds below the declared 0 under jit",
    "gymnax/MetaMaze-misc": "the last reward is declared [0, 1] and may be 10",
    "gymnax/GaussianBandit-misc": "reward and time are declared from 0 on, both go below",
}


TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def few_programs():
    """Drop compiled programs now and then: the slow tier has thousands, which crash XLA."""
    yield
    if next(TESTS) % 40 == 0:
        jax.clear_caches()


def cases(known_bugs=None, ids=IDS, traced=False):
    """Parameters for all ids: slow unless in `FAST` and light, expected to fail where a bug is known."""
    known_bugs, params = known_bugs or {}, []
    for env_id in ids:
        is_fast = env_id in FAST and (traced or env_id not in HEAVY)
        marks = [] if is_fast else [pytest.mark.slow]
        if env_id in known_bugs:
            marks.append(pytest.mark.xfail(strict=True, reason=known_bugs[env_id]))
        params.append(pytest.param(env_id, marks=marks))
    return params


class Steps(NamedTuple):
    """A random rollout with resets, leaves `[T, ...]`."""

    obs: np.ndarray  # the true observation after each step
    first_obs: np.ndarray  # of a reset drawn at each step
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    obs_inside: np.ndarray
    action_inside: np.ndarray
    state: object  # after each step, before any reset


@functools.cache
def made(env_id, **overrides):
    need(env_id.split("/")[0])
    return envs.make(env_id, **overrides)


def random_action(env, key, state, params):
    """A legal action at random."""
    legal = env.legal_actions(state, params) if env.has_legal_actions else None
    return sample_action(key, env.action_spec, legal)


@functools.cache
def jitted_action(env_id):
    """A function of (key, state, params)."""
    return jax.jit(functools.partial(random_action, made(env_id)[0]))


@functools.cache
def compiled(env_id):
    env, _ = made(env_id)
    return jax.jit(env.reset), jax.jit(env.step)


@functools.cache
def random_rollout(env_id, num_steps):
    """Step `num_steps` random actions; a finished episode starts anew."""
    env, params = made(env_id)

    def step(state, key):
        key_action, key_step, key_reset = jax.random.split(key, 3)
        action = random_action(env, key_action, state, params)
        obs, state, reward, terminated, truncated, _ = env.step(key_step, state, action, params)
        first_obs, first_state = env.reset(key_reset, params)
        out = Steps(
            obs,
            first_obs,
            action,
            reward,
            terminated,
            truncated,
            contains(env.obs_spec, obs) & contains(env.obs_spec, first_obs),
            contains(env.action_spec, action),
            state,
        )
        done = terminated | truncated
        return jax.tree.map(lambda a, b: jnp.where(done, a, b), first_state, state), out

    def run(key):
        key_reset, key_steps = jax.random.split(key)
        _, state = env.reset(key_reset, params)
        return jax.lax.scan(step, state, jax.random.split(key_steps, num_steps))[1]

    return jax.device_get(jax.jit(run)(jax.random.key(11)))


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    """Equal structure and dtypes; equal integers and booleans, close floats."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        if x.dtype.kind == "f":
            np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)
        else:
            np.testing.assert_array_equal(x, y)


def types_of(tree):
    return [(x.shape, x.dtype, bool(x.weak_type)) for x in jax.tree.leaves(tree)]


def test_the_fast_tier_has_every_family():
    assert {env_id.split("/")[0] for env_id in FAST} == set(FAMILIES) - set(EXEMPT)
    assert set(FAST) <= set(envs.registered())


@pytest.mark.parametrize("env_id", cases(traced=True))
def test_what_is_declared_is_what_is_returned(env_id):
    env, params = made(env_id)
    assert env.name == env_id
    assert len(env.obs_spec) == max(1, int(np.prod(env.obs_shape)))
    key = jax.random.key(0)
    obs, state = jax.eval_shape(env.reset, key, params)
    action = jax.eval_shape(functools.partial(sample_action, spec=env.action_spec), key)
    if env.is_discrete:
        assert (action.shape, action.dtype) == ((), jnp.int32)
    else:
        assert (action.shape, action.dtype) == ((len(env.action_spec),), jnp.float32)
    next_obs, next_state, reward, terminated, truncated, info = jax.eval_shape(
        env.step, key, state, action, params
    )
    assert obs.shape == next_obs.shape == env.obs_shape
    assert obs.dtype == next_obs.dtype == env.obs_dtype
    rewards = () if env.num_players == 1 else (env.num_players,)
    assert (reward.shape, reward.dtype) == (rewards, jnp.float32)
    if env.has_legal_actions:
        legal = jax.eval_shape(env.legal_actions, state, params)
        assert (legal.shape, legal.dtype) == ((env.action_spec[0].cardinality,), bool)
        mover = jax.eval_shape(env.current_player, state)
        assert (mover.shape, mover.dtype) == ((), jnp.int32)
    assert terminated.shape == truncated.shape == ()
    assert terminated.dtype == truncated.dtype == bool
    assert isinstance(info, dict)
    assert not any(x.weak_type for x in (next_obs, reward, terminated, truncated))
    # The state is a scan carry: same structure, shapes, dtypes and weak types.
    assert jax.tree.structure(state) == jax.tree.structure(next_state)
    assert types_of(state) == types_of(next_state)
    assert not any(weak for _, _, weak in types_of((state, params)))


@pytest.mark.parametrize("env_id", cases())
def test_a_key_determines_everything(env_id):
    _, params = made(env_id)
    reset, step = compiled(env_id)

    def play(seed):
        obs, state = reset(jax.random.key(seed), params)
        action = jitted_action(env_id)(jax.random.key(5), state, params)
        return obs, state, step(jax.random.key(seed + 1), state, action, params)

    first, again = play(3), play(3)
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


# Long chains of contacts: operations fused by jit round otherwise than one by one.
LOOSE = ("brax/humanoid", "brax/humanoidstandup", "brax/swimmer")


@pytest.mark.parametrize("env_id", cases())
def test_jit_equals_eager(env_id):
    env, params = made(env_id)
    reset, step = compiled(env_id)
    obs, state = env.reset(jax.random.key(1), params)
    assert_close((obs, state), reset(jax.random.key(1), params))
    for i in range(3):
        action = jitted_action(env_id)(jax.random.key(20 + i), state, params)
        eager = env.step(jax.random.key(40 + i), state, action, params)
        jitted = step(jax.random.key(40 + i), state, action, params)
        tolerance = {"rtol": 1e-3, "atol": 1e-4} if env_id in LOOSE else {}
        assert_close(eager[:5], jitted[:5], **tolerance)
        state = eager[1]


@pytest.mark.parametrize("env_id", cases())
def test_vmap_equals_a_loop(env_id):
    env, params = made(env_id)
    reset, step = compiled(env_id)
    num = 3
    reset_keys = jax.random.split(jax.random.key(2), num)
    step_keys = jax.random.split(jax.random.key(3), num)
    actions = jax.vmap(functools.partial(sample_action, spec=env.action_spec))(
        jax.random.split(jax.random.key(4), num)
    )

    def both(key_reset, key_step, action):
        obs, state = env.reset(key_reset, params)
        return obs, state, env.step(key_step, state, action, params)[:5]

    clones = jax.random.clone(reset_keys), jax.random.clone(step_keys)
    batch = jax.jit(jax.vmap(both))(*clones, actions)
    for i in range(num):
        obs, state = reset(reset_keys[i], params)
        single = obs, state, step(step_keys[i], state, actions[i], params)[:5]
        assert_close(jax.tree.map(lambda x, i=i: x[i], batch), single)


def check_rollout(env_id, steps):
    env, _ = made(env_id)
    num_steps = len(steps.reward)
    for name in ("obs", "first_obs", "action", "reward"):
        assert np.isfinite(getattr(steps, name)).all(), name
    assert steps.action_inside.all()
    # An episode ends by its clock exactly at max_steps, and never lasts longer.
    done = steps.terminated | steps.truncated
    ends = np.flatnonzero(done)
    lengths = np.diff(np.concatenate([[-1], ends]))
    np.testing.assert_array_equal(steps.truncated[ends], lengths == env.max_steps)
    assert num_steps - 1 - (ends[-1] if len(ends) else -1) < env.max_steps


@pytest.mark.parametrize("env_id", cases())
def test_500_random_steps_are_finite_and_episodes_end_in_time(env_id):
    check_rollout(env_id, random_rollout(env_id, 500))


@pytest.mark.slow
@pytest.mark.parametrize("env_id", IDS)
def test_10000_random_steps_are_finite_and_episodes_end_in_time(env_id):
    # Not kept: a board's observations of so many steps are half a gigabyte.
    check_rollout(env_id, random_rollout.__wrapped__(env_id, 10_000))


@pytest.mark.parametrize("env_id", cases(OUTSIDE_SPEC))
def test_observations_and_actions_are_within_spec(env_id):
    steps = random_rollout(env_id, 500)
    outside = np.flatnonzero(~steps.obs_inside)
    assert outside.size == 0, (outside[:3], steps.obs[outside[:3]])
    assert steps.action_inside.all()


@pytest.mark.parametrize("env_id", cases(ids=FAST, traced=True))
def test_contains_rejects_what_is_outside(env_id):
    env, _ = made(env_id)
    for spec in (env.obs_spec, env.action_spec):
        first = spec[0]
        above = first.cardinality if first.kind == "category" else first.high + 1
        for bad in (above, jnp.nan) if np.isfinite(above) else (jnp.nan,):
            value = jnp.zeros((len(spec),)).at[0].set(bad)
            assert not contains(spec, value)


def test_sampled_actions_cover_the_space():
    keys = jax.random.split(jax.random.key(0), 400)
    for env_id in ("gymnax/CartPole-v1", "gymnax/Pendulum-v1"):
        env, _ = made(env_id)
        draw = jax.vmap(functools.partial(sample_action, spec=env.action_spec))
        actions = np.asarray(draw(jax.random.clone(keys)))
        first = env.action_spec[0]
        if env.is_discrete:
            assert set(actions) == set(range(first.cardinality))
        else:
            span = first.high - first.low
            assert actions.min() < first.low + 0.02 * span
            assert actions.max() > first.high - 0.02 * span


@pytest.mark.parametrize("env_id", cases())
def test_truncation_comes_at_the_limit_and_step_never_resets(env_id):
    """Stepping on after an end is the caller's business: the clock just goes on."""
    family = env_id.split("/")[0]
    env, params = made(env_id, **{LIMITS.get(family, "max_steps"): 5})
    assert env.max_steps == 5
    step = jax.jit(env.step)
    _, state = jax.jit(env.reset)(jax.random.key(0), params)
    assert float(state.time) == 0
    flags, times = [], []
    for i in range(8):
        action = jitted_action(env_id)(jax.random.key(i), state, params)
        _, state, _, _, truncated, _ = step(jax.random.key(100 + i), state, action, params)
        flags.append(bool(truncated))
        times.append(float(state.time))
    assert times == [1, 2, 3, 4, 5, 6, 7, 8]
    assert flags == [False] * 4 + [True] * 4


@pytest.mark.parametrize("env_id", cases())
def test_invariants_hold_along_a_random_rollout(env_id):
    env, params = made(env_id)
    states = random_rollout(env_id, 500).state
    checks = jax.vmap(env.invariants, in_axes=(0, None))(states, params)
    assert checks
    for name, holds in checks.items():
        assert holds.dtype == bool
        assert np.asarray(holds).all(), name


@pytest.mark.parametrize("env_id", cases(ids=FAST))
def test_invariants_see_a_broken_state(env_id):
    env, params = made(env_id)
    _, state = compiled(env_id)[0](jax.random.key(0), params)

    def break_first_float(tree):
        """The first float becomes NaN; a state without floats gets negative integers."""
        leaves, structure = jax.tree.flatten(tree)
        floats = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]
        if floats:
            leaves[floats[0]] = jnp.full_like(leaves[floats[0]], jnp.nan)
            return jax.tree.unflatten(structure, leaves)
        signed = [jnp.issubdtype(x.dtype, jnp.signedinteger) for x in leaves]
        leaves = [jnp.full_like(x, -5) if s else x for x, s in zip(leaves, signed, strict=True)]
        return jax.tree.unflatten(structure, leaves)

    invariants = jax.jit(env.invariants)
    assert all(bool(x) for x in invariants(state, params).values())
    assert not all(bool(x) for x in invariants(break_first_float(state), params).values())


@pytest.mark.parametrize("env_id", cases())
def test_render_gives_an_rgb_picture(env_id):
    env, params = made(env_id)
    _, state = compiled(env_id)[0](jax.random.key(0), params)
    picture = env.render(jax.device_get(state), params)
    assert isinstance(picture, np.ndarray)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[-1] == 3
    assert min(picture.shape[:2]) >= 16
    assert picture.std() > 0


@pytest.mark.parametrize("env_id", cases())
def test_a_step_that_claims_to_be_certain_ignores_its_key(env_id):
    env, params = made(env_id)
    if env.is_step_random:
        pytest.skip("the step is random")
    reset, step = compiled(env_id)
    for i in range(5):
        _, state = reset(jax.random.key(i), params)
        action = jitted_action(env_id)(jax.random.key(50 + i), state, params)
        one, other = (step(jax.random.key(k), state, action, params)[:5] for k in (1, 2))
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("env_id", cases())
def test_a_category_outside_its_space_counts_as_the_nearest_one(env_id):
    env, params = made(env_id)
    if not env.is_discrete:
        pytest.skip("actions are real: outside of bounds they are the source's business")
    reset, step = compiled(env_id)
    _, state = reset(jax.random.key(0), params)
    last = env.action_spec[0].cardinality - 1
    for outside, inside in ((last + 7, last), (-3, 0)):
        actions = (jnp.array(a, jnp.int32) for a in (outside, inside))
        got, want = (step(jax.random.key(1), state, a, params)[:5] for a in actions)
        for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_array_equal(x, y)
