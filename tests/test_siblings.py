"""Beside folders of a user's own under names of ours: the command works, an import says what is wrong."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("has_init", [True, False])
def test_a_folder_of_a_name_of_ours_is_told_with_both_paths_and_the_fix(tmp_path, has_init):
    """Without `__init__.py` it hides an editable installation alone; then it is told, too."""
    (tmp_path / "envs").mkdir()
    if has_init:
        (tmp_path / "envs" / "__init__.py").write_text("")
    (tmp_path / "script.py").write_text("import jaxagent, envs\nprint(len(envs.registered()) > 200)\n")
    run = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    if not has_init and run.returncode == 0:
        assert run.stdout == "True\n"
        return
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: jaxagent: got the package 'envs' of {tmp_path / 'envs'}, expected ")
    assert "rename the folder" in last


def test_a_module_of_a_name_of_ours_is_told_too(tmp_path):
    (tmp_path / "envs.py").write_text("")
    (tmp_path / "script.py").write_text("import jaxagent\n")
    run = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert f"got the package 'envs' of {tmp_path / 'envs.py'}" in run.stderr


def test_the_command_works_beside_them(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("")
    command = (
        "import sys; sys.path.pop(0); from experiments.cli import main; raise SystemExit(main(['list']))"
    )
    run = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0
    assert "experiment   quickstart" in run.stdout
