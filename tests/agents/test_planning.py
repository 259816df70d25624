"""Planning with the true rules: tactics by hand, signs of two players, ends, masks, matches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need

import envs
from envs.experts import expert
from envs.vector import broadcast_params
from envs.wrappers import self_play
from envs.wrappers.wrapper import WrappedParams, WrappedState
from jaxagent.agents import planning
from jaxagent.agents.alphazero import explore, value_targets
from jaxagent.config import SearchConfig, TrunkConfig
from jaxagent.evaluate.episodes import play
from jaxagent.evaluate.matches import opening_moves, opposed, play_match, points
from jaxagent.nn.policy_value import policy_value
from jaxagent.types import Policy, Trajectory, View

SEARCH = SearchConfig(num_simulations=48, num_considered=9)
PLANS = {
    "gumbel": planning.gumbel_search(SEARCH, gumbel_scale=0.0),
    "puct": planning.puct_search(SEARCH, temperature=0.0, dirichlet_fraction=0.0),
}


def flat_network(params, obs):
    """Knows nothing: every move alike, every state a draw."""
    del params
    return jnp.zeros((obs.shape[0], 9)), jnp.zeros((obs.shape[0],))


@functools.cache
def game():
    need("pgx")
    return envs.make("pgx/tic_tac_toe")


def after(*moves):
    """The view of one lane after `moves`."""
    env, task = game()
    obs, state = env.reset(jax.random.key(0), task)
    for move in moves:
        obs, state, *_ = env.step(jax.random.key(0), state, jnp.int32(move), task)
    return jax.tree.map(lambda x: jnp.asarray(x)[None], View(obs, state, task))


@functools.cache
def decider(plan):
    """Decisions in the game of two and in self-play, which agree; one program a plan."""
    env, alone = game()[0], self_play(*game())[0]

    def both(view, key):
        decide = lambda env, view: planning.decide(  # noqa: E731
            env, flat_network, PLANS[plan], 1.0, None, view, jax.random.clone(key)
        )
        return decide(env, view), decide(alone, in_self_play(view))

    return jax.jit(both)


def in_self_play(view):
    """The same view of the wrapped game."""
    return View(view.obs, WrappedState(view.state, ()), WrappedParams(view.task, ()))


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    ("moves", "best", "value"),
    [
        ((0, 3, 1, 4), 2, 1.0),  # completes the upper row
        ((0, 3, 8, 4), 5, None),  # blocks the middle row
        ((4, 0, 8, 1), 2, None),  # blocks the upper row
        ((0, 4, 8, 2, 6), None, None),  # two threats: lost, and search knows
    ],
)
def test_tactics(plan, moves, best, value):
    """A network that knows nothing, and search: it wins in one and blocks."""
    found, alone = decider(plan)(after(*moves), jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, found, alone)
    if best is None:
        assert int(found.action[0]) in (3, 7)
        assert float(found.value[0]) < -0.3
        return
    assert int(found.action[0]) == best
    if value is not None:
        assert float(found.value[0]) > (0.7 if plan == "puct" else 0.3)  # Gumbel's mean has all moves
    weights = np.asarray(found.weights[0])
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-5)
    assert not weights[list(moves)].any()  # a square that is taken has no weight


@pytest.mark.slow
def test_a_wrong_sign_helps_the_opponent():
    """The saboteur: with the discount's sign turned, search leaves the block undone."""
    env, _ = self_play(*game())
    view = in_self_play(after(0, 3, 8, 4))
    found = planning.decide(env, flat_network, PLANS["gumbel"], -1.0, None, view, jax.random.key(1))
    assert int(found.action[0]) != 5


@pytest.mark.slow
def test_without_search_the_network_plays():
    def leaning(params, obs):
        del params
        logits = jnp.broadcast_to(jnp.arange(9, dtype=jnp.float32), (obs.shape[0], 9))
        return logits, jnp.full((obs.shape[0],), 0.25)

    env, _ = game()
    policy = planning.planner(env, leaning, planning.no_search(is_greedy=True), discount=1.0)
    action, _, _ = policy.act(None, (), after(8, 0), jnp.ones((1,), bool), jax.random.key(0))
    assert int(action[0]) == 7  # 8 is taken
    drawn = planning.planner(env, leaning, planning.no_search(is_greedy=False), discount=1.0)
    many = jax.tree.map(lambda x: jnp.repeat(x, 512, axis=0), after(8, 0))
    action, _, _ = drawn.act(None, (), many, jnp.ones((512,), bool), jax.random.key(0))
    assert set(np.unique(action)) <= set(range(1, 8))
    assert len(np.unique(action)) > 3


# --- self-play ------------------------------------------------------------------------------------


def test_self_play_pays_the_mover():
    env, task = self_play(*game())
    _, state = env.reset(jax.random.key(3), task)
    rewards = []
    for move in (0, 3, 1, 4, 2):
        _, state, reward, terminated, *_ = env.step(jax.random.key(0), state, jnp.int32(move), task)
        rewards.append(float(reward))
    assert rewards == [0, 0, 0, 0, 1]
    assert bool(terminated)
    assert env.num_players == 1
    with pytest.raises(ValueError, match="expected 2; self-play"):
        self_play(*envs.make("classic/CartPole-v1"))


def test_value_targets_by_hand():
    """Lane 0: the second mover wins, then a game goes on. Lane 1: one player, cut by a clock."""
    column = lambda *x: jnp.array(x, jnp.float32)[:, None]  # noqa: E731
    reward = jnp.concatenate([column(0, 1, 0, 0), column(1, 2, 3, 4)], axis=1)
    terminated = jnp.array([[0, 0], [1, 0], [0, 0], [0, 0]], bool)
    truncated = jnp.array([[0, 0], [0, 1], [0, 0], [0, 0]], bool)
    player = jnp.array([[0, 0], [1, 0], [1, 0], [0, 0]], jnp.int32)
    value = jnp.array([[0.1, 10], [0.2, 20], [0.3, 30], [0.4, 40]], jnp.float32)
    trajectory = Trajectory(
        obs=(),
        action=(),
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        final_obs=(),
        extras={"player": player, "value": value, "is_explored": jnp.zeros((4, 2), bool)},
    )
    targets, is_known = value_targets(trajectory, discount=1.0, trace=1.0)
    np.testing.assert_allclose(targets[:, 0], [-1, 1, -0.4, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(is_known[:, 0], [True, True, True, False])
    np.testing.assert_allclose(targets[:, 1], [21, 20, 43, 40], rtol=1e-6)
    np.testing.assert_array_equal(is_known[:, 1], [True, False, True, False])
    targets, _ = value_targets(trajectory, discount=0.5, trace=0.0)
    np.testing.assert_allclose(targets[:, 0], [-0.1, 1, -0.2, 0.4], rtol=1e-6)
    # The winning move was not the search's: nothing is learned from what it brought.
    explored = jnp.zeros((4, 2), bool).at[1, 0].set(True)
    cut = trajectory._replace(extras=trajectory.extras | {"is_explored": explored})
    targets, is_known = value_targets(cut, discount=1.0, trace=1.0)
    np.testing.assert_allclose(targets[:2, 0], [-0.2, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(is_known[:2, 0], [True, False])


def test_a_share_of_moves_is_explored_and_legal():
    legal = jnp.zeros((4000, 9), bool).at[:, 2:5].set(True)
    searched = jnp.full((4000,), 2, jnp.int32)
    action, explored = explore(jax.random.key(0), searched, legal, 0.25)
    assert abs(float(explored.mean()) - 0.25) < 0.03
    np.testing.assert_array_equal(np.asarray(action)[~np.asarray(explored)], 2)
    drawn, counts = np.unique(np.asarray(action)[np.asarray(explored)], return_counts=True)
    np.testing.assert_array_equal(drawn, [2, 3, 4])
    assert counts.min() > 0.25 * counts.sum()
    assert not explore(jax.random.key(0), searched, legal, 0.0)[1].any()


# --- matches --------------------------------------------------------------------------------------


def rule():
    return planning.scripted(lambda key, state, task: expert("pgx/tic_tac_toe")(state, task))


def random_player():
    env, _ = game()

    def choose(key, state, task):
        legal = env.legal_actions(state, task)
        return jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf)).astype(jnp.int32)

    return planning.scripted(choose)


def match(first, second, num_games=32, seed=0):
    env, task = game()
    tasks = broadcast_params(task, num_games)
    run = jax.jit(lambda key: play_match(env, (first, second), ((), ()), tasks, key))
    return run(jax.random.key(seed))


def test_a_rule_against_itself_gives_mirrored_results():
    """Sides are changed within each pair, so what one lane wins the other loses."""
    results = np.asarray(match(rule(), rule()).returns)
    np.testing.assert_array_equal(results[::2], -results[1::2])


@pytest.mark.slow
def test_a_rule_beats_random_play_from_either_side():
    games = match(rule(), random_player(), num_games=64)
    results = np.asarray(games.returns)
    assert results[::2].mean() > 0.7
    assert results[1::2].mean() > 0.7
    swapped = np.asarray(match(random_player(), rule(), num_games=64).returns)
    assert swapped.mean() < -0.7
    assert ((np.asarray(games.lengths) >= 5) & (np.asarray(games.lengths) <= 9)).all()


def test_points_of_results():
    np.testing.assert_array_equal(points(jnp.array([1.0, 0.0, -1.0, -3.0])), [1, 0.5, 0, 0])


def test_an_odd_number_of_games_is_refused():
    with pytest.raises(ValueError, match="even number of games"):
        match(rule(), rule(), num_games=3)


def test_the_side_to_move_acts():
    """`opposed` asks both; the first policy is the player of its seat."""
    env, _ = game()
    constant = lambda move: Policy(  # noqa: E731
        lambda batch_size: (),
        lambda params, carry, view, is_first, key: (
            jnp.full((view.obs.shape[0],), move, jnp.int32),
            (),
            carry,
        ),
    )
    both = jax.tree.map(lambda *x: jnp.concatenate(x), after(0), after(0, 1))
    pair = opposed(env, constant(7), constant(8), jnp.array([0, 0], jnp.int32))
    action, _, _ = pair.act(((), ()), ((), ()), both, jnp.ones((2,), bool), jax.random.key(0))
    player = np.asarray(jax.vmap(env.current_player)(both.state))
    assert player[0] != player[1]
    np.testing.assert_array_equal(action, np.where(player == 0, 7, 8))


@pytest.mark.slow
def test_openings_are_drawn_legal_and_the_same_for_both_lanes_of_a_pair():
    env, task = game()
    first = Policy(  # always the first legal cell
        lambda batch_size: (),
        lambda params, carry, view, is_first, key: (
            jnp.argmax(jax.vmap(env.legal_actions)(view.state, view.task), -1).astype(jnp.int32),
            (),
            carry,
        ),
    )
    policy = opening_moves(env, first, 2)
    keys = jax.random.split(jax.random.key(0), 32)
    obs, state = jax.vmap(env.reset, (0, None))(jnp.repeat(keys, 2), task)
    tasks, carry = broadcast_params(task, 64), policy.init(64)
    moves = []
    for number in range(4):
        view = View(obs, state, tasks)
        legal = np.asarray(jax.vmap(env.legal_actions)(state, tasks))
        act = jax.jit(policy.act)
        action, _, carry = act((), carry, view, jnp.ones((64,), bool), jax.random.key(number))
        assert legal[np.arange(64), action].all()
        np.testing.assert_array_equal(action[::2], action[1::2])
        moves.append(np.asarray(action))
        if number >= 2:
            np.testing.assert_array_equal(action, legal.argmax(-1))
        step_keys = jax.random.split(jax.random.key(9), 64)
        obs, state, *_ = jax.vmap(env.step)(step_keys, state, action, tasks)
    assert len(np.unique(moves[0])) > 6
    assert len(np.unique(moves[1])) > 6


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("channels", [0, 4])
def test_the_network_begins_uniform_and_bounded(channels):
    trunk = TrunkConfig(channels=channels, width=8, num_blocks=1)
    network = policy_value(trunk, (3, 3, 2), 9, is_bounded=True)
    params = network.init(jax.random.key(0))
    obs = jax.random.normal(jax.random.key(1), (5, 3, 3, 2))
    logits, value = network(params, obs)
    assert (logits.shape, value.shape) == ((5, 9), (5,))
    np.testing.assert_allclose(jax.nn.softmax(logits), 1 / 9, atol=0.02)
    assert (np.abs(value) < 0.2).all()
    scaled = jax.tree.map(lambda x: 100.0 * x, params)
    assert (np.abs(network(scaled, obs)[1]) <= 1.0).all()
    with pytest.raises(ValueError, match=r"a board \[H, W, C\]"):
        policy_value(TrunkConfig(channels=4), (7,), 2, is_bounded=False)


@pytest.mark.slow
def test_planning_with_the_true_model_of_one_player():
    """A constant pole falls in 10 steps; a dozen simulations ahead it stands longer."""
    env, task = envs.make("classic/CartPole-v1")
    tasks = broadcast_params(task, 8)

    def blind(params, obs):
        del params
        return jnp.zeros((obs.shape[0], 2)), jnp.zeros((obs.shape[0],))

    def mean_return(plan):
        policy = planning.planner(env, blind, plan, discount=0.99)
        run = jax.jit(lambda key: play(env, policy, None, tasks, key, View).returns)
        return float(run(jax.random.key(0)).mean())

    search = planning.gumbel_search(SearchConfig(num_simulations=48), gumbel_scale=0.0)
    assert mean_return(planning.no_search(is_greedy=True)) < 12
    assert mean_return(search) > 30


@pytest.mark.parametrize(("value_range", "chosen"), [(0.0, 1), (1.0, 0)], ids=["stretched", "as they are"])
def test_a_gap_of_a_thousandth_overturns_a_firm_prior_only_where_values_are_stretched(value_range, chosen):
    """Two moves, of which the one with 2 % of the prior is worth 0.001 more."""
    logits = jnp.log(jnp.array([[0.98, 0.02]]))

    def model(params, key, action, embedding):
        ends = jnp.zeros(action.shape)
        output = planning.mcts.RecurrentFnOutput(
            reward=0.001 * action.astype(jnp.float32), discount=ends, prior_logits=logits, value=ends
        )
        return output, embedding

    root = planning.mcts.RootFnOutput(prior_logits=logits, value=jnp.zeros((1,)), embedding=jnp.zeros((1,)))
    search = planning.gumbel_search(SearchConfig(8, value_range=value_range), gumbel_scale=0.0)
    decision = search(None, jax.random.key(0), root, model, None)
    assert int(decision.action[0]) == chosen
    assert (decision.weights[0, 0] > 0.9) == (chosen == 0)
