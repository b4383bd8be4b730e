"""Configurations whose trials run on other machines: what is refused, with its neighbours."""

import json

import pytest
import yaml
from small_experiments import SPACE, save_table, write_recipe

from nni_spos.errors import CheckpointError, ExperimentError, RecipeError
from nni_spos.experiment import start as start_module
from nni_spos.experiment.check import check_config
from nni_spos.experiment.start import ManagerOptions, start


@pytest.fixture
def write(tmp_path):
    """Write a configuration of two machines; keys of the first one, and others, can be given."""
    write_recipe(tmp_path)
    (tmp_path / "output" / "supernet.pt").touch()
    (tmp_path / "space.json").write_text(json.dumps(SPACE.to_search_space()))
    (tmp_path / "key").touch()
    (tmp_path / "code").mkdir()

    def write(drop=(), machine=None, service=None, **changes):
        machines = [
            {"host": f"192.0.2.{i}", "user": "spos", "sshKeyFile": str(tmp_path / "key")}
            for i in (11, 12)
        ]
        machines[0].update(machine or {})
        config = {
            "searchSpaceFile": "space.json",
            "trialCommand": "nni-spos trial recipe.yml",
            "trialCodeDirectory": ".",
            "trialConcurrency": 4,
            "nniManagerIp": "192.0.2.10",
            "tuner": {
                "className": "nni_spos.experiment.tuner.EvolutionTuner",
                "codeDirectory": ".",
                "classArgs": {"recipe": "recipe.yml"},
            },
            "trainingService": {"platform": "remote", "machineList": machines, **(service or {})},
            **changes,
        }
        config = {key: value for key, value in config.items() if key not in drop}
        file = tmp_path / "remote.yml"
        file.write_text(yaml.safe_dump(config))
        return file

    return write


def test_a_good_configuration(write):
    checked = check_config(write())
    assert checked.num_candidates == 18
    assert checked.warnings == ()
    here = {"nniManagerIp": "192.0.2.10"}
    assert check_config(write(drop=["nniManagerIp"], service=here)).warnings == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": ["nniManagerIp"]}, "the key 'nniManagerIp' is missing. Give the address"),
        ({"service": {"machineList": []}}, "NNI does not accept it: .*at least one machine"),
        ({"machine": {"sshKeyFile": "nowhere"}}, "NNI does not accept it: .*SSH key file"),
        ({"service": {"reuseMode": True}}, "reuseMode is not supported"),
        ({"trialGpuNumber": 1}, "maxTrialNumberPerGpu: 1, NNI 3.0 hangs"),
        (
            {"trialGpuNumber": 1, "machine": {"maxTrialNumberPerGpu": 2}},
            "maxTrialNumberPerGpu: 1, NNI 3.0 hangs",
        ),
        (
            {"trialCommand": "nni-spos trial ../recipe.yml", "trialCodeDirectory": "code"},
            "recipe.yml is outside of trialCodeDirectory",
        ),
    ],
)
def test_what_is_refused(write, capsys, changes, message):
    with pytest.raises(RecipeError, match=message):
        check_config(write(**changes))
    assert capsys.readouterr() == ("", ""), "NNI has warnings of its own"
    check_config(write())


def test_gpus_of_all_machines(write):
    checked = check_config(write())
    machines = checked.config["trainingService"]["machineList"]
    shared = [{**machine, "maxTrialNumberPerGpu": 2} for machine in machines]
    for machine in shared:
        machine.pop("gpuIndices", None)
    assert check_config(write(trialGpuNumber=1, service={"machineList": shared})).warnings == ()


def test_a_latency_table_must_be_copied_too(write, tmp_path):
    write_recipe(tmp_path / "code")
    with open(tmp_path / "code" / "recipe.yml", "a") as recipe:
        recipe.write("latency: [../latency_cpu.json]\n")
    save_table(tmp_path / "latency_cpu.json")
    tuner = {
        "className": "nni_spos.experiment.tuner.EvolutionTuner",
        "codeDirectory": "code",
        "classArgs": {"recipe": "recipe.yml"},
    }
    (tmp_path / "code" / "output" / "supernet.pt").touch()
    with pytest.raises(RecipeError, match=r"latency_cpu\.json is outside of trialCodeDirectory"):
        check_config(write(tuner=tuner, trialCodeDirectory="code"))
    inside = write(
        tuner=tuner, trialCodeDirectory=".", trialCommand="nni-spos trial code/recipe.yml"
    )
    assert check_config(inside).warnings == ()


def test_a_recipe_that_is_on_the_machines_anyway(write, tmp_path):
    command = f"nni-spos trial {tmp_path / 'recipe.yml'}"
    assert check_config(write(trialCommand=command, trialCodeDirectory="code"))


@pytest.mark.parametrize("key", ["password", "sshPassphrase"])
@pytest.mark.filterwarnings("error")
def test_secrets_on_a_page_without_a_password(write, key):
    (warning,) = check_config(write(machine={key: "secret"})).warnings
    assert f"shows the {key} of 192.0.2.11" in warning
    assert "secret" not in warning


def test_a_missing_supernet(write, tmp_path, monkeypatch):
    monkeypatch.setattr(start_module, "_run", lambda *arguments: pytest.fail("started"))
    (tmp_path / "output" / "supernet.pt").unlink()
    (warning,) = check_config(write()).warnings
    assert "Train it first: nni-spos train" in warning
    with pytest.raises(CheckpointError, match=r"no such checkpoint.*Train it first"):
        start(write(), ManagerOptions(public=True), report=lambda line: None)
    # Trials of the user's own may do without one.
    assert check_config(write(trialCommand="python3 my_trial.py")).warnings == ()


@pytest.mark.parametrize("host", ["192.0.2.10", "manager.example", "::2"])
def test_a_manager_that_the_machines_cannot_reach(write, monkeypatch, host):
    started = []
    monkeypatch.setattr(start_module, "_run", lambda *arguments: started.append(arguments))
    with pytest.raises(ExperimentError, match=rf"at {host}\. Without --public .*ssh -N -R 81:"):
        start(write(nniManagerIp=host), ManagerOptions(81))
    assert started == []
    start(write(nniManagerIp=host), ManagerOptions(81, public=True))
    for loopback in ("127.0.0.1", "127.0.0.2", "localhost", "::1"):
        start(write(nniManagerIp=loopback), ManagerOptions(81))
    assert len(started) == 5


def test_a_resumed_experiment_may_be_out_of_reach(tmp_path, monkeypatch):
    manifest = {name: {"platform": name, "logDir": str(tmp_path)} for name in ("local", "remote")}
    lines = []
    monkeypatch.setattr(start_module, "read_manifest", lambda: manifest)
    monkeypatch.setattr(start_module, "experiment_folder", lambda name: tmp_path / name)
    monkeypatch.setattr(start_module, "_run", lambda *arguments: None)
    start_module.resume("local", report=lines.append)
    start_module.resume("remote", ManagerOptions(public=True), report=lines.append)
    assert lines == []
    start_module.resume("remote", report=lines.append)
    assert lines == [
        "warning: other machines reach NNI's manager only with --public or through tunnels"
    ]
