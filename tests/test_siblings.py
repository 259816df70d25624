"""Beside folders of a user's own that are called as ours, the command works and an import says what is wrong."""

import subprocess
import sys


def test_a_package_of_a_name_of_ours_is_told_with_both_paths_and_the_fix(tmp_path):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("")
    (tmp_path / "script.py").write_text("import jaxagent\n")
    run = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: jaxagent: got the package 'envs' of {tmp_path / 'envs'}, expected ")
    assert "rename the folder" in last


def test_a_folder_without_a_package_and_the_command_are_no_trouble(tmp_path):
    for name in ("envs", "experiments"):
        (tmp_path / name).mkdir()
    (tmp_path / "script.py").write_text("import jaxagent, envs\nprint(len(envs.registered()) > 200)\n")
    run = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout == "True\n"
    (tmp_path / "experiments" / "__init__.py").write_text("")
    command = (
        "import sys; sys.path.pop(0); from experiments.cli import main; raise SystemExit(main(['list']))"
    )
    run = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0
    assert "experiment   quickstart" in run.stdout
