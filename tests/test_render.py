"""`jaxagent render`: random, expert and trained policies become pictures; what is wrong is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import envs
from envs.types import sample_action
from experiments import cli, render


def test_an_expert_is_played_into_a_gif(tmp_path, capsys):
    out = tmp_path / "deep" / "cartpole.gif"
    argv = ["render", "classic/CartPole-v1", "--policy", "expert", "--steps", "40"]
    assert cli.main([*argv, "--out", str(out)]) == 0
    with Image.open(out) as image:
        assert image.format == "GIF"
        assert image.n_frames > 20, "the expert keeps moving"
    assert str(out) in capsys.readouterr().out


def test_a_png_holds_the_last_frame(tmp_path):
    out = tmp_path / "board.png"
    assert cli.main(["render", "minatar/Breakout", "--steps", "3", "--out", str(out)]) == 0
    with Image.open(out) as image:
        assert image.format == "PNG"


def frames_of(env_id, name, num_steps, seed=0):
    env, params = envs.make(env_id)
    return render.play(render.Episode(env, params), render.policy(name, env, params), num_steps, seed)


def test_a_seed_fixes_the_film():
    first, again = (frames_of("classic/CartPole-v1", "random", 30) for _ in range(2))
    other = frames_of("classic/CartPole-v1", "random", 30, seed=1)
    assert len(first) > 30, "an end of an episode is shown too"
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(first) != len(other) or any(
        not np.array_equal(a, b) for a, b in zip(first, other, strict=True)
    )


def test_long_films_are_thinned_out():
    assert len(frames_of("classic/MountainCar-v0", "random", 199)) <= render.MAX_FRAMES


def test_a_policy_of_a_run_is_played(tmp_path, monkeypatch):
    """What `library.load` returns is called with a batch of one and its own memory."""
    env, params = envs.make("classic/CartPole-v1")
    seen = []

    class Loaded:
        description = type("About", (), {"env": env.name, "arm": "finetune", "task": "CartPole-v1"})

        def init(self, batch_size):
            assert batch_size == 1
            return np.zeros((1,), np.int32)

        def act(self, carry, obs, is_first, key):
            jax.debug.callback(lambda c, f: seen.append((int(c[0]), bool(f[0]))), carry, is_first)
            return sample_action(key, env.action_spec)[None], carry + 1

    monkeypatch.setattr(render.library, "available", lambda run: ["finetune--CartPole-v1"])
    monkeypatch.setattr(render.library, "load", lambda run, task, arm: Loaded())
    act = render._acting(render._trained(tmp_path, env), params)
    render.play(render.Episode(env, params), act, 40, 0)
    jax.effects_barrier()
    assert [c for c, _ in seen] == list(range(40))
    assert seen[0][1]
    assert 1 < sum(first for _, first in seen) < 10


def test_a_policy_is_filmed_on_the_task_that_it_learned(tmp_path, monkeypatch):
    about = {"env": "classic/CartPole-v1", "arm": "ppo", "task": "changed", "overrides": {"length": 1.25}}
    loaded = type("Loaded", (), {"description": type("About", (), about), "init": lambda self, size: ()})
    loaded.act = lambda self, carry, obs, is_first, key: (jnp.zeros(1, jnp.int32), carry)
    monkeypatch.setattr(render, "_policies", lambda run: [loaded()])
    lengths, play = [], render.play
    monkeypatch.setattr(render, "play", lambda e, *a: lengths.append(float(e.params.length)) or play(e, *a))
    assert render.render("classic/CartPole-v1", tmp_path / "film.gif", str(tmp_path), 3, 0) == 0
    assert lengths == [1.25]


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["probe/DelayedReward", "--policy", "expert"], "scripted expert"),
        (["classic/CartPole-v1", "--policy", "no/such/run"], "folder of a finished run"),
    ],
)
def test_what_is_wrong_is_said(argv, hint, capsys):
    assert cli.main(["render", *argv]) == cli.USAGE
    assert hint in capsys.readouterr().err


def test_a_run_without_the_task_is_refused(tmp_path, capsys):
    assert cli.main(["render", "classic/CartPole-v1", "--policy", str(tmp_path)]) == cli.USAGE
    assert "no policy of classic/CartPole-v1" in capsys.readouterr().err


def test_a_missing_extra_gives_its_pip_line(monkeypatch, capsys):
    monkeypatch.setattr(envs.registry, "missing_package", lambda family: "brax")
    assert cli.main(["render", "brax/hopper"]) == cli.USAGE
    assert "pip install 'jaxagent[brax]'" in capsys.readouterr().err
