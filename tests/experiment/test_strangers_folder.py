"""Files beside a recipe that nothing names are not run, or `check` names them."""

import base64
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from small_experiments import write_recipe

import nni_spos
from nni_spos.errors import RecipeError
from nni_spos.experiment.reachable import NUM_NAMED, check_code_directory, reachable_warnings
from nni_spos.process import import_path

OPTIONAL = ["python_socks", "org", "yaml", "schema"]
"""Modules that are looked for: some are optional for what NNI imports, others are needed."""

ROOT = Path(nni_spos.__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    """A recipe with files of such names beside it, each of which says that it was run."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    write_recipe(folder)
    for name in OPTIONAL:
        (folder / f"{name}.py").write_text(
            f"open({str(tmp_path / name)!r}, 'w')\nraise ImportError"
        )
    return folder


def was_run(folder):
    return [name for name in OPTIONAL if (folder.parent / name).exists()]


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **more}


@pytest.mark.spawn
def test_the_tuner_runs_none(folder, tmp_path):
    with socket.socket() as unused:  # bound, but nobody listens
        unused.bind(("127.0.0.1", 0))
        tuner = {"className": "nni_spos.experiment.tuner.EvolutionTuner",
                 "codeDirectory": str(folder), "classArgs": {"recipe": "recipe.yml"}}  # fmt: skip
        packed = base64.b64encode(json.dumps({"tuner": tuner}).encode()).decode()
        log = tmp_path / "log"
        log.mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "nni", "--exp_params", packed],
            cwd=log,
            env=environment(
                SDK_PROCESS="dispatcher",
                NNI_MODE="start",
                NNI_CHECKPOINT_DIRECTORY=str(log),
                NNI_LOG_DIRECTORY=str(log),
                NNI_LOG_LEVEL="info",
                NNI_INCLUDE_INTERMEDIATE_RESULTS="false",
                NNI_TUNER_COMMAND_CHANNEL=f"ws://127.0.0.1:{unused.getsockname()[1]}/tuner",
            ),
            capture_output=True,
            text=True,
            check=False,
        )
    assert "Connection" in done.stderr, "it was to try to reach its manager"
    assert was_run(folder) == []


@pytest.mark.spawn
def test_commands_run_none(folder):
    command = [sys.executable, "-m", "nni_spos.cli", "profile", "recipe.yml", "--path", "none.json"]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, was_run(folder)) == (2, []), done.stderr


@pytest.mark.parametrize(
    ("command", "left"),
    [
        (["python", "-m", "nni_spos.cli", "trial"], True),
        (["python", "-W", "ignore", "-m", "nni_spos.worker.service"], True),
        (["python", "-m", "pytest", "nni_spos"], False),
        (["python", "-m", "nni_spos_of_mine"], False),
        (["python", "-c", "import nni_spos"], False),
        (["python", "my_trial.py", "-m", "x"], False),
    ],
)
def test_the_working_directory_is_left_where_it_is_not_asked_for(
    monkeypatch, tmp_path, command, left
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), "/another"])
    import_path.leave_working_directory(command)
    assert sys.path == (["/another"] if left else [str(tmp_path), "/another"])
    import_path.leave_working_directory(command)
    assert "/another" in sys.path, "it is no working directory"


def test_a_folder_is_left_that_was_appended(monkeypatch):
    monkeypatch.setattr(sys, "path", ["/a", "/b", "/a"])
    import_path.leave_folder("/b")
    assert sys.path == ["/a", "/b", "/a"]
    import_path.leave_folder("/a")
    assert sys.path == ["/a", "/b"], "the first was there before"


def config(folder, command):
    return {"trainingService": {"trialCodeDirectory": str(folder)}, "trialCommand": command}


def test_check_names_what_python_would_find(folder):
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    (folder / "results").mkdir()
    (folder / "fast.so").touch()
    (folder / "my_trial.py").touch()
    [warning] = reachable_warnings(config(folder, "python3 my_trial.py"), "spos.yml")
    named = "fast.so, org.py, package, python_socks.py, schema.py, yaml.py"
    assert warning.startswith("spos.yml: trialCommand: Python looks for every module in ")
    assert warning.endswith(f"There are {named}.")
    [warning] = reachable_warnings(config(folder, "python -m nni_spos.cli trial r.yml"), "spos.yml")
    assert "my_trial.py" in warning
    for number in range(NUM_NAMED):
        (folder / f"zz{number}.py").touch()
    [warning] = reachable_warnings(config(folder, "python my_trial.py"), "spos.yml")
    assert warning.endswith("zz3.py and 6 more.")


def test_check_says_nothing_where_there_is_nothing(folder, tmp_path):
    assert reachable_warnings(config(folder, "nni-spos trial recipe.yml"), "spos.yml") == []
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "my_trial.py").touch()
    assert reachable_warnings(config(tmp_path, "python own/my_trial.py x"), "spos.yml") == []
    assert reachable_warnings(config(tmp_path / "own", "unclosed '"), "spos.yml") == []


@pytest.mark.parametrize("name", ["nni_spos.py", "nni_spos/__init__.py"])
def test_another_package_of_this_name_is_refused(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    with pytest.raises(RecipeError, match=r"codeDirectory: .*nni_spos.* the name of this package"):
        check_code_directory(tmp_path, "spos.yml")
    check_code_directory(ROOT, "spos.yml")
    check_code_directory(tmp_path / "absent", "spos.yml")
