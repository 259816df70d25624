"""A policy written into a run folder comes back, and acts the same under jit and scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.common.names import UnknownName
from experiments import render
from experiments.cli import session
from jaxagent import library
from jaxagent.agents import rainbow
from jaxagent.agents.memory_policy import learner_and_player
from jaxagent.config import MemoryConfig, PPOConfig, QNetworkConfig, RainbowConfig, TransformerConfig, to_dict
from jaxagent.data import normalize
from jaxagent.nn import transformer
from jaxagent.nn.q_network import q_network
from jaxagent.tokens.component import Domain

DOMAIN = Domain(obs_size=3, action_size=1, action_cardinality=2, index=0, first_component=0)
VOCABULARY = transformer.Vocabulary(num_bins=8, num_categories=2, num_components=4, num_domains=1)
MODELS = {
    "transformer": to_dict(TransformerConfig(width=16, num_layers=1, num_heads=2)),
    "raw": {"hidden_sizes": [8]},
}


@pytest.fixture(params=MODELS)
def saved(request, tmp_path):
    """A run folder with one random policy, and its description."""
    about = library.Description(
        arm="finetune",
        task="CartPole-v1",
        env="gymnax/CartPole-v1",
        overrides={"length": 1.0},
        kind=request.param,
        rule="argmax",
        seed=0,
        domain=DOMAIN,
        vocabulary=VOCABULARY,
        model=MODELS[request.param],
    )
    _, template = library.rebuild(about)
    rng = np.random.default_rng(0)

    def fill(x):
        numbers = np.sort(rng.normal(size=x.shape), axis=-1) if x.shape else np.asarray(4.0)
        return numbers.astype(x.dtype)

    params = jax.tree.map(fill, template)
    library.save(tmp_path, about, params)
    return tmp_path, about, params


def test_what_was_saved_is_loaded(saved):
    folder, about, params = saved
    loaded = library.load(folder)
    assert loaded.description == about
    for x, y in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(x, y)


def test_it_acts_the_same_in_a_loop_and_in_a_scan(saved):
    policy = library.load(saved[0])
    obs = jax.random.normal(jax.random.key(0), (6, 2, 3))
    is_first = jnp.zeros((6, 2), bool).at[0].set(True)
    keys = jax.random.split(jax.random.key(1), 6)

    def step(carry, x):
        action, carry = policy.act(carry, *x)
        return carry, action

    _, scanned = jax.jit(lambda c: jax.lax.scan(step, c, (obs, is_first, keys)))(policy.init(2))
    carry, looped = policy.init(2), []
    keys = jax.random.clone(keys)
    for t in range(6):
        carry, action = step(carry, (obs[t], is_first[t], keys[t]))
        looped.append(action)
    np.testing.assert_array_equal(scanned, np.stack(looped))
    assert set(np.asarray(scanned).ravel()) <= {0, 1}


@pytest.mark.fast("board-obs_shape0-False")
@pytest.mark.parametrize(
    ("encoder", "obs_shape", "is_stack"), [("board", (10, 10, 4), False), ("nature", (84, 84, 4), True)]
)
def test_a_policy_of_values_comes_back(tmp_path, encoder, obs_shape, is_stack):
    """It takes observations as the environment has them, stacks of frames first."""
    config = RainbowConfig(model=QNetworkConfig(encoder=encoder, hidden_size=8, num_atoms=11))
    network = q_network(config.model, obs_shape, 3)
    rng = np.random.default_rng(0)  # as initialised, all observations are alike to it
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)
    about = library.ValueDescription(
        arm="spr",
        task="Game",
        env="minatar/Breakout",
        overrides={},
        seed=7,
        obs_shape=list(obs_shape),
        is_stack=is_stack,
        num_actions=3,
        config=to_dict(config),
    )
    library.save(tmp_path, about, params)
    loaded = library.load(tmp_path, arm="spr")
    assert loaded.description == about
    boards = jax.random.randint(jax.random.key(1), (16, *obs_shape), 0, 256).astype(jnp.uint8)
    shown = jnp.arange(obs_shape[0])[None] * 16 < jnp.arange(16)[:, None] * obs_shape[0]
    boards = jnp.where(shown[..., None, None], boards, jnp.uint8(0))  # or all look alike
    seen = jnp.moveaxis(boards, -1, 1) if is_stack else boards
    action, carry = loaded.act(loaded.init(16), seen, jnp.zeros((16,), bool), jax.random.key(2))
    policy = rainbow.policy(network, config)
    expected = policy.act(params, (), boards, jnp.zeros((16,), bool), jax.random.key(2))[0]
    np.testing.assert_array_equal(action, expected)
    assert carry == ()
    assert len(set(np.asarray(action).tolist())) > 1


def breakout_run(folder):
    """A run folder with two untrained policies of values."""
    config = RainbowConfig(model=QNetworkConfig(hidden_size=8, num_atoms=11))
    network = q_network(config.model, (10, 10, 4), 3)
    for number, arm in enumerate(("rainbow + spr", "rainbow")):
        about = library.ValueDescription(
            arm=arm,
            task="Breakout",
            env="minatar/Breakout",
            overrides={"max_steps": 30},
            seed=7,
            obs_shape=[10, 10, 4],
            is_stack=False,
            num_actions=3,
            config=to_dict(config),
        )
        library.save(folder, about, jax.jit(network.init)(jax.random.key(number)))
    return folder


@pytest.mark.slow
def test_without_an_arm_the_first_is_loaded_or_the_fine_tuned_one(tmp_path):
    run = breakout_run(tmp_path)
    assert library.available(run) == ["rainbow + spr--Breakout", "rainbow--Breakout"]
    assert library.load(run).description.arm == "rainbow + spr"
    assert library.load(run, arm="rainbow").description.arm == "rainbow"
    with pytest.raises(UnknownName, match="rainbow"):
        library.load(run, arm="rainbwo")
    with pytest.raises(UnknownName):
        library.load(tmp_path / "nothing")


@pytest.mark.slow
def test_values_are_evaluated_and_rendered_from_the_run_folder(tmp_path, capsys):
    run = breakout_run(tmp_path / "run")
    assert session.evaluate(run, episodes=3, seed=0) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split("--")[0] for line in lines] == ["rainbow + spr", "rainbow"]
    assert all(float(line.split()[-3]) >= 0.0 for line in lines)
    out = tmp_path / "film.gif"
    assert render.render("minatar/Breakout", out, str(run), 12, 0) == 0
    assert out.read_bytes()[:4] == b"GIF8"
    assert "policy rainbow + spr of" in capsys.readouterr().out


@pytest.mark.fast("gru")
@pytest.mark.parametrize(
    "memory",
    [MemoryConfig("gru", 8), TransformerConfig(width=8, num_layers=1, num_heads=2, context=2)],
    ids=["gru", "transformer"],
)
def test_a_policy_with_a_memory_comes_back(memory, tmp_path):
    """With the world of its arm, and a memory that is cleared as it was learned."""
    world, ppo = {"length": 3, "reveal": True}, PPOConfig(hidden_size=8)
    about = library.ActorDescription(
        "saboteur", "TMaze-length=3", "memory/TMaze", world, 7, to_dict(ppo), to_dict(memory), 0.25
    )
    env, _ = envs.make("memory/TMaze", **world)
    agent, policy = learner_and_player(env, ppo, memory, 0.25)
    params = jax.jit(agent.init)(jax.random.key(3)), normalize.init(env.obs_shape)
    library.save(tmp_path, about, params)
    loaded = library.load(tmp_path)
    assert loaded.description == about
    obs, is_first = jnp.ones((4, *env.obs_shape)), jnp.ones(4, bool)
    action, carry = jax.jit(loaded.act)(loaded.init(4), obs, is_first, jax.random.key(1))
    expected, _, after = jax.jit(policy.act)(params, policy.init(4), obs, is_first, jax.random.key(1))
    np.testing.assert_array_equal(action, expected)
    # One has its parameters as constants, the other as arguments.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), carry, after)
