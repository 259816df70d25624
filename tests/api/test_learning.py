"""The front door: one call trains an agent, and its run is opened again."""

import concurrent.futures
import subprocess
import sys
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from front_door import as_users_run_it  # noqa: F401, it is used by all

import envs
import jaxagent
from envs import registry
from envs.common.names import UnknownName
from envs.registry import FAMILIES, missing_package
from envs.types import Component
from experiments import cli
from jaxagent.agents import actor_critic
from jaxagent.agents.recollection import Seen
from jaxagent.api.config import AGENTS, OFFLINE, RECIPES, recipe
from jaxagent.api.kinds import KINDS
from jaxagent.api.learning import load
from jaxagent.config import PPOConfig, RuntimeConfig
from jaxagent.data import store
from jaxagent.folders import NotOurs

TINY = {"num_envs": 4, "num_steps": 4, "num_updates": 4, "updates_per_chunk": 2, "hidden_size": 8}
CARTPOLE = "classic/CartPole-v1"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    return jaxagent.learn("ppo", CARTPOLE, seeds=2, episodes=2, out=out, quiet=True, **TINY)


@pytest.mark.parametrize(
    "part",
    [
        {"deterministic": True},
        {"optimization_level": 1},
        {"lanes_in_turn": True},
        {"needs_accelerator": True},
    ],
)
def test_what_a_running_process_cannot_obey_is_refused(part, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.raises(ValueError, match=f"RuntimeConfig.{next(iter(part))}: got"):
        jaxagent.learn("ppo", CARTPOLE, runtime=RuntimeConfig(**part), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_its_curve_is_a_picture(trained, tmp_path):
    for name in ("curve.png", "curve.svg"):
        content = trained.plot(tmp_path / "pictures" / name).read_bytes()
        assert content.startswith((b"\x89PNG", b"<?xml"))
    with pytest.raises(ValueError, match="not supported"):
        trained.plot(tmp_path / "curve.txt")


def test_its_play_is_recorded_whole_and_over_nothing(trained, tmp_path):
    assert len(store.read(trained.record(tmp_path / "play", episodes=2))) == 1
    with pytest.raises(NotOurs):
        trained.record(tmp_path / "play")


def test_a_tracker_that_is_asked_for_later_hears_all(trained):
    options = {"seeds": 2, "episodes": 2, "out": trained.folder, "quiet": True, **TINY}
    jaxagent.learn("ppo", CARTPOLE, logger="tensorboard", **options)
    assert list((trained.folder / "tensorboard").rglob("events.*"))


def test_its_policy_is_exported_and_opened(trained, tmp_path):
    policy = trained.policy(seed=1)
    opened = jaxagent.load(policy.export(tmp_path / "mine"))
    about = opened.description
    assert (about.arm, about.env, about.seed) == ("ppo", CARTPOLE, 1)
    assert about.returns == {"mean": trained.returns[1], "episodes": 2, "after": "64 env steps"}
    assert about.recipe["fit"]["num_updates"] == 4
    obs, is_first = jax.random.normal(jax.random.key(0), (8, 4)), jnp.ones(8, bool)
    expected, _ = policy.act(policy.init(8), obs, is_first, jax.random.key(1))
    action, _ = opened.act(opened.init(8), obs, is_first, jax.random.key(1))
    np.testing.assert_array_equal(action, expected)
    for place in (tmp_path / "mine", trained.folder):
        given = ["--policy", str(place), "--steps", "3", "--out", str(tmp_path / f"{place.name}.gif")]
        assert cli.main(["render", CARTPOLE, *given]) == 0


def test_a_result_has_a_curve_policies_and_a_page(trained):
    assert trained.curve["steps"].tolist() == [0, 32, 64]
    assert trained.curve["returns"].shape == (3, 2)
    np.testing.assert_array_equal(trained.returns, trained.curve["returns"][-1])
    page = trained.report.read_text()
    assert "<h1>ppo on classic/CartPole-v1</h1>" in page
    assert "No claims" not in page
    assert "num_updates=4" in page  # of the call, as it may be typed again
    assert "2 seeds" in repr(trained)
    policy = trained.policy(seed=1)
    action, _ = policy.act(policy.init(3), jnp.zeros((3, 4)), jnp.ones(3, bool), jax.random.key(0))
    assert action.shape == (3,)
    other = jax.tree.leaves(trained.policy(seed=0).params)
    assert not all(np.array_equal(x, y) for x, y in zip(other, jax.tree.leaves(policy.params), strict=True))
    again = trained.evaluate(episodes=2), trained.evaluate(episodes=2)
    assert again[0].shape == (2,)
    np.testing.assert_array_equal(*again)
    with pytest.raises(ValueError, match="got 5, expected one of"):
        trained.policy(seed=5)


def test_a_run_is_opened_again_and_is_not_another(trained, tmp_path):
    kept = load(trained.save(tmp_path / "kept"))
    np.testing.assert_array_equal(kept.returns, trained.returns)
    jax.tree.map(np.testing.assert_array_equal, kept.params, trained.params)
    settings = {"seeds": 2, "episodes": 2, "out": trained.folder, "quiet": True, **TINY}
    same = jaxagent.learn("ppo", CARTPOLE, **settings)  # finished, so nothing is trained
    assert same.summary == trained.summary
    with pytest.raises(NotOurs, match="of this call"):
        jaxagent.learn("ppo", CARTPOLE, **settings | {"learning_rate": 2e-3})
    with pytest.raises(NotOurs):
        load(tmp_path)


def test_the_command_line_trains_the_same(trained, tmp_path, capsys):
    flags = [text for name, value in TINY.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    out = tmp_path / "run"
    command = ["train", "ppo", CARTPOLE, "--seeds", "2", "--episodes", "2", "--out", str(out), *flags]
    assert cli.main(command) == 0
    assert "after the first" not in capsys.readouterr().out
    np.testing.assert_array_equal(load(out).returns, trained.returns)
    assert cli.main(["resume", str(out)]) == 0
    assert cli.main(["eval", str(out), "--episodes", "2"]) == 0
    assert "ppo" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("agent", "env", "changes", "said"),
    [
        ("ppoo", CARTPOLE, {}, "Did you mean ppo"),
        ("ppo", CARTPOLE, {"learning_rat": 1.0}, "learning_rate"),
        ("ppo", "classic/CartPol", {}, "CartPole-v1"),
        ("ppo", CARTPOLE, {"memory": "gruu"}, "gru"),
        ("sac", CARTPOLE, {}, "expected vectors and real actions for sac; take ppo"),
        ("sac", CARTPOLE, {"memory": "gru"}, "take ppo or pqn"),
        ("pqn", "classic/Pendulum-v1", {}, "one category of actions for pqn; take ppo"),
        ("rainbow", CARTPOLE, {}, "expected pictures"),
        ("muzero", "classic/Pendulum-v1", {}, "one category of actions for muzero"),
        ("ppo", "minatar/Breakout", {"memory": "gru"}, 'take memory "transformer"'),
        ("ppo", CARTPOLE, {"seeds": 0}, "SeedConfig.count"),
        ("ppo", CARTPOLE, {"seeds": [0, 1]}, "how many, or a SeedConfig"),
        ("ppo", CARTPOLE, {"change": {"lenth": 1.0}}, "length"),
        ("ppo", "probe/LegalActions", {}, "actions that are always legal for ppo"),
        ("pqn", "probe/LegalActions", {}, "actions that are always legal for pqn"),
        ("ppo", "pgx/tic_tac_toe", {}, "one player for ppo; of board games of two, take alphazero"),
        ("muzero", "pgx/2048", {}, "actions that are always legal"),
        ("ppo", "ale/pong", {}, "a pure environment for ppo"),
        ("ppo", "xminigrid/MiniGrid-Empty-5x5", {}, "pictures of numbers"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_runs(agent, env, changes, said):
    family = env.split("/")[0]
    if family in FAMILIES and missing_package(family):
        pytest.skip(f"{family} is not installed")
    with pytest.raises((ValueError, UnknownName), match=said):
        jaxagent.learn(agent, env, **changes)


def test_every_agent_has_a_recipe_and_a_kind():
    assert set(AGENTS) == set(RECIPES)
    assert {name.partition("-")[0] for name in AGENTS} == set(KINDS)
    for agent, table in RECIPES.items():
        for prefix in table:
            given = {"dataset": __file__} if agent in OFFLINE else {}
            assert recipe(agent, f"{prefix}X", **given).fit == table[prefix]
    assert recipe("ppo", "gymnax/Pendulum-v1").fit.discount == 0.95  # the longest beginning decides


def test_towers_see_pictures_each_with_its_own_eyes():
    moves = (Component("move", "category", cardinality=3),)
    judge = actor_critic.seeing((6, 6, 2), moves, PPOConfig(hidden_size=8), "board")
    params = judge.init(jax.random.key(0))
    boards = jax.random.uniform(jax.random.key(1), (5, 4, 6, 6, 2))
    seen = Seen(boards, jnp.zeros((5, 4), jnp.int32), (), jnp.zeros((5, 4), bool))

    def told(params):
        judgement = judge.judge(params, (), seen)
        return judgement.log_prob, judgement.value

    log_prob, value = told(params)
    assert log_prob.shape == value.shape == (5, 4)
    _, alone, _ = judge.act(params, (), boards[2], (), None, None)
    np.testing.assert_allclose(jnp.exp(alone), 1 / 3, atol=0.02)  # nearly uniform at first
    by_policy = jax.grad(lambda p: told(p)[0].sum())(params)
    by_value = jax.grad(lambda p: told(p)[1].sum())(params)
    sizes = [jax.tree.map(lambda x: float(jnp.abs(x).sum()), g) for g in (by_policy, by_value)]
    moved = [[sum(jax.tree.leaves(part)) > 0 for part in (g.actor_eyes, g.critic_eyes)] for g in sizes]
    assert moved == [[True, False], [False, True]]
    # Integers are pixels.
    pixels = (255 * boards).astype(jnp.uint8)
    grey = seen._replace(obs=pixels.astype(jnp.float32) / 255)
    np.testing.assert_allclose(
        judge.judge(params, (), seen._replace(obs=pixels)).value,
        judge.judge(params, (), grey).value,
        rtol=1e-5,
        atol=1e-6,
    )


SHORT = {"num_updates": 2, "updates_per_chunk": 1, "episodes": 2, "quiet": True}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "env", "changes"),
    [
        ("ppo", "minatar/Breakout", {}),
        ("ppo", "minatar/Breakout", {"memory": "transformer"}),
        ("ppo", "memory/RepeatFirst", {"memory": "lru"}),
        ("pqn", "memory/RepeatFirst", {"memory": "gru"}),
        ("sac", "classic/Pendulum-v1", {}),
        ("rainbow", "minatar/Breakout", {}),
        ("rainbow-spr", "minatar/Breakout", {}),
        ("muzero", CARTPOLE, {}),
    ],
)
def test_every_agent_trains(agent, env, changes):
    result = jaxagent.learn(agent, env, **SHORT, **changes)
    assert np.isfinite(result.returns).all()
    assert result.summary["recompiled_programs"] == 0


WALK = """
from envs.probes import ActionReward

class Walk(ActionReward):
    def render(self, state, params):
        raise NotImplementedError
"""


def test_environments_of_ones_own_are_trained_on(tmp_path, monkeypatch):
    (tmp_path / "walking.py").write_text(WALK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_own", {})  # an object stays registered
    monkeypatch.setattr(sys, "path", list(sys.path))
    flags = [text for name, value in TINY.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    assert cli.main(["train", "ppo", "walking:Walk", "--episodes", "2", "--out", "runs/walk", *flags]) == 0
    by_place = load(tmp_path / "runs" / "walk")
    assert not (by_place.folder / "pictures").exists()  # nobody draws it
    import walking

    options = {"episodes": 2, "quiet": True, **TINY}
    by_object = jaxagent.learn("ppo", walking.Walk(), change={"max_steps": 3}, out="runs/own", **options)
    assert by_object.config.env == "own/Walk"
    assert by_object.task.max_steps == 3
    assert by_object.returns.shape == by_place.returns.shape == (1,)
    # Another of its class has the same name, and is not that run.
    with pytest.raises(NotOurs, match="may be of another object"):
        jaxagent.learn("ppo", walking.Walk(), change={"max_steps": 3}, out="runs/own", **options)
    with pytest.raises(ValueError, match="a run on an object"):
        load("runs/own")
    with pytest.raises(UnknownName, match="max_steps"):
        jaxagent.learn("ppo", walking.Walk, change={"max_step": 3}, **options)


RESUMED = """
import jax, sys
from jaxagent.train import run
import jaxagent
if sys.argv[1] == "stop":
    run.Stop.exit_if_received = lambda self: sys.exit(3)  # after the first chunk
jaxagent.learn("ppo", "classic/CartPole-v1", seeds=2, episodes=2, out=sys.argv[2], quiet=True, **SETTINGS)
"""


SHELL = "from experiments.cli import main; raise SystemExit(main())"


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_from_python_and_from_the_shell(trained, tmp_path):
    program = RESUMED.replace("SETTINGS", repr(TINY))
    for name, how in (("a", ["-c", program, "go"]), ("b", ["-c", SHELL, "resume"])):
        out = str(tmp_path / name)
        stopped = subprocess.run([sys.executable, "-c", program, "stop", out], cwd=ROOT, check=False)
        assert stopped.returncode == 3
        assert not (tmp_path / name / "summary.json").exists()
        subprocess.run([sys.executable, *how, out], cwd=ROOT, check=True)
        np.testing.assert_array_equal(load(out).returns, trained.returns)


def test_a_thread_may_train(tmp_path):
    def train():
        with jax.debug_key_reuse(False):  # which is set by thread
            return jaxagent.learn("ppo", CARTPOLE, seeds=2, episodes=2, quiet=True, **TINY)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        result = pool.submit(train).result()
    film = result.render(tmp_path / "film.gif")
    assert film.read_bytes().startswith(b"GIF")
    with pytest.raises(ValueError, match=r"ends in \.gif"):
        result.render(tmp_path / "film.mp4")


class Corridor(gymnasium.Env):
    """Three steps to the right are worth 1; a user's own, of gymnasium's kind."""

    observation_space = gymnasium.spaces.Box(0.0, 3.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.place = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.place += int(action)
        return np.full(1, self.place, np.float32), float(self.place == 3), self.place == 3, False, {}


def test_gymnasium_trains_and_does_not_go_on(tmp_path):
    options = {
        "out": tmp_path / "run",
        "quiet": True,
        "seeds": 2,
        "episodes": 2,
        "learning_rate": 0.03,
        **TINY,
    }
    envs.register("mine/Corridor", Corridor)
    options |= {"num_updates": 40, "updates_per_chunk": 10, "num_steps": 8, "change": {"max_steps": 6}}
    result = jaxagent.learn("ppo", "mine/Corridor", **options)
    assert (result.returns == 1.0).all()
    assert not list(result.folder.glob("pictures/*.gif"))
    assert load(tmp_path / "run").returns.tolist() == [1.0, 1.0]
    for path in ("summary.json", "stages/train/done.json", "stages/evaluate/done.json"):
        (tmp_path / "run" / path).unlink()
    (tmp_path / "run" / "stages" / "train" / "checkpoints").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="got stage train half done"):
        jaxagent.learn("ppo", "mine/Corridor", **options)
    registry._own.pop("mine/Corridor")
