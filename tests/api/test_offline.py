"""Agents that are fitted to a dataset learn what is in it, and refuse what is not theirs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from front_door import as_users_run_it  # noqa: F401, it is used by all

import jaxagent
from experiments import cli
from jaxagent.api import offline
from jaxagent.api.config import recipe
from jaxagent.config import TransformerConfig
from jaxagent.data import reading, store

CARTPOLE, PENDULUM = "classic/CartPole-v1", "classic/Pendulum-v1"
FAST = {"num_updates": 120, "updates_per_chunk": 60, "learning_rate": 0.01, "episodes": 2, "quiet": True}
SMALL = {"hidden_size": 32, "context": 4}
MODEL = TransformerConfig(width=16, num_layers=1, num_heads=2, context=4)


def pushed(obs):
    """The rule of the demonstrations: against the fall."""
    return (obs[..., 2] + 0.5 * obs[..., 3] > 0).astype(np.int32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with demonstrations of CartPole, and rewarded actions of Pendulum."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    obs = rng.normal(size=(600, 4)).astype(np.float32)
    ends = np.arange(600) % 30 == 29
    common = {"rewards": np.ones(600), "terminals": ends, "timeouts": np.zeros(600, bool)}
    after = np.where(ends[:, None], -obs, np.roll(obs, -1, axis=0))
    np.savez(
        folder / "cartpole.npz", observations=obs, actions=pushed(obs), next_observations=after, **common
    )
    obs, action = obs[:, :3], rng.uniform(-2, 2, size=(600, 1)).astype(np.float32)
    reward = -np.square(action[:, 0] - np.tanh(obs[:, 0]))
    flags = {"terminals": np.ones(600, bool), "timeouts": np.zeros(600, bool)}
    values = {"observations": obs, "actions": action, "next_observations": -obs, "rewards": reward}
    np.savez(folder / "pendulum.npz", **values, **flags)
    return folder


def chosen(result, obs):
    """What the best seed does in states of which each begins an episode."""
    policy, is_first = result.policy(), jnp.ones(len(obs), bool)
    action, _ = policy.act(policy.init(len(obs)), jnp.asarray(obs), is_first, jax.random.key(0))
    return np.asarray(action)


NEW = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)


def test_a_clone_does_what_was_shown(data, tmp_path):
    result = jaxagent.learn(
        "bc", CARTPOLE, dataset=data / "cartpole.npz", out=tmp_path / "bc", **FAST, **SMALL
    )
    assert np.mean(chosen(result, NEW) == pushed(NEW)) > 0.9
    assert result.curve["steps"].tolist() == [0, 60, 120]
    assert "120 updates" in repr(result)
    (data / "cartpole.npz").rename(data / "away.npz")  # a finished run needs its dataset no more
    opened = jaxagent.load(tmp_path / "bc")
    np.testing.assert_array_equal(chosen(opened, NEW), chosen(result, NEW))
    (data / "away.npz").rename(data / "cartpole.npz")
    page = result.report.read_text()
    assert "Cloned from" not in page  # twenty episodes are not few
    assert "Loss while fitting" in page


def test_a_transformer_is_pretrained_then_tuned_whole_or_by_adapters(data, tmp_path, capsys):
    options = {"dataset": data / "cartpole.npz", **FAST}
    first = jaxagent.learn("sequence", CARTPOLE, out=tmp_path / "first", model=MODEL, **options)
    assert np.mean(chosen(first, NEW) == pushed(NEW)) > 0.65  # half by chance
    base = first.policy().params
    options |= {"begin": tmp_path / "first", "targets": "actions", "num_updates": 4, "updates_per_chunk": 2}
    options |= {"warmup_updates": 1}
    whole = jaxagent.learn("sequence", CARTPOLE, **options)
    low_rank = jaxagent.learn("sequence", CARTPOLE, tuning="lora", **options)
    for tuned in (whole, low_rank):
        begun = jax.tree.map(lambda x: x[0, 0], tuned._fit.load(tuned.folder))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), begun, base)
        moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), tuned.policy().params.network, base.network)
        assert any(jax.tree.leaves(moved))
        jax.tree.map(np.testing.assert_array_equal, tuned.policy().params.codec, base.codec)
    assert not all(jax.tree.leaves(moved))  # adapters leave what is no matrix alone
    with pytest.raises(ValueError, match=r"model: got .*leave it out"):
        jaxagent.learn("sequence", CARTPOLE, **options | {"model": TransformerConfig()})
    model = ["--model.num-heads", "4"]
    given = ["--dataset", str(data / "cartpole.npz"), "--begin", str(tmp_path / "first"), *model]
    assert cli.main(["train", "sequence", CARTPOLE, *given, "--out", str(tmp_path / "b")]) == cli.USAGE
    assert "leave it out" in capsys.readouterr().err
    wrong = options | {"dataset": data / "pendulum.npz"}
    with pytest.raises(ValueError, match="reads other components"):
        jaxagent.learn("sequence", PENDULUM, **wrong)


@pytest.mark.parametrize("agent", ["td3_bc", "iql"])
def test_values_lead_to_what_was_rewarded(agent, data):
    """Rewards are highest at tanh of the first observation, whatever was done there."""
    more = {
        "discount": 0.0,
        "hidden_size": 32,
        "critic_hidden_size": 32,
        "batch_size": 64,
        "num_updates": 600,
    }
    more |= {"updates_per_chunk": 300, "learning_rate": 0.003}
    result = jaxagent.learn(agent, PENDULUM, dataset=data / "pendulum.npz", **FAST | more)
    best = np.tanh(NEW[:, 0])
    assert np.corrcoef(chosen(result, NEW[:, :3])[:, 0], best)[0, 1] > 0.7


def test_few_demonstrations_are_told(data, monkeypatch):
    config = recipe("bc", CARTPOLE, dataset=data / "cartpole.npz")
    assert offline.limits(config) == ()
    monkeypatch.setattr(offline, "FEW", 21)
    assert "Cloned from 20 episodes" in offline.limits(config)[0]


def test_what_does_not_fit_is_refused(data, tmp_path, capsys):
    place = data / "cartpole.npz"
    with pytest.raises(ValueError, match=r"got observations \[4\] and int32 actions \[\], expected \[3\]"):
        jaxagent.learn("bc", PENDULUM, dataset=place, out=tmp_path / "a")
    with pytest.raises(ValueError, match="expected real actions for iql"):
        jaxagent.learn("iql", CARTPOLE, dataset=place, out=tmp_path / "a")
    with pytest.raises(ValueError, match="dataset of bc: got ''"):
        jaxagent.learn("bc", CARTPOLE)
    with pytest.raises(ValueError, match="dataset of ppo"):
        jaxagent.learn("ppo", CARTPOLE, dataset=place)
    with pytest.raises(ValueError, match="a run to `begin` with"):
        jaxagent.learn("sequence", CARTPOLE, dataset=place, tuning="lora")
    with pytest.raises(ValueError, match="train each setting by itself"):
        jaxagent.sweep("bc", CARTPOLE, {"learning_rate": [0.1]}, dataset=place)
    far = {**np.load(data / "pendulum.npz")}
    np.savez(tmp_path / "far.npz", **far | {"actions": 50 * far["actions"]})
    with pytest.raises(ValueError, match="actions are to be scaled"):
        jaxagent.learn("td3_bc", PENDULUM, dataset=tmp_path / "far.npz")
    named = reading.load(data / "pendulum.npz")
    store.write(tmp_path / "s", [one._replace(meta={"env": "brax/hopper"}) for one in named])
    with pytest.raises(ValueError, match="got play of brax/hopper"):
        jaxagent.learn("td3_bc", PENDULUM, dataset=tmp_path / "s")
    with pytest.raises(ValueError, match='take "sequence"'):
        jaxagent.learn("bc", CARTPOLE, dataset=place, begin=_finished(tmp_path))
    assert not (tmp_path / "a").exists()
    assert cli.main(["train", "bc", CARTPOLE, "--dataset", str(tmp_path / "none.npz")]) == cli.USAGE
    assert "got nothing there" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["train", "bc", CARTPOLE, "--help"])
    assert "--hidden-size" in capsys.readouterr().out


def _finished(folder):
    """A folder that looks like a finished run of the agent "sequence"."""
    run = folder / "run"
    (run / "stages" / "train").mkdir(parents=True)
    (run / "stages" / "train" / "kept.npz").write_bytes(b"")
    (run / "summary.json").write_text("{}")
    (run / "manifest.json").write_text(
        '{"config": {"agent": "sequence", "fit": {"model": {}, "tokens": {}}}}'
    )
    return run


def test_a_dataset_that_changed_is_refused(data, tmp_path):
    place = tmp_path / "mine.npz"
    place.write_bytes((data / "cartpole.npz").read_bytes())
    config = recipe("bc", CARTPOLE, dataset=place)
    place.write_bytes((data / "pendulum.npz").read_bytes())
    with pytest.raises(ValueError, match="it was changed since"):
        offline.dataset(config)
