"""The agent of all parts: what it did is found again, and search walks what self-prediction trains."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probe_lanes import AnyProbe

from envs.types import Component
from envs.vector import VectorEnv
from jaxagent.agents.planning import gumbel_search, no_search
from jaxagent.agents.predictive_actor import PredictiveActor, Window, after, followed
from jaxagent.agents.sequence_actor import actor_of
from jaxagent.agents.sequence_planner import SequencePlanner
from jaxagent.config import PPOConfig, SearchConfig, SequencePlannerConfig, SPRConfig, TransformerConfig
from jaxagent.nn.distributions import Categorical
from jaxagent.nn.sequence_model import token_model
from jaxagent.nn.token_dynamics import dynamics
from jaxagent.nn.transformer import Vocabulary
from jaxagent.study import planner_agents
from jaxagent.tokens import component
from jaxagent.train import loops, parallel
from jaxagent.types import Masked, Trajectory

OBS = (Component("height", "real"), Component("symbol", "category", cardinality=3))
LONE = (Component("move", "category", cardinality=3),)
SEVERAL = (Component("move", "category", cardinality=2), Component("force", "real", -2.0, 4.0))
T, B = 5, 4
SEARCH = SearchConfig(num_simulations=4, value_range=1.0)
CONFIG = SequencePlannerConfig(
    PPOConfig(num_envs=4, num_steps=T, num_minibatches=1),
    SPRConfig(num_steps=2, weight=1.0),
    search=SEARCH,
    num_samples=3,
    projection_size=8,
)


@functools.cache
def made(spec=LONE, **changes):
    """A tiny agent for observations `OBS`."""
    (domain,) = component.domains([(OBS, spec)])
    vocabulary = Vocabulary(4, 3, domain.period, 1)
    model = token_model(TransformerConfig(width=8, num_layers=1, num_heads=2, context=3), vocabulary)
    net = PredictiveActor(actor_of(model, domain, spec), dynamics(vocabulary, 8, domain.action_size, 8))
    config = dataclasses.replace(CONFIG, **changes)
    return SequencePlanner(net, config)


@functools.cache
def first_params(spec=LONE):
    """Parameters whose policy is not flat and whose model is not at rest."""
    params = jax.jit(made(spec).init)(jax.random.key(0))
    return jax.tree.map(lambda x: 3.0 * x, params)


def rollout(planner, params, seed=0):
    """The second segment `[1, T, B]` of acting, in which episodes end now and then, and its carry."""
    rng = np.random.default_rng(seed)
    total = 2 * T
    obs = np.stack([rng.normal(size=(total + 1, B)), rng.integers(0, 3, (total + 1, B))], axis=-1)
    obs = jnp.asarray(obs, jnp.float32)
    done = jnp.asarray(rng.random((total, B)) < 0.3)
    is_first = jnp.concatenate([jnp.ones((1, B), bool), done[:-1]])
    is_cut = done & jnp.asarray(rng.random((total, B)) < 0.5)  # by the clock

    def step(carry, x):
        obs, is_first, key = x
        action, extras, carry = planner.act(params, carry, obs, is_first, key)
        return carry, (action, extras)

    carry, keys = planner.predictive.actor.init_carry(B), jax.random.split(jax.random.key(seed), total)
    carry, _ = jax.lax.scan(step, carry, (obs[:T], is_first[:T], keys[:T]))
    _, (action, extras) = jax.lax.scan(step, carry, (obs[T:-1], is_first[T:], keys[T:]))
    reward = jnp.asarray(rng.normal(size=(T, B)), jnp.float32)
    ends = done[T:] & ~is_cut[T:], is_cut[T:]
    steps = Trajectory(obs[T:-1], action, reward, *ends, obs[T + 1 :], extras)
    one_shard = functools.partial(jax.tree.map, lambda x: x[None])
    return one_shard(steps), one_shard(carry)


@functools.cache
def learned(spec, targets, acts_by="policy"):
    """The items of a rollout, and the loss, its metrics and gradient on them."""
    planner, params = made(spec, targets=targets, acts_by=acts_by), first_params(spec)

    def run(params):
        trajectory, carry = rollout(planner, params)
        items = planner.targets(params, carry, trajectory, lambda x: jax.tree.map(lambda y: y[0], x))
        items = jax.tree.map(lambda x: x[0], items)
        return items, jax.value_and_grad(planner.loss, has_aux=True)(params, items)

    return jax.jit(run)(params)


def test_what_was_acted_is_found_again_behind_the_cache():
    _, ((_, metrics), gradient) = learned(SEVERAL, "ppo")
    assert float(metrics["train/kl"]) < 1e-10
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_search_teaches_the_policy_by_what_it_searched_among():
    items, ((_, metrics), _) = learned(SEVERAL, "improvement", "search")
    planner, params = made(SEVERAL, targets="improvement"), first_params(SEVERAL)
    assert items.candidates.shape == (B, T, 3, 2)
    np.testing.assert_allclose(items.weights.sum(axis=-1), 1.0, rtol=1e-5)
    # What was taken is among the candidates, as search chose it.
    taken = planner.predictive.actor.tokens_of_action(items.raw_action)
    assert bool((items.candidates == taken[:, :, None]).all(axis=-1).any(axis=-1).all())
    net = planner.predictive

    @jax.jit
    def both(candidates):
        begun = net.actor.init_carry(B)
        state, _ = net.see(params, begun, items.obs[:, 0], jnp.ones((B,), bool))
        expected = []
        for tokens in jnp.moveaxis(candidates, 1, 0):
            heard = net.dynamics.hear(params.dynamics, state, tokens[:, 0], 0)
            first, second = net.choices(params, state, 0), net.choices(params, heard, 1)
            expected.append(first.log_prob(tokens[:, 0]) + second.log_prob(tokens[:, 1]))
        wide = jnp.broadcast_to(state[:, None], (B, 3, 8))
        return net.log_prob(params, wide, candidates), jnp.stack(expected, axis=1)

    np.testing.assert_allclose(*both(items.candidates[:, 0]), rtol=1e-4)
    assert float(metrics["train/loss/policy"]) >= float(metrics["train/entropy/search"])


def test_self_prediction_trains_the_function_that_search_walks():
    calls = []
    planner = made(targets="improvement")
    net = planner.predictive

    def counted(*args):
        calls.append(args[1].shape)
        return net.dynamics.step(*args)

    watched = dataclasses.replace(
        planner, predictive=dataclasses.replace(net, dynamics=net.dynamics._replace(step=counted))
    )
    params = first_params()
    jax.eval_shape(lambda: rollout(watched, params))
    assert calls, "search does not step by it"
    calls.clear()
    items = learned(LONE, "improvement")[0]
    jax.eval_shape(watched.loss, params, items)
    assert (T * B, 8) in calls, "the loss does not unroll it"


@pytest.mark.fast("2")
@pytest.mark.parametrize("best", [0, 2])
def test_search_finds_the_action_that_the_model_rewards(best):
    planner = made(targets="improvement")
    net = planner.predictive
    # States tell nothing but the last action; the model pays for one of them.

    def step(params, state, tokens):
        last = (tokens - net.actor.num_bins).astype(jnp.float32)[..., None]
        return jnp.broadcast_to(last, (*state.shape[:-1], 1, 8))

    def reward(params, state):
        return jnp.where(state[..., 0] == best, 5.0, 0.0)

    paid = net.dynamics._replace(step=step, reward=reward)
    planner = dataclasses.replace(planner, predictive=dataclasses.replace(net, dynamics=paid))
    params, state = first_params(), jnp.ones((B, 8))
    plan = gumbel_search(dataclasses.replace(SEARCH, num_simulations=8), gumbel_scale=0.0)
    search = jax.jit(lambda legal: planner.search(params, jax.random.key(0), state, legal, plan)[1])
    decision = search(())
    assert (np.asarray(decision.action) == best).all()
    assert (np.asarray(decision.weights).argmax(axis=-1) == best).all()
    # Where it is forbidden, it is not taken.
    decision = search(jnp.asarray(np.broadcast_to(np.arange(3) != best, (B, 3))))
    assert (np.asarray(decision.action) != best).all()
    assert float(decision.weights[:, best].max()) == 0.0


def test_without_search_it_plays_its_own_policy_and_keeps_to_the_mask():
    planner, params = made(targets="improvement"), first_params()
    obs = jnp.asarray(np.random.default_rng(1).normal(size=(B, 2)), jnp.float32)
    first, key = jnp.ones((B,), bool), jax.random.key(3)
    modes, plain = (jax.jit(planner.policy(plan).act) for plan in (None, no_search(is_greedy=True)))
    begun = planner.predictive.actor.init_carry(B)
    ours, _, _ = modes(params, begun, obs, first, key)
    theirs, _, _ = plain(params, begun, obs, first, key)
    np.testing.assert_array_equal(ours, theirs)
    legal = np.arange(3)[None] != np.asarray(ours)[:, None]
    masked, _, _ = modes(params, begun, Masked(obs, jnp.asarray(legal)), first, key)
    assert (np.asarray(masked) != np.asarray(ours)).all()


def test_search_steps_from_what_is_walked_and_counts_later_rewards_less():
    planner, params = made(targets="improvement"), first_params()
    state, tokens = jnp.arange(8.0 * B).reshape(B, 8), jnp.full((B, 1), 5)
    _, discount, after_own = planner.imagine(params, jax.random.key(0), tokens, state)
    np.testing.assert_allclose(discount, CONFIG.ppo.discount)
    mixed = dataclasses.replace(planner, walked=lambda x: jnp.roll(x, 1, axis=0))
    _, _, after_other = mixed.imagine(params, jax.random.key(0), tokens, state)
    np.testing.assert_allclose(after_other, jnp.roll(after_own, 1, axis=0), rtol=1e-5)
    value, _ = planner.propose(params, jax.random.key(0), state)
    np.testing.assert_allclose(value, planner.predictive.actor.value_of(params, state), rtol=1e-6)


def test_both_targets_are_their_sum():
    losses = {}
    items = learned(LONE, "improvement")[0]
    for targets in ("ppo", "improvement", "both"):
        planner = made(targets=targets, acts_by="policy")
        _, metrics = jax.jit(planner.loss)(first_params(), items)
        losses[targets] = float(metrics["train/loss/policy"])
    assert abs(losses["improvement"]) > 0.1
    np.testing.assert_allclose(losses["both"], losses["ppo"] + losses["improvement"], rtol=1e-5)
    # What search found is of the step and lane where it was found.
    moved = items._replace(weights=jnp.roll(items.weights, 1, axis=0))
    _, metrics = jax.jit(made(targets="improvement").loss)(first_params(), moved)
    assert abs(float(metrics["train/loss/policy"]) - losses["improvement"]) > 1e-4


def test_predictions_are_held_to_what_came():
    """Against loops: states count up, and one lane's episode ends at step 1, by the clock at step 3."""
    length, count = 6, 2
    terminated, truncated = np.zeros((2, length), bool)
    terminated[1], truncated[3] = True, True
    rng = np.random.default_rng(0)
    states, reward, value = rng.normal(size=(length, 2)), rng.normal(size=length), rng.normal(size=length)
    move = np.array([0.5, -1.0])

    def step(params, state, tokens):
        return (state + jnp.asarray(move, jnp.float32)[None])[..., None, :]

    part = dynamics(Vocabulary(4, 3, 3, 1), 2, 1, 2)._replace(
        step=step,
        reward=lambda params, state: state[..., 0],
        project=lambda params, state: state,
        predict=lambda params, x: x,
    )
    actor = types.SimpleNamespace(
        value_of=lambda params, state: state[..., 1],
        choices=lambda logits, i, legal: Categorical(logits),
        model=types.SimpleNamespace(read=lambda network, layout, state: 2.0 * state),
        domain=types.SimpleNamespace(action_size=1),
    )
    net, params = PredictiveActor(actor, part), types.SimpleNamespace(dynamics=(), network=())
    window = Window(jnp.asarray(states, jnp.float32), jnp.zeros((length, 1), jnp.int32), (), length)
    unrolled = net.unroll(params, window, count)
    known = followed(jnp.asarray(terminated)[:, None], jnp.asarray(truncated)[:, None], count)
    parts = net.parts(params, window.states, unrolled.heard[0])
    given = window, unrolled, known, jnp.asarray(reward, jnp.float32), jnp.asarray(value, jnp.float32), parts
    losses = net.model_losses(params, *given)

    def log_softmax(x):
        return x - np.log(np.exp(x).sum())

    sums = {name: [] for name in losses}
    for t in range(length):
        state, alive, over = states[t], True, False
        for i in range(t, min(t + count, length)):
            state = state + move
            if alive or over:
                sums["reward"].append(0.5 * (state[0] - (reward[i] if alive else 0.0)) ** 2)
            over = over or (alive and terminated[i])
            alive = alive and not (terminated[i] or truncated[i]) and i + 1 < length
            if alive or over:
                sums["next_value"].append(0.5 * (state[1] - (value[i + 1] if alive else 0.0)) ** 2)
            if alive:
                came, guess = states[i + 1], state
                p, q = log_softmax(2.0 * came), log_softmax(2.0 * guess)
                sums["next_policy"].append(np.sum(np.exp(p) * (p - q)))
                cos = came @ guess / np.linalg.norm(came) / np.linalg.norm(guess)
                sums["spr"].append(2.0 - 2.0 * cos)
    for name, each in sums.items():
        np.testing.assert_allclose(losses[name], np.mean(each), rtol=1e-4, err_msg=name)


def test_weights_switch_what_learns():
    """Without their weights the heads of predictions have no gradient, and nothing else lacks one."""
    items = learned(LONE, "improvement")[0]
    gradients = {}
    for spr, model in ((1.0, 0.0), (0.0, 1.0)):
        config = SPRConfig(num_steps=2, weight=spr)
        planner = made(targets="improvement", spr=config, model_weight=model)
        gradients[spr] = jax.jit(jax.grad(lambda p, f=planner.loss: f(p, items)[0]))(first_params())

    def size(part, spr):
        return sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(gradients[spr].dynamics["params"][part]))

    assert size("projector", 1.0) > 0.0 == size("projector", 0.0)
    assert size("reward_output", 0.0) > 0.0 == size("reward_output", 1.0)
    assert size("listener", 1.0) > 0.0 < size("listener", 0.0)


def test_predictions_are_compared_with_what_came_in_the_same_episode():
    # One lane of four steps; the second ends the episode, by the clock or not.
    def of(terminated, truncated):
        column = lambda x: jnp.asarray(x, bool)[:, None]  # noqa: E731
        return followed(column(terminated), column(truncated), 2)

    ended = of([0, 1, 0, 0], [0, 0, 0, 0])
    np.testing.assert_array_equal(ended.is_alive[:, :], [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(ended.is_known[:, :], [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])
    cut = of([0, 0, 0, 0], [0, 1, 0, 0])
    np.testing.assert_array_equal(cut.is_alive, ended.is_alive)
    np.testing.assert_array_equal(cut.is_known, ended.is_alive)
    came = after(jnp.arange(8.0), 2, 4)  # two lanes, time first
    np.testing.assert_array_equal(came[1], [2, 3, 4, 5, 6, 7, 0, 0])
    np.testing.assert_array_equal(came[2], [4, 5, 6, 7, 0, 0, 0, 0])


def test_adapters_begin_as_what_was_pretrained():
    planner, pretrained = made(), first_params()
    given = planner_agents.Given(pretrained.network, pretrained.dynamics)
    tuned = planner_agents.beginning(planner, "lora", 2)
    params = jax.jit(tuned.init)(jax.random.key(1), given)

    @jax.jit
    def see(params):
        begun = planner.predictive.actor.init_carry(B)
        return planner.predictive.see(params, begun, jnp.ones((B, 2)), jnp.ones((B,), bool))[0]

    # It begins as what was pretrained, and its adapters are less than that.
    np.testing.assert_allclose(see(tuned.whole(params)), see(pretrained), rtol=1e-6)
    trees = params.network.adapters, pretrained.network
    sizes = [sum(x.size for x in jax.tree.leaves(tree)) for tree in trees]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": "ppo", "acts_by": "search"}, "acts_by: got 'search'"),
        ({"spr": SPRConfig(tau=0.5)}, "spr.tau: got 0.5"),
        ({"ppo": dataclasses.replace(CONFIG.ppo, anchor_weight=1.0)}, "anchor_weight: got 1"),
        ({"ppo": dataclasses.replace(CONFIG.ppo, num_steps=6, num_minibatches=2)}, "num_envs"),
    ],
    ids=["ppo_by_search", "tau", "anchor", "lanes"],
)
def test_a_configuration_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(CONFIG, **changes)


def test_actions_that_cannot_be_searched_among_are_refused():
    with pytest.raises(ValueError, match=r"num_samples: got 1 .*cannot be enumerated"):
        made(SEVERAL, num_samples=1)


PROBES = ("DelayedReward", "ObservedActionReward", "TimeLimitTrap")
TRAINED = SequencePlannerConfig(
    PPOConfig(
        num_envs=8,
        num_steps=8,
        num_updates=200,
        updates_per_chunk=200,
        num_epochs=2,
        num_minibatches=2,
        learning_rate=3e-3,
        discount=0.7,
        entropy_weight=0.0,
    ),
    SPRConfig(num_steps=2, weight=1.0),
    search=SearchConfig(num_simulations=4, value_range=1.0),
    projection_size=8,
)
WAYS = {"by policy": ("both", "policy"), "by search": ("improvement", "search")}


@functools.cache
def on_probes(way):
    """The agent, and parameters `[3, ...]` of a learner a probe, in turn in one program."""
    env = AnyProbe(PROBES, TimeLimitTrap={"cash": 2.0})
    targets, acts_by = WAYS[way]
    config = dataclasses.replace(TRAINED, targets=targets, acts_by=acts_by)
    planner = planner_agents.planner_of(env, config, TransformerConfig(width=16, num_layers=1, num_heads=2))
    loop = loops.on_policy(
        planner.agent, VectorEnv(env), optax.adam(3e-3), config.ppo, is_normalized=False, in_turn=True
    )
    lanes, size = loops.lanes(loop, in_turn=True), (len(PROBES), config.ppo.num_envs)
    tasks = jnp.broadcast_to(jnp.arange(size[0], dtype=jnp.int32)[:, None], size)
    state = parallel.first_state(*jax.jit(lanes.init)(jax.random.split(jax.random.key(0), size[0]), tasks))
    state, _ = parallel.chunked(lanes, config.ppo.updates_per_chunk, 1)(state, jax.random.key(1))
    return planner, state.learner.params


def thought(way, name, signal, action):
    """Of a first observation and an action: the value, its prior, its reward, the value after it."""
    planner, params = on_probes(way)
    params = jax.tree.map(lambda x: x[PROBES.index(name)], params)
    carry = planner.predictive.actor.init_carry(1)
    state, _ = planner.predictive.see(params, carry, jnp.array([[signal]]), jnp.ones(1, bool))
    value, samples = planner.propose(params, jax.random.key(0), state)
    reward, _, after = planner.imagine(params, jax.random.key(0), samples.actions[:, action], state)
    prior = jnp.exp(samples.log_policy[0])
    return (
        float(value[0]),
        float(prior[action]),
        float(reward[0]),
        float(planner.propose(params, None, after)[0][0]),
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_it_learns_what_is_worth_what(way):
    """Value, policy and predicted reward of the probes, and a trap that truncation must not spring."""
    value, _, reward, value_after = thought(way, "DelayedReward", 0.0, 0)
    np.testing.assert_allclose([value, reward, value_after], [TRAINED.ppo.discount, 0.0, 1.0], atol=0.15)
    for signal, good in ((-1.0, 0), (1.0, 1)):
        value, prior, reward, _ = thought(way, "ObservedActionReward", signal, good)
        assert min(value, prior, reward) > 0.8
        assert thought(way, "ObservedActionReward", signal, 1 - good)[2] < 0.5
    value, stays, *_ = thought(way, "TimeLimitTrap", 0.0, 0)
    assert stays > 0.8
    assert value > 2.3  # 3.3 where it stays for ever, 2 where it cashes
