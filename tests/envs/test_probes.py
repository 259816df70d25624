"""Probe MDPs by hand, and the registry: what it lists, what it costs, what it says of a typo."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import envs
from envs.common.names import UnknownName
from envs.probes import PROBES
from envs.registry import FAMILIES


def episode(name, actions, key=0, **overrides):
    """Play `actions`; returns observations (the first included), rewards and both flags."""
    env, params = envs.make(f"probe/{name}", **overrides)
    obs, state = env.reset(jax.random.key(key), params)
    observations, rewards, ends = [float(obs[0])], [], []
    for action in actions:
        action = jnp.array(action, jnp.int32)
        obs, state, reward, terminated, truncated, _ = env.step(jax.random.key(0), state, action, params)
        observations.append(float(obs[0]))
        rewards.append(float(reward))
        ends.append((bool(terminated), bool(truncated)))
    return observations, rewards, ends


TERMINATED, GOES_ON = (True, False), (False, False)


def signals(name):
    """First observations of 32 keys."""
    env, params = envs.make(f"probe/{name}")
    keys = jax.random.split(jax.random.key(0), 32)
    return set(jax.vmap(env.reset, in_axes=(0, None))(keys, params)[0][:, 0].tolist())


def test_constant_reward():
    assert signals("ConstantReward") == {0.0}
    assert episode("ConstantReward", [0]) == ([0.0, 0.0], [1.0], [TERMINATED])


def test_observed_reward():
    assert signals("ObservedReward") == {-1.0, 1.0}
    seen = set()
    for key in range(8):
        observations, rewards, ends = episode("ObservedReward", [0], key=key)
        assert rewards == observations[:1]
        assert ends == [TERMINATED]
        seen.add(rewards[0])
    assert seen == {-1.0, 1.0}


def test_delayed_reward():
    assert signals("DelayedReward") == {0.0}
    observations, rewards, ends = episode("DelayedReward", [0, 0])
    assert observations[:2] == [0.0, 1.0]
    assert rewards == [0.0, 1.0]
    assert ends == [GOES_ON, TERMINATED]


def test_action_reward():
    assert signals("ActionReward") == {0.0}
    assert episode("ActionReward", [0])[1:] == ([-1.0], [TERMINATED])
    assert episode("ActionReward", [1])[1:] == ([1.0], [TERMINATED])


def test_observed_action_reward():
    assert signals("ObservedActionReward") == {-1.0, 1.0}
    for key in range(8):
        for action in (0, 1):
            observations, rewards, ends = episode("ObservedActionReward", [action], key=key)
            matches = (observations[0] > 0) == (action == 1)
            assert rewards == [1.0 if matches else -1.0]
            assert ends == [TERMINATED]


def test_time_limit_trap():
    assert signals("TimeLimitTrap") == {0.0}
    observations, rewards, ends = episode("TimeLimitTrap", [0] * 10, max_steps=10)
    assert set(observations) == {0.0}, "the clock must not be seen"
    assert rewards == [1.0] * 10
    assert ends == [GOES_ON] * 9 + [(False, True)]
    assert episode("TimeLimitTrap", [1])[1:] == ([10.0], [TERMINATED])
    later = episode("TimeLimitTrap", [0, 1], max_steps=10)
    assert later[1:] == ([1.0, 10.0], [GOES_ON, TERMINATED])
    both = episode("TimeLimitTrap", [0] * 9 + [1], max_steps=10)
    assert both[2][-1] == (True, True), "neither flag hides the other"


def stay_equilibrium(limit, discount=0.95, cash=10.0):
    """P(stay) at which a learner that takes the limit for a termination stops changing.

    It cannot see the clock, so it stays with one probability p. Staying gains, summed over the
    steps it reaches, `p^t (Q_t(stay) - cash)`; the equilibrium is where that sum changes its sign.
    """

    def gain(p):
        value, advantages = 0.0, []
        for _ in range(limit):  # backward from the limit, where nothing is left
            stay = 1 + discount * value
            value = p * stay + (1 - p) * cash
            advantages.append(stay - cash)
        return sum(p**t * advantage for t, advantage in enumerate(reversed(advantages)))

    return next((p / 1000 for p in range(1, 1000) if gain(p / 1000) <= 0), 1.0)


def test_trap_separates_the_two_treatments_of_its_limit():
    """Staying is worth 20, twice the cash; the wrong learner cashes at the default limit.

    Not at any: one more stay before the cash gives 1 + 0.95 * 10 > 10 to the wrong learner too.
    """
    env, task = envs.make("probe/TimeLimitTrap")
    assert float(task.cash) < 1 / (1 - 0.95)
    assert stay_equilibrium(env.max_steps, cash=float(task.cash)) < 0.05
    assert stay_equilibrium(10) > 0.7


def test_probe_overrides():
    _, rewards, ends = episode("TimeLimitTrap", [0, 0, 1], max_steps=2, cash=3.5)
    assert rewards == [1.0, 1.0, 3.5]
    assert [truncated for _, truncated in ends] == [False, True, True]
    with pytest.raises(UnknownName, match="cash"):
        envs.make("probe/TimeLimitTrap", cahs=1.0)
    for bad in (float("nan"), float("inf"), 0, -1):
        with pytest.raises(ValueError, match=r"max_steps: got"):
            envs.make("probe/TimeLimitTrap", max_steps=bad)


@pytest.mark.parametrize("bad", [2.5, True])
def test_probe_limit_must_be_a_whole_number(bad):
    with pytest.raises(ValueError, match="max_steps"):
        envs.make("probe/TimeLimitTrap", max_steps=bad)


def test_registry_lists_every_probe_once():
    ids = envs.registered()
    assert len(ids) == len(set(ids)) == sum(len(f.names) for f in FAMILIES.values())
    assert envs.registered("probe") == [f"probe/{name}" for name in PROBES]
    assert set(ids) == {i for family in FAMILIES for i in envs.registered(family)}


def test_registry_lists_what_gymnax_offers():
    import gymnax

    offered = {f"gymnax/{name}" for name in gymnax.registered_envs}
    assert offered - set(envs.registered("gymnax")) == {"gymnax/MNISTBandit-bsuite"}
    assert set(envs.registered("gymnax")) <= offered


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("gymnax/CartPol-v1", "gymnax/CartPole-v1"),
        ("gymnax/cartpole-v1", "gymnax/CartPole-v1"),
        ("CartPole-v1", "gymnax/CartPole-v1"),
        ("probe/TimeLimit", "probe/TimeLimitTrap"),
    ],
)
def test_unknown_id_names_the_nearest(wrong, right):
    with pytest.raises(UnknownName) as caught:
        envs.make(wrong)
    assert repr(wrong) in str(caught.value)
    assert right in str(caught.value)


def test_unknown_family_names_the_nearest():
    with pytest.raises(UnknownName, match="gymnax"):
        envs.registered("gymnx")


def test_listing_imports_neither_jax_nor_a_simulator():
    code = (
        "import sys, envs; ids = envs.registered(); assert len(ids) > 10\n"
        "heavy = {'jax', 'jaxlib', 'gymnax', 'numpy', 'flax'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "try:\n    envs.make('gymnax/Nothing')\n"
        "except ValueError:\n    pass\n"
        "else:\n    raise SystemExit('no error')\n"
        "assert 'jax' not in sys.modules and 'gymnax' not in sys.modules\n"
        "envs.make('probe/ActionReward')\n"
        "assert 'gymnax' not in sys.modules, 'a probe must not import a simulator'\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
