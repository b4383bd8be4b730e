import json
import sys

import pytest
import yaml
from small_experiments import SPACE, save_table, write_recipe

from nni_spos.cli import main
from nni_spos.errors import RecipeError
from nni_spos.experiment.check import check_config
from nni_spos.experiment.trial_command import trial_recipe
from nni_spos.latency import table as latency_table


@pytest.fixture
def check(tmp_path):
    write_recipe(tmp_path)
    (tmp_path / "space.json").write_text(json.dumps(SPACE.to_search_space()))
    (tmp_path / "code").mkdir()
    write_recipe(tmp_path / "code", "other.yml")

    def check(drop=(), class_args=None, tuner=None, service=None, **changes):
        config = {
            "searchSpaceFile": "space.json",
            "trialCommand": "nni-spos trial recipe.yml",
            "trialCodeDirectory": ".",
            "trialConcurrency": 4,
            "tuner": {
                "className": "nni_spos.experiment.tuner.EvolutionTuner",
                "codeDirectory": ".",
                "classArgs": {"recipe": "recipe.yml", **(class_args or {})},
                **(tuner or {}),
            },
            "trainingService": {"platform": "local", **(service or {})},
            **changes,
        }
        config = {key: value for key, value in config.items() if key not in drop}
        (tmp_path / "spos.yml").write_text(yaml.safe_dump(config))
        return check_config(tmp_path / "spos.yml")

    return check


def test_a_good_configuration(check, tmp_path):
    checked = check(class_args={"num_generations": 2})
    assert checked.recipe.search.num_generations == 2
    assert checked.num_candidates == 12
    assert checked.concurrency == 4
    assert checked.space == SPACE
    assert checked.warnings == ()
    assert checked.config["tuner"]["codeDirectory"] == str(tmp_path)


def test_keys_are_written_as_nni_allows(check, tmp_path, monkeypatch):
    monkeypatch.chdir("/")  # names are relative to the configuration, not to where one is
    assert check(drop=["trialConcurrency"], trial_concurrency=2).concurrency == 2
    inline = check(drop=["searchSpaceFile"], searchSpace=SPACE.to_search_space())
    assert inline.space == SPACE
    absolute = check(class_args={"recipe": str(tmp_path / "recipe.yml")})
    assert absolute.recipe.file == tmp_path / "recipe.yml"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trialConcurency": 4}, "unknown key 'trialConcurency'; did you mean 'trialConcurrency'"),
        ({"drop": ["trialConcurrency"]}, "the key 'trialConcurrency' is missing"),
        ({"drop": ["searchSpaceFile"]}, "either 'searchSpaceFile' or 'searchSpace', got neither"),
        ({"searchSpace": {}}, "either 'searchSpaceFile' or 'searchSpace', got both"),
        ({"searchSpaceFile": "none.json"}, "none.json"),
        ({"trialConcurrency": "four"}, "trial_concurrency"),
        ({"trialCodeDirectory": "nowhere"}, r"nowhere.* is not a directory"),
        ({"tuner": {"codeDirectory": "nowhere"}}, r"nowhere.* is not a directory"),
        ({"tuner": {"className": "my.Tuner"}}, "className must be nni_spos.*got 'my.Tuner'"),
        ({"tuner": {"classArg": {}}}, "tuner: unknown key 'classArg'; did you mean 'classArgs'"),
        ({"class_args": {"recipe": "none.yml"}}, "none.yml: no such file"),
        ({"class_args": {"topk": 3}}, "unknown key 'topk'; did you mean 'top_k'"),
        ({"class_args": {"top_k": 0}}, "top_k: got 0; must be a whole number > 0"),
        ({"class_args": {"constraints": ["flops <= 0"]}}, r"no path meets.*1 \(cheapest.*8"),
        ({"class_args": {"constraints": ["flop <= 5"]}}, "did you mean 'flops'"),
        ({"class_args": {"algorithm": "nsga"}}, "Searches: evolution, nsga2, bayesian, random, or"),
        (
            {"class_args": {"algorithm": "nsga2", "cost_objectives": ["flop"]}},
            "cost_objectives: unknown metric 'flop'; did you mean 'flops'",
        ),
        (
            {"trialGpuNumber": 1, "service": {"useActiveGpu": True}},
            "NNI 3.0 hangs on a machine with 1 GPU",
        ),
        ({"service": {"platform": "openpai"}}, "must be 'local' or 'remote', got 'openpai'"),
        ({"service": {"reuseMode": True}}, "reuseMode is not supported"),
        ({"trialCommand": "nni-spos trial none.yml"}, "none.yml: no such file"),
        (
            {"trialCommand": "nni-spos trial other.yml", "trialCodeDirectory": "code"},
            "Name the same file in trialCommand and in classArgs",
        ),
    ],
)
def test_faults_are_one_clear_line(check, changes, message):
    with pytest.raises(RecipeError, match=message) as caught:
        check(**changes)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("spos.yml: ")
    check()  # and nothing of it lasts


def test_a_prior_that_cannot_draw_is_found_before_the_first_trial_trains_with_it(check, tmp_path):
    file = tmp_path / "recipe.yml"
    content = yaml.safe_load(file.read_text())
    content["supernet"] |= {"prior": "constrained", "prior_bins": ["flops >= 100"]}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=r"^spos.yml: no path lies in the bin 'flops >= 100'"):
        check()
    check(trialCommand="python3 my_trial.py")
    content["supernet"]["prior_bins"] = ["flops >= 8"]
    file.write_text(yaml.safe_dump(content))
    check()


def test_a_missing_pymoo_is_found(check, monkeypatch):
    checked = check(class_args={"algorithm": "nsga2", "cost_objectives": ["flops"]})
    assert checked.num_candidates == 18
    monkeypatch.setitem(sys.modules, "pymoo.algorithms.moo.nsga2", None)
    with pytest.raises(RecipeError, match=r"pip install 'nni_spos\[nsga2\]'\.$") as caught:
        check(class_args={"algorithm": "nsga2"})
    assert "\n" not in str(caught.value)
    check()


def test_accepted_neighbours(check):
    service = {"useActiveGpu": True, "maxTrialNumberPerGpu": 2}
    assert check(trialGpuNumber=1, service=service).warnings == ()
    assert check(trialGpuNumber=0).warnings == ()
    assert check(trialCommand="python3 my_trial.py").warnings == ()
    assert check(trialCommand="nni-spos trial ../recipe.yml", trialCodeDirectory="code")
    assert check(class_args={"constraints": ["flops <= 1"]})
    assert check(maxTrialNumber=18).warnings == ()


def test_a_limit_below_the_number_of_candidates_is_a_warning(check):
    [warning] = check(maxTrialNumber=17).warnings
    assert "17" in warning
    assert "18 candidates" in warning


def test_a_table_of_another_machine_is_a_line_like_other_warnings(
    check, tmp_path, monkeypatch, capsys
):
    check(maxTrialNumber=17, trialCommand="python3 my_trial.py")
    monkeypatch.setattr(latency_table, "this_machine", lambda device: "Processor 1")
    table = tmp_path / "latency_cpu.json"
    save_table(table, machine="Processor 9")
    with open(tmp_path / "recipe.yml", "a") as recipe:
        recipe.write(f"latency: [{table.name}]\n")
    assert main(["check", str(tmp_path / "spos.yml")]) == 0
    different, few = capsys.readouterr().err.splitlines()
    assert different == (
        f"warning: {table}: was measured with machine Processor 9, and is used for Processor 1."
    )
    assert few.startswith("warning: spos.yml: maxTrialNumber: 17 ends the search")
    save_table(table, machine="Processor 1")
    assert main(["check", str(tmp_path / "spos.yml")]) == 0
    assert capsys.readouterr().err.splitlines() == [few]


def test_another_search_space_is_refused(check, tmp_path):
    space = {**SPACE.to_search_space(), "a": {"_type": "choice", "_value": ["k3"]}}
    (tmp_path / "space.json").write_text(json.dumps(space))
    with pytest.raises(RecipeError, match="label 'a' has the choices 'k3' instead of"):
        check()
    space["a"] = {"_type": "uniform", "_value": [0, 1]}
    (tmp_path / "space.json").write_text(json.dumps(space))
    with pytest.raises(RecipeError, match=r"'a': .* is not supported"):
        check()


def test_files_that_are_not_yaml(tmp_path):
    with pytest.raises(RecipeError, match="no such file"):
        check_config(tmp_path / "none.yml")
    (tmp_path / "bad.yml").write_text("a: [")
    with pytest.raises(RecipeError, match="not valid YAML"):
        check_config(tmp_path / "bad.yml")


@pytest.mark.parametrize(
    ("command", "recipe"),
    [
        ("nni-spos trial a.yml", "a.yml"),
        ("/venv/bin/nni-spos trial 'my recipe.yml'", "my recipe.yml"),
        ("cd x && OMP_NUM_THREADS=1 python3 -W ignore -m nni_spos.cli trial a.yml", "a.yml"),
        ("nni-spos trial", None),
        ("nni-spos train a.yml", None),
        ("python3 trial.py 'unclosed", None),
    ],
)
def test_the_recipe_of_a_trial_command(command, recipe):
    assert trial_recipe(command) == recipe
