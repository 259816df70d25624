"""Actor-critics with a memory: learning replays what acting did, to the last bit that matters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lengths import Lengths

import envs
from envs.types import Component
from envs.vector import VectorEnv, broadcast_params
from jaxagent.agents.actor_critic import greedy, ppo, remembering
from jaxagent.agents.recollection import Seen
from jaxagent.agents.sequence_actor import sequence_actor
from jaxagent.config import MemoryConfig, PPOConfig, TransformerConfig
from jaxagent.data.rollout import rollout
from jaxagent.evaluate.episodes import play
from jaxagent.nn.sequence_model import token_model
from jaxagent.nn.transformer import Vocabulary
from jaxagent.tokens import component
from jaxagent.tokens.patches import Patches
from jaxagent.train import loops, optimizer, parallel

T, B = 12, 8
CONFIG = PPOConfig(
    num_envs=B,
    num_steps=T,
    num_epochs=2,
    num_minibatches=2,
    num_updates=4,
    updates_per_chunk=2,
    hidden_size=8,
)
KINDS = {
    "none": MemoryConfig("none", 8, last_action=False),
    "stack": MemoryConfig("stack", 8, context=3),
    "gru": MemoryConfig("gru", 8),
    "lru": MemoryConfig("lru", 8, num_layers=2),
    "transformer": None,
    "gated": None,
    "patches": None,
}
# Two layers: what an earlier token has seen reaches further back than the context.
PLAIN = TransformerConfig(width=16, num_layers=2, num_heads=2, context=4)
TRANSFORMERS = {"transformer": PLAIN, "gated": dataclasses.replace(PLAIN, gate="gru")}


class Boards(Lengths):
    """The same, shown as a board of 3 x 3 cells whose corner says it; patches of 2 x 2 do not fit."""

    name, obs_shape = "test/Boards", (3, 3, 2)
    obs_spec = tuple(Component(f"cell{i}", "real") for i in range(18))

    def _observe(self, key):
        noise = 0.1 * jax.random.normal(jax.random.fold_in(key, 1), self.obs_shape)
        return noise.at[2, 2].add(super()._observe(key))


ENV = Lengths()
PATCHES = Patches(Boards.obs_shape, side=2)


def env_of(kind):
    return Boards() if kind == "patches" else ENV


def judge_of(kind, config=CONFIG):
    if kind == "patches":
        seen = (Component("patch", "real"),) * PATCHES.count
        (domain,) = component.domains([(seen, ENV.action_spec)])
        model = token_model(PLAIN, Vocabulary(16, 3, domain.period, 1, PATCHES.size))
        return sequence_actor(model, domain, ENV.action_spec, patches=PATCHES)
    if kind in TRANSFORMERS:
        (domain,) = component.domains([(ENV.obs_spec, ENV.action_spec)])
        model = token_model(TRANSFORMERS[kind], Vocabulary(16, 3, domain.period, 1))
        return sequence_actor(model, domain, ENV.action_spec)
    return remembering(KINDS[kind], ENV.obs_spec, ENV.action_spec, config)


@functools.cache
def segments(kind):
    """Judge, params, and of the second of two segments the first carry and the trajectory."""
    judge, env = judge_of(kind), env_of(kind)
    agent = ppo(env.obs_spec, env.action_spec, CONFIG, judge=judge)
    config = dataclasses.replace(CONFIG, num_envs=4 * B)
    loop = loops.on_policy(agent, VectorEnv(env), optimizer.adam(1e-3, 1.0), config)
    tasks = broadcast_params(env.default_params, config.num_envs)
    config_lanes = jax.jit(loop.init)(jax.random.key(0), tasks)
    learner, actors = config_lanes
    actor = jax.tree.map(lambda x: x[0], actors.actor)
    if KINDS[kind] is None:  # a transformer, whose first policy is nearly uniform, whatever it remembers
        network = learner.params.network
        network = network | {"head": jax.tree.map(lambda x: 20 * x, network["head"])}
        learner = learner._replace(params=learner.params._replace(network=network))

    @jax.jit
    def run(actor, key):
        act = functools.partial(agent.act, learner.params)
        return rollout(VectorEnv(env), act, key, actor, T)

    actor, _ = run(actor, jax.random.key(1))
    _, trajectory = run(actor, jax.random.key(2))
    return judge, learner.params, actor.carry, trajectory


def seen_of(t):
    return Seen(t.obs, t.extras["raw_action"], (), t.extras["is_first"])


@pytest.mark.fast("gru", "transformer", "patches")
@pytest.mark.parametrize("kind", KINDS)
def test_the_probability_of_every_stored_action_is_found_again(kind):
    judge, params, carry, t = segments(kind)
    dist, _ = jax.jit(judge_parts(judge))(params, carry, seen_of(t))
    assert set(np.diff(np.flatnonzero(np.asarray(t.extras["is_first"]).any(1)))) <= {1, 2, 3, 4, 5}
    lengths = {1, 2, 5}
    assert lengths <= {n for lane in range(B) for n in np.diff(np.flatnonzero(t.extras["is_first"][:, lane]))}
    ratio = np.exp(np.asarray(dist) - np.asarray(t.extras["log_prob"]))
    np.testing.assert_allclose(ratio, 1.0, atol=1e-5)
    assert np.asarray(t.extras["log_prob"]).std() > 0.1


def judge_parts(judge):
    def run(params, carry, seen):
        judgement = judge.judge(params, judge.by_lane(carry), seen)
        return judgement.log_prob, judgement.value

    return run


@pytest.mark.fast("gru", "transformer")
@pytest.mark.parametrize("kind", KINDS)
def test_values_after_a_step_are_those_before_the_next_but_at_ends(kind):
    judge, params, carry, t = segments(kind)
    values, after = map(
        np.asarray, jax.jit(judge.values)(params, judge.by_lane(carry), seen_of(t), t.final_obs)
    )
    goes_on = ~np.asarray(t.terminated | t.truncated)[:-1]
    np.testing.assert_allclose(after[:-1][goes_on], values[1:][goes_on], atol=2e-6)
    cut = np.asarray(t.truncated)[:-1]
    assert cut.any()
    assert (np.abs(after[:-1][cut] - values[1:][cut]) > 1e-4).mean() > 0.9
    # The last step's is what acting on would have said.
    seen = seen_of(t)
    longer = Seen(
        jnp.concatenate([seen.obs, t.final_obs[-1:]]),
        jnp.concatenate([seen.raw_action, seen.raw_action[-1:]]),
        (),
        jnp.concatenate([seen.is_first, jnp.zeros((1, B), bool)]),
    )
    _, more = jax.jit(judge_parts(judge))(params, carry, longer)
    np.testing.assert_allclose(after[-1], more[-1], atol=2e-6)


@pytest.mark.slow
def test_every_cell_of_a_board_reaches_the_policy():
    judge, params, carry, t = segments("patches")

    def total(obs):
        seen = seen_of(t)._replace(obs=obs)
        return jnp.sum(judge.judge(params, judge.by_lane(carry), seen).log_prob)

    slope = np.abs(np.asarray(jax.jit(jax.grad(total))(t.obs)))
    assert (slope.max(axis=(0, 1)) > 0).all()


def test_minibatches_that_cut_a_segment_are_refused():
    config = dataclasses.replace(CONFIG, num_minibatches=4)  # of two lanes a shard
    with pytest.raises(ValueError, match=r"PPOConfig.num_envs / shards: got 2, expected a multiple of 4"):
        ppo(ENV.obs_spec, ENV.action_spec, config, judge=judge_of("gru", config))


def test_a_carry_of_other_lanes_is_refused():
    judge = judge_of("transformer")

    def act(key):
        obs, is_first = jnp.zeros((3, 2)), jnp.ones(3, bool)
        return judge.act(judge.init(key), judge.init_carry(2), obs, (), is_first, None)

    with pytest.raises(ValueError, match="carry of 2 lanes for observations of 3"):
        jax.eval_shape(act, jax.random.key(0))


@pytest.mark.slow
def test_a_reflex_forgets_and_the_others_do_not():
    for kind, is_moved in (("none", False), ("gru", True), ("stack", True), ("lru", True)):
        judge, params, carry, t = segments(kind)
        other = jax.tree.map(lambda x: x * 0 if x.dtype != jnp.int32 else x, carry)
        parts = jax.jit(judge_parts(judge))
        moved = np.abs(np.asarray(parts(params, carry, seen_of(t))[1] - parts(params, other, seen_of(t))[1]))
        begun = np.cumsum(np.asarray(t.extras["is_first"]), axis=0) > 0
        assert (moved[begun] == 0).all()
        # The action before is an input of all, at the first step of those that go on.
        assert (moved[1:][~begun[1:]] > 0).any() == is_moved


def learned(kind, devices, num_envs=16):
    config = PPOConfig(
        num_envs=num_envs, num_steps=T, num_epochs=2, num_minibatches=2, num_updates=4, updates_per_chunk=2
    )
    agent = ppo(ENV.obs_spec, ENV.action_spec, config, judge=judge_of(kind, config))
    loop = loops.on_policy(agent, VectorEnv(ENV), optimizer.adam(1e-2, 1.0), config)
    tasks = broadcast_params(ENV.default_params, num_envs)
    state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))
    return parallel.chunked(loop, 2, devices)(state, jax.random.key(1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gru", "lru", "stack", "transformer"])
def test_one_device_equals_four(kind):
    (one, _), (four, _) = learned(kind, 1), learned(kind, 4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
        one.learner.params,
        four.learner.params,
    )
    np.testing.assert_array_equal(
        *(jax.tree.leaves(s.shards.actor.is_first)[0].reshape(-1) for s in (one, four))
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "stack", "gru", "lru"])
def test_the_first_card_is_repeated_by_who_remembers(kind):
    env, task = envs.make("memory/RepeatFirst", num_cards=4)
    config = PPOConfig(
        num_envs=64,
        num_steps=8,
        num_minibatches=4,
        num_updates=160,
        updates_per_chunk=160,
        learning_rate=3e-3,
        entropy_weight=0.01,
    )
    judge = remembering(
        MemoryConfig(kind, 32, context=4, last_action=kind != "none"), env.obs_spec, env.action_spec, config
    )
    agent = ppo(env.obs_spec, env.action_spec, config, judge=judge)
    loop = loops.on_policy(agent, VectorEnv(env), optimizer.adam(optimizer.linear_decay(config), 0.5), config)
    tasks = broadcast_params(task, config.num_envs)
    state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))
    state, _ = parallel.chunked(loop, 160, 1)(state, jax.random.key(1))
    policy = greedy(judge, env.action_spec)
    tasks = broadcast_params(task, 256)
    run = jax.jit(lambda p, k: play(env, policy, p, tasks, k).returns)
    reached = float(run(state.learner.params, jax.random.key(2)).mean())
    assert (reached > 0.95) if kind != "none" else (reached < 0.3), reached


# --- near the policy that training began with -----------------------------------------------------

ANCHORED = dataclasses.replace(CONFIG, anchor_weight=2.0, anchor_decay=0.5)


@functools.cache
def anchored(kind):
    """The learner after a chunk of two updates, its report, and the first segment with its items."""
    agent = ppo(ENV.obs_spec, ENV.action_spec, ANCHORED, judge=judge_of(kind, ANCHORED))
    loop = loops.on_policy(agent, VectorEnv(ENV), optimizer.adam(1e-2, 1.0), ANCHORED, is_normalized=False)
    learner, actors = jax.jit(loop.init)(jax.random.key(0), broadcast_params(ENV.default_params, B))
    average = functools.partial(jax.tree.map, lambda x: jnp.mean(x, axis=0))

    @jax.jit
    def first_items(learner, actors):
        act = functools.partial(agent.act, learner.params)
        run = jax.vmap(lambda key, actor: rollout(VectorEnv(ENV), act, key, actor, T)[1])
        trajectory = run(jax.random.split(jax.random.key(1), 4), actors.actor)
        late = learner.target._replace(num_updates=jnp.array(3, jnp.int32))
        carry = actors.actor.carry
        return trajectory, agent.targets(learner.params, carry, trajectory, average, late)

    trajectory, items = first_items(learner, actors)
    state, report = parallel.chunked(loop, 2, 1)(parallel.first_state(learner, actors), jax.random.key(2))
    return learner, trajectory, items, state, report


@pytest.mark.fast("none")
@pytest.mark.parametrize("kind", ["none", "gru", "transformer"])
def test_the_anchor_is_the_first_policy_on_the_segment_alone(kind):
    """Of the very first segment, which acting, too, began with an empty memory."""
    learner, trajectory, items, state, report = anchored(kind)
    # Items are segments [s, b, T, ...] of trajectories [s, T, b, ...].
    raw, stored = (trajectory.extras[name].swapaxes(1, 2) for name in ("raw_action", "log_prob"))
    category, real = items.anchor[0], items.anchor[1]
    if kind == "transformer":  # tokens: three categories behind 16 bins
        log_prob = category.log_prob(16 + raw[..., 0].astype(jnp.int32))
        bins = jnp.clip(((raw[..., 1] + 1.0) / 2.0 * 16).astype(jnp.int32), 0, 15)
        log_prob = log_prob + real.log_prob(bins)
    else:
        log_prob = category.log_prob(raw[..., 0].astype(jnp.int32)) + real.log_prob(raw[..., 1:])
    np.testing.assert_allclose(log_prob, stored, atol=1e-5)
    # 2 of weight, halved three times.
    np.testing.assert_allclose(items.anchor_weight, 0.25)
    # The anchor stays, and its updates are counted.
    jax.tree.map(np.testing.assert_array_equal, state.learner.target.params, learner.params)
    assert int(state.learner.target.num_updates) == 2
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.learner.params, learner.params)
    assert max(jax.tree.leaves(moved)) > 1e-3
    assert float(report.metrics["train/divergence"].total) > 0.0


@pytest.mark.slow
def test_a_heavy_anchor_holds_the_policy():
    """The divergence of what is learned, against the same without weight to speak of."""

    def divergence(weight):
        config = dataclasses.replace(CONFIG, anchor_weight=weight, hidden_size=16)
        agent = ppo(ENV.obs_spec, ENV.action_spec, config)
        loop = loops.on_policy(agent, VectorEnv(ENV), optimizer.adam(1e-2, 1.0), config)
        tasks = broadcast_params(ENV.default_params, B)
        state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))
        _, report = parallel.chunked(loop, 20, 1)(state, jax.random.key(1))
        return float(jax.tree.leaves(report.metrics["train/divergence"])[0].reshape(-1)[-1])

    assert divergence(30.0) < 0.1 * divergence(1e-6)
