"""The command line: what is wrong is said before JAX starts, with the nearest valid name."""

import contextlib
import dataclasses
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need

import experiments
from envs.common.names import UnknownName
from experiments import cli
from experiments.cli import grids, rooms
from experiments.quickstart import config as quickstart

ROOT = Path(__file__).parents[1]
GUARD = (
    "import sys\n"
    "class Guard:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name == 'jax': raise SystemExit('JAX was imported')\n"
    "sys.meta_path.insert(0, Guard())\n"
    "from experiments.cli import main\n"
    "raise SystemExit(main(sys.argv[1:]))\n"
)
BAD = [
    (["run", "quickstrat"], "quickstart"),
    (["run", "quickstart", "--preset", "cpuu"], "cpu"),
    (["run", "quickstart", "--preset", "paper"], "gpu"),
    (["run", "quickstart", "--pretrain.num-updatse", "3"], "num-updates"),
    (["run", "quickstart", "--model.width", "wide"], "wide"),
    (["run", "quickstart", "--model.width", "0"], "above 0"),
    (["run", "quickstart", "--model.width", "63"], "multiple"),
    (["run", "quickstart", "--pretrain.learning-rate", "nan"], "learning_rate"),
    (["run", "quickstart", "--pretrain.learning-rate", "-1"], "learning_rate"),
    (["run", "quickstart", "--pretrain.batch-size", "6"], "multiple of 4"),
    (["run", "quickstart", "--pretrain.num-updates", "150"], "chunks are whole"),
    (["run", "quickstart", "--pretrain.warmup-updates", "99999"], "shorten"),
    (["run", "quickstart", "--devices", "3"], "use 1, 2 or 4"),
    (["run", "quickstart", "--devices", "0"], "above 0"),
    (["run", "quickstart", "--tasks.0.env", "gymnax/CartPole-v2"], "CartPole-v1"),
    (["run", "quickstart", "--tasks.0.ppo.num-envs", "10"], "multiple of 4"),
    (["run", "quickstart", "--tasks.0.ppo.discount", "1.5"], "[0, 1]"),
    (["run", "quickstart", "--tasks.0.demonstrations", "0"], "above 0"),
    (["run", "quickstart", "--tokens.num-bins", "1"], "at least 2"),
    (["run", "quickstart", "--tokens.obs-bins", "mulaw"], "mu_law"),
    (["run", "quickstart", "--adapt.seeds.count", "0"], "above 0"),
    (["run", "quickstart", "--adapt.decoding", "greedy"], "argmax"),
    (["run", "alphazero", "--games.0.name", "conect_four"], "connect_four"),
    (["run", "alphazero", "--games.1.levels", "0", "4", "2"], "rising levels"),
    (["run", "alphazero", "--games.1.fit.num-envs", "6"], "multiple of 4"),
    (["run", "alphazero", "--games.0.fit.search.num-simulations", "0"], "above 0"),
    (["run", "alphazero", "--evaluation.games", "7"], "both sides"),
    (["run", "muzero", "--tasks.0.env", "gymnax/CartPole-v2"], "CartPole-v1"),
    (["run", "muzero", "--tasks.0.muzero.warmup-steps", "64"], "multiple of 128"),
    (["run", "muzero", "--tasks.0.muzero.num-td-steps", "60"], "more than unroll + num_td_steps"),
    (["run", "muzero", "--tasks.0.muzero.reanalyse", "1.5"], "[0, 1]"),
    (["run", "muzero", "--tasks.0.ppo.updates-per-chunk", "5"], "as many steps"),
    (["run", "plan", "--plan.simulations", "8", "4"], "rising numbers"),
    (["run", "plan", "--plan.num-samples", "1"], "at least 2"),
    (["run", "icl_bma", "--prompts.alpha", "0"], "above 0"),
    (["run", "icl_bma", "--prompts.num-steps", "33"], "positions of the model"),
    (["run", "icl_bma", "--prompts.num-tasks", "1000000000"], "memory"),
    (["run", "icl_rational", "--prompts.num-steps", "33"], "positions of the model"),
    (["run", "icl_rational", "--prompts.sizes", "8", "4"], "rising"),
    (["run", "memory", "--arms", "gru", "transfomer"], "transformer"),
    (["run", "memory", "--tasks.0.ppo.num-minibatches", "32"], "whole segments"),
    (["run", "reinforce", "--model.patch", "-1"], "at least 0"),
    (["run", "quickstart", "--tokens.values", "reals"], "expected bins"),
    (["run", "quickstart", "--tokens.granularity", "modality"], "expected component"),
    (["run", "pasta", "--tokens.values", "two_hot"], "--models.N"),
    (["run", "whole", "--tokens.values", "two_hot"], "expected bins"),
    (["run", "plan", "--tokens.values", "two_hot"], "expected bins"),
    (["run", "pasta", "--adapt.arms", "fulll"], "full"),
    (["run", "pasta", "--domains.0.env", "brax/hoper"], "brax/hopper"),
    (["run", "pasta", "--domains.0.demonstrations", "99"], "demonstration_episodes"),
    (["run", "pasta", "--models.0.domains", "hoper"], "hopper"),
    (["run", "pasta", "--models.0.held-out", "hoper"], "hopper"),
    (["run", "pasta", "--reward.td3-bc.batch-size", "6"], "multiple of 4"),
    (["run", "populations", "--only", "hoper"], "hopper"),
    (["run", "populations", "--num-agents", "1"], "at least 2"),
    (["resume", "no/such/run"], "manifest.json"),
    (["eval", "no/such/run"], "manifest.json"),
    (["report", "no/such/run"], "manifest.json"),
    (["compare", "no/such/run"], "at least two"),
    (["compare", "no/such/run", "no/such/other"], "manifest.json"),
    (["render", "minatar/Breakoutt"], "minatar/Breakout"),
    (["render"], "registered"),
    (["render", "classic/CartPole-v1", "--out", "a.mp4"], ".gif or .png"),
    (["render", "classic/CartPole-v1", "--steps", "0"], "at least 1"),
    (["doctor", "--fast"], "--fast"),
    (["fly"], "run"),
]


def test_a_preset_for_an_accelerator_is_refused_on_a_cpu(tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["run", "memory", "--preset", "gpu", "--out", str(out)]) == cli.FAILED
    assert "expected an accelerator; it was never run without one" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(("argv", "hint"), BAD, ids=lambda x: " ".join(x) if type(x) is list else "")
def test_bad_input_exits_2_and_helps(argv, hint):
    out = io.StringIO()
    with contextlib.redirect_stderr(out), contextlib.redirect_stdout(out):
        try:
            code = cli.main(argv)
        except SystemExit as error:
            code = error.code
    assert code == 2
    assert hint in " ".join(out.getvalue().replace("│", " ").split())  # out of the box that tyro draws


def test_bad_input_is_refused_before_jax_is_imported():
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", GUARD, "run", "quickstart", "--preset", "cpuu"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert "Did you mean cpu" in result.stderr
    assert time.perf_counter() - started < 20  # the promise is 2 s on an idle machine


def test_list_needs_no_jax():
    result = subprocess.run(
        [sys.executable, "-c", GUARD, "list"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=True,
    )
    assert "quickstart" in result.stdout
    assert "gymnax/CartPole-v1" in result.stdout


def presets():
    """Every preset of every experiment."""
    for name in rooms.names():
        yield from ((name, preset) for preset in rooms.room(name).config.PRESETS)


def preset_of(name, preset):
    return rooms.preset(rooms.room(name), preset)


@pytest.mark.parametrize(("name", "preset"), list(presets()))
def test_every_preset_is_legal_and_survives_json(name, preset):
    from jaxagent import config as configs

    config = preset_of(name, preset)
    configs.check(config)
    text = json.dumps(configs.to_dict(config))
    assert configs.from_dict(config, json.loads(text)) == config


@pytest.mark.parametrize(("name", "preset"), [x for x in presets() if x[0] not in ("pasta", "populations")])
def test_every_preset_builds_its_steps_and_claims(name, preset):
    """Those of robots build every body, which tests/slow and tests/parts do anyway."""
    from jaxagent.evaluate.claims import check_claims, check_preset

    if name == "alphazero":
        need("pgx")
    study = rooms.room(name).study(preset_of(name, preset))
    names = [step.name for step in study.steps]
    assert len(set(names)) == len(names) > 1
    check_preset(preset)
    check_claims(study.claims)
    assert study.arms
    assert all(curve.to_dict()["x_label"] for curve in study.curves)


def test_fingerprint_depends_on_every_field():
    from jaxagent.config import fingerprint

    config = quickstart.CPU
    other = dataclasses.replace(config, seed=1)
    assert fingerprint(config) != fingerprint(other)
    assert fingerprint(config) == fingerprint(dataclasses.replace(other, seed=0))


def test_unknown_config_fields_are_refused():
    from jaxagent.config import from_dict, to_dict

    values = to_dict(quickstart.CPU)
    values["pretrain"]["learning_rat"] = 1.0
    with pytest.raises(ValueError, match="learning_rat"):
        from_dict(quickstart.CPU, values)


@pytest.fixture
def outside(tmp_path, monkeypatch, capsys):
    """A room that lies outside this repository, as `jaxagent new` makes it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    place = tmp_path / "mypaper"
    assert cli.main(["new", str(place)]) == 0
    assert f"jaxagent run {place} --preset smoke" in capsys.readouterr().out
    yield place
    for name in [n for n in sys.modules if n.split(".")[0] == "mypaper"]:
        del sys.modules[name]


def test_a_room_outside_is_run_resumed_and_recorded(outside, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["run", str(outside), "--preset", "smoke", "--episodes", "1", "--out", str(out)]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["experiment"], manifest["source"]) == ("mypaper", str(outside))
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["arms"]) == {"ppo", "myopic"}
    assert summary["frozen"] == {
        "is_confirmed": False,
        "commit": None,
        "reason": "its claims were not frozen",
    }
    assert "exploratory: its claims were not frozen" in capsys.readouterr().out
    assert cli.main(["resume", str(out)]) == 0
    assert len(list((out / "pictures").iterdir())) == 2
    assert_its_arms_play_again(out, capsys)
    # Its seeds are development seeds, and too few to say what others could show.
    assert cli.main(["freeze", str(outside), "smoke", "--development", str(out)]) == cli.FAILED
    assert "expected claim seeds below 1000" in capsys.readouterr().err
    assert not (outside / "frozen").exists()
    (out / "summary.json").unlink()
    assert cli.main(["freeze", str(outside), "smoke", "--development", str(out)]) == cli.USAGE
    assert "got an unfinished run" in capsys.readouterr().err


def assert_its_arms_play_again(out, capsys):
    run, task = experiments.load(out), "CartPole-v1"
    assert run.players == [("ppo", task), ("myopic", task)]
    returns = run.evaluate("myopic", task, episodes=2)
    np.testing.assert_array_equal(returns, run.evaluate("myopic", task, episodes=2))
    policy = run.policy("myopic", task, seed=1001)
    action, _ = policy.act(policy.init(3), jnp.zeros((3, 4)), jnp.ones(3, bool), jax.random.key(0))
    assert action.shape == (3,)
    assert (policy.description.seed, policy.description.arm) == (1001, "myopic")
    with pytest.raises(ValueError, match=r"seed: got 7, expected one of \[1000, 1001\]"):
        run.policy("ppo", task, seed=7)
    with pytest.raises(UnknownName, match="Did you mean ppo"):
        run.evaluate("pp", task)
    assert cli.main(["eval", str(out), "--episodes", "2"]) == 0
    assert f"myopic, {task}" in capsys.readouterr().out


def test_a_new_room_says_nothing_of_the_example_and_overwrites_nothing(outside, tmp_path, capsys):
    text = "".join((outside / name).read_text() for name in ("config.py", "study.py"))
    assert "example" not in text
    assert "BELIEF" not in text
    assert "from mypaper.config import Config, TaskConfig" in text
    for place, hint in ((outside, "Name a new folder"), (tmp_path / "json", "rename the folder")):
        assert cli.main(["new", str(place)]) == cli.USAGE
        assert hint in capsys.readouterr().err


def test_a_room_under_the_name_of_another_module_is_refused(outside, capsys):
    taken = outside.rename(outside.with_name("json"))
    assert cli.main(["run", str(taken), "--preset", "smoke"]) == cli.USAGE
    assert "rename the folder" in capsys.readouterr().err


def test_a_folder_without_a_room_is_refused(tmp_path, capsys):
    assert cli.main(["run", str(tmp_path / "nothing")]) == cli.USAGE
    assert "config.py and study.py" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_counts_operations_and_memory(capsys):
    assert cli.main(["run", "example", "--preset", "smoke", "--dry-run"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("train/")]
    assert [row[0] for row in rows] == ["train/CartPole-v1/ppo", "train/CartPole-v1/myopic"]
    # 2 x (4 * 64 + 64 * 64 + heads) weights; two lanes.
    assert all(float(row[3]) > 0 for row in rows)


def leaves(config, path=""):
    """Flags of all fields of a configuration."""
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), f"{path}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{flag}.")
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for i, part in enumerate(value):
                yield from leaves(part, f"{flag}.{i}.")
        else:
            yield flag


def test_help_behind_a_name_lists_every_field_and_the_presets(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "memory", "--preset", "smoke", "--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    room = rooms.room("memory").config
    assert all(name in told for name in room.PRESETS)
    missing = [flag for flag in leaves(room.PRESETS["smoke"]) if flag not in told]
    assert not missing
    assert cli.main(["run", "--help"]) == 0
    assert "--preset" in capsys.readouterr().out


def test_who_names_no_preset_gets_one_of_real_size():
    assert rooms.default_preset(rooms.room("memory")) == "cpu"
    assert rooms.default_preset(rooms.room("atari100k")) == "gpu-short"
    for name in rooms.names():
        assert rooms.default_preset(rooms.room(name)) in rooms.room(name).config.PRESETS


def test_a_reader_who_has_seen_enough_gets_no_traceback():
    command = f"{sys.executable} -c 'from experiments.cli import main; main()' list | head -1"
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert "experiment" in result.stdout
    assert result.stderr == ""


def test_any_experiment_is_ablated_by_its_fields(capsys):
    grid = ["tasks.0.ppo.learning_rate=1e-3,2e-3", "episodes=1,2"]
    assert cli.main(["ablate", "example", "--preset", "smoke", *grid, "--dry-run"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split("]")[1].split(":")[0].strip() for line in told[:-1]] == [
        "baseline",  # 1e-3 and 2 are what the preset has
        "tasks.0.ppo.learning_rate=1e-3 episodes=1",
        "tasks.0.ppo.learning_rate=2e-3 episodes=1",
        "tasks.0.ppo.learning_rate=2e-3 episodes=2",
    ]
    assert "tasks.0.ppo.learning_rate 0.001 -> 0.002; episodes 2 -> 1" in told[2]
    assert "GFLOP" in told[0]


def test_cells_that_differ_have_folders_that_differ(tmp_path):
    names = ["a=1e+3", "a=1e-3", "a=1e3 b=2"]
    assert len({grids.folder_of(tmp_path, name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], "expected FIELD=A,B"),
        (["episodes="], "name a field and its values"),
        (["episodes=1,1"], "each name once"),
        (["episodes=1", "episodes=2"], "each name once"),
        (["episodes=0"], "above 0"),
        (["episode=1"], "episodes"),
    ],
    ids=["none", "empty", "twice", "field_twice", "illegal", "unknown"],
)
def test_a_grid_that_cannot_be_is_refused(changes, said, capsys):
    try:
        code = cli.main(["ablate", "example", "--preset", "smoke", *changes, "--dry-run"])
    except SystemExit as end:
        code = end.code
    assert code == cli.USAGE
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
