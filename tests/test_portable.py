"""A policy that was exported acts as before, from files alone."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.common.names import UnknownName
from jaxagent import library, portable
from jaxagent.agents import memory_policy, muzero
from jaxagent.agents.planning import gumbel_search
from jaxagent.config import LatentConfig, MemoryConfig, MuZeroConfig, PPOConfig, SearchConfig, TrunkConfig
from jaxagent.data import normalize, tree_file
from jaxagent.folders import NotOurs


def remembering():
    """A GRU on a T-maze: real observations, a memory, drawn actions."""
    env, task = envs.make("memory/TMaze", length=3)
    agent, policy = memory_policy.learner_and_player(
        env, PPOConfig(hidden_size=8), MemoryConfig("gru", 8), 0.0
    )
    return env, task, policy, (jax.jit(agent.init)(jax.random.key(3)), normalize.init(env.obs_shape))


def searching():
    """MuZero on CartPole."""
    env, task = envs.make("classic/CartPole-v1")
    model = LatentConfig(TrunkConfig(width=8, num_blocks=1), num_bins=5, projection_size=8)
    config = MuZeroConfig(model=model, search=SearchConfig(num_simulations=2))
    network = muzero.model_of(env.obs_shape, env.action_spec, config.model)
    policy = muzero.policy(network, gumbel_search(config.search, gumbel_scale=0.0), config)
    return env, task, policy, jax.jit(network.init)(jax.random.key(0))


def exported(made, folder, **options):
    env, task, policy, params = made
    told = {
        "arm": "a",
        "task": "b",
        "overrides": {},
        "seed": 7,
        "precision": "highest",
        "recipe": {"fit": {"x": 1}},
    }
    about = library.describe(env, task, **told)
    library.export(folder, about, policy, params, **options)
    return library.load(folder)


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    """What was exported, where, and what came back."""
    made, folder = remembering(), tmp_path_factory.mktemp("policies") / "gru"
    return made, folder, exported(made, folder)


def test_it_acts_as_before_for_any_number_of_lanes(recurrent):
    (env, _, policy, params), _, loaded = recurrent
    for batch_size in (1, 3):
        carry, then = policy.init(batch_size), loaded.init(batch_size)
        for step in range(3):
            key = jax.random.key(step)
            obs = jax.random.normal(jax.random.fold_in(key, 1), (batch_size, *env.obs_shape))
            is_first, key_act = jnp.full((batch_size,), step == 0), jax.random.fold_in(key, 2)
            expected, _, carry = policy.act(params, carry, obs, is_first, key_act)
            action, then = jax.jit(loaded.act)(then, obs, is_first, jax.random.clone(key_act))
            np.testing.assert_array_equal(action, expected)
            for x, y in zip(jax.tree.leaves(carry), then, strict=True):
                np.testing.assert_allclose(x, y, atol=1e-6)
    assert loaded.description.num_lanes is None


def test_the_card_says_what_it_is(recurrent):
    _, folder, loaded = recurrent
    card = (folder / library.CARD).read_text()
    assert card.startswith("---\nlibrary_name: jaxagent\n")
    assert "| environment | `memory/TMaze` |" in card
    assert "| fit.x | 1 |" in card
    assert "| mean return | not measured |" in card
    assert loaded.description.seed == 7
    assert loaded.description.actions == [
        {"name": "move", "kind": "category", "low": None, "high": None, "cardinality": 3}
    ]
    json.dumps(loaded.description._asdict(), allow_nan=False)


def test_a_search_takes_the_lanes_it_was_exported_for(tmp_path):
    env, _, policy, params = made = searching()
    loaded = exported(made, tmp_path / "muzero", params_as="safetensors", num_lanes=2)
    assert loaded.description.num_lanes == 2
    obs, is_first = jnp.ones((2, *env.obs_shape)), jnp.ones(2, bool)
    expected = policy.act(params, (), obs, is_first, jax.random.key(1))[0]
    action, _ = loaded.act(loaded.init(2), obs, is_first, jax.random.key(1))
    np.testing.assert_array_equal(action, expected)
    with pytest.raises(ValueError, match="batch_size: got 3, expected 2"):
        loaded.init(3)


def test_damage_and_occupied_folders_are_refused(recurrent, tmp_path):
    made, folder, _ = recurrent
    with pytest.raises(NotOurs):
        exported(made, folder)
    with pytest.raises(UnknownName, match="npz"):
        exported(made, tmp_path / "new", params_as="pickle")
    assert not (tmp_path / "new").exists()
    again = exported(made, tmp_path / "again")
    step = tmp_path / "again" / portable.STEP
    intact = step.read_bytes()
    step.write_bytes(intact[:-1] + b"?")
    with pytest.raises(ValueError, match=r"step\.stablehlo: got SHA-256"):
        library.load(tmp_path / "again")
    step.write_bytes(intact)
    tree_file.save(tmp_path / "again" / "params.npz", again.params[:-1])
    with pytest.raises(ValueError, match=r"params\.npz: got SHA-256"):
        library.load(tmp_path / "again")
    (tmp_path / "again" / "params.npz").unlink()
    with pytest.raises(tree_file.TreeFileError, match="got no parameters"):
        library.load(tmp_path / "again")


@pytest.mark.parametrize("suffix", tree_file.SUFFIXES)
def test_trees_come_back_in_order_and_shape(suffix, tmp_path):
    tree = {"b": np.float32(2.0), "a": [np.arange(6, dtype=np.int32).reshape(2, 3).T] * 11}
    path = tmp_path / f"tree{suffix}"
    tree_file.save(path, tree)
    back = tree_file.load(path, tree)
    jax.tree.map(np.testing.assert_array_equal, back, tree)
    assert [x.shape for x in tree_file.read(path).values()] == [(3, 2)] * 11 + [()]
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(tree_file.TreeFileError, match="not a readable pytree file"):
        tree_file.read(path)


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected \.npz or \.safetensors"):
        tree_file.save(tmp_path / "tree.pkl", {})


def test_a_dtype_that_no_file_holds_is_refused(tmp_path):
    with pytest.raises(ValueError, match="of bfloat16, expected a dtype"):
        tree_file.save(tmp_path / "tree.npz", {"w": jnp.zeros(2, jnp.bfloat16)})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_onnx_acts_as_before(tmp_path):
    """Where jax2onnx and onnxruntime are installed, which `portable.ONNX_FIX` says how."""
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    env, _, policy, params = remembering()
    seen = jax.ShapeDtypeStruct(env.obs_shape, jnp.float32)
    path = portable.write_onnx(tmp_path / "gru.onnx", policy, params, seen)
    session = runtime.InferenceSession(str(path))
    carry = policy.init(1)
    memory = [np.asarray(x) for x in jax.tree.leaves(carry)]
    names = [x.name for x in session.get_inputs()]
    for step in range(3):
        obs, is_first = np.full((1, *env.obs_shape), step, np.float32), np.array([step == 0])
        action, _, carry = policy.act(params, carry, obs, is_first, jax.random.key(0))
        found, *memory = session.run(None, dict(zip(names, [*memory, obs, is_first], strict=True)))
        np.testing.assert_array_equal(found, action)
        for x, y in zip(memory, jax.tree.leaves(carry), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5)
