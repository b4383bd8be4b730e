"""An experiment from its first to its last step, cut off and taken up again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from waiting import PATIENCE

from nni_spos.baseline import read_baselines
from nni_spos.cli import main
from nni_spos.recipe.recipe import load_recipe
from nni_spos.retraining.network import load_network
from nni_spos.search.results import load_results
from nni_spos.spaces import Form
from nni_spos.study import running
from nni_spos.supernet.building import build_recipe_space

NAMES = ["train", "search", "retrain", "fixed", "random", "random-search"]


def run(file, *arguments):
    return main(["experiment", str(file), "--scale", "tiny", *arguments])


def section(text, title):
    """Rows of a table of the Markdown by their first cell."""
    part = text.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line.split("|")[1:-1] for line in part.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [x.strip() for x in cells[1:]] for cells in lines[2:]}


@pytest.fixture
def commands(monkeypatch):
    """Run the steps in this process, and note their commands."""
    ran = []

    def in_process(arguments):
        ran.append(arguments)
        return main(arguments)

    monkeypatch.setattr(running, "_run_command", in_process)
    return ran


@pytest.mark.slow
def test_cut_off_after_two_steps_it_goes_on_and_has_the_figures_of_its_steps(
    tiny, commands, monkeypatch, capsys
):
    original = running._run

    def cut(step):
        if step.name == "retrain":
            raise KeyboardInterrupt
        original(step)

    with monkeypatch.context() as patched:
        patched.setattr(running, "_run", cut)
        assert run(tiny) == 130
    assert [command[0] for command in commands] == ["train", "search"]
    output = tiny.parent / "runs" / "tiny"
    assert sorted(x.stem for x in (output / "steps").iterdir()) == ["search", "train"]
    supernet = (output / "blocks" / "supernet.pt").stat().st_mtime_ns

    assert run(tiny) == 0
    assert [command[0] for command in commands] == [
        "train", "search", "retrain", "baseline", "baseline", "baseline",
    ]  # fmt: skip
    assert (output / "blocks" / "supernet.pt").stat().st_mtime_ns == supernet
    assert f"results: {output / 'results.md'}" in capsys.readouterr().out
    check_results(output)

    before = {file: file.read_bytes() for file in output.glob("*.*s*")}
    assert run(tiny) == 0
    assert len(commands) == 6, "nothing is done twice"
    assert {file: file.read_bytes() for file in before} == before
    assert run(tiny, "--set", "retrain.epochs=2") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "train.json: the step was done with other settings (retrain: epochs was" in line


def check_results(output):
    text = (output / "results.md").read_text()
    content = json.loads((output / "results.json").read_text())
    assert [step["name"] for step in content["steps"]] == NAMES
    assert all(step["seconds"] > 0 for step in content["steps"])
    tables = {table["title"]: table["rows"] for table in content["tables"]}

    recipe = load_recipe(output / "recipes" / "blocks.yml")
    assert recipe.supernet.learning_rate == 0.2
    space = build_recipe_space(recipe, Form.SUBNET)
    winner = load_network(recipe.files.retrained, space)
    best = load_results(recipe.output / "search").best
    assert winner.path == best.path
    networks = section(text, "Networks")
    assert networks["winner"][0] == f"{best.costs['flops'] / 1000:.6g}k"
    assert networks["winner"][-2] == f"{winner.test['top1']:.2f}"
    assert tables["Networks"][0]["tests"] == [winner.test]
    baselines = read_baselines(recipe.output / "baselines")
    assert list(networks) == ["winner", *(f"baseline: {x.name}" for x in baselines)]
    assert [x["tests"] for x in tables["Networks"][1:]] == [x.tests for x in baselines]

    assert section(text, "Searches")["evolution"][:2] == ["8", f"{best.metrics['top1']:.2f}"]
    values = [x.metrics["top1"] for x in load_results(recipe.output / "search").candidates]
    rows = section(text, "Generations")
    assert list(rows) == ["4", "8"]
    assert rows["4"][:2] == [f"{max(values[:4]):.2f}", f"{sum(values[:4]) / 4:.2f}"]
    assert rows["8"][:2] == [f"{max(values):.2f}", f"{sum(values[4:]) / 4:.2f}"]
    (search,) = tables["Searches"]
    assert search["mean_of_last"] == pytest.approx(sum(values[4:]) / 4)
    stages = [row["stage"] for row in tables["Costs"]]
    assert stages == [
        "training of the supernet", "search: evaluation of all candidates",
        "retraining of the best path",
    ]  # fmt: skip
    assert all(row["cost"]["seconds"] > 0 for row in tables["Costs"])
    figures = [
        x.split("|")[2:4] for x in text.split("## Baseline\n")[1].split("\n## ")[0].splitlines()[4:]
    ]
    shown = {key.strip(): value.strip() for key, value in filter(None, figures)}
    random_1 = next(x for x in baselines if x.name == "random-1")
    assert shown["costs.flops"] == str(random_1.costs["flops"])


@pytest.mark.spawn
def test_each_step_is_a_process_of_its_own(tiny, capfd):
    assert run(tiny, "--only", "train", "--set", "search.seed=5") == 0
    output = tiny.parent / "runs" / "tiny"
    assert (output / "blocks" / "supernet.pt").is_file()
    assert "step 1 of 1, train, about 1 min 0 s: nni-spos train" in capfd.readouterr().out
    text = (output / "results.md").read_text()
    assert section(text, "Networks")["winner"] == ["", "-", "not recorded"]
    assert section(text, "Searches")["evolution"][:2] == ["-", "-"]
    assert section(text, "Generations") == {}
    assert section(text, "Steps")["search"][1] == "to do"
    assert "Changed in all recipes: search.seed = 5." in text
    assert json.loads((output / "results.json").read_text())["changes"] == [{"search": {"seed": 5}}]


def test_a_failed_step_is_named_and_not_done(tiny, commands, capsys):
    assert run(tiny, "--only", "search") == 2
    errors = capsys.readouterr().err.splitlines()
    assert "Train the supernet first" in errors[0]
    assert errors[1].startswith("ExperimentError: step 'search' failed with exit code 2")
    assert len(errors) == 2
    assert not (tiny.parent / "runs" / "tiny" / "steps").exists()


@pytest.mark.parametrize("code", [130, -signal.SIGINT])
def test_an_interrupted_step_interrupts_the_experiment(tiny, monkeypatch, code):
    monkeypatch.setattr(running, "_run_command", lambda arguments: code)
    assert run(tiny) == 130
    assert not (tiny.parent / "runs" / "tiny" / "steps").exists()


STEP = """
import sys
from nni_spos.study import running
from nni_spos.process.termination import raise_on_signals
program = "import signal, sys, time\\n"
program += "def end(*_): time.sleep(1); print('ended its own', flush=True); sys.exit(143)\\n"
program += "signal.signal(signal.SIGTERM, end); print('begun', flush=True); time.sleep(60)"
running.python_command = lambda module, arguments: [sys.executable, "-c", program]
with raise_on_signals():
    running._run_command([])
"""


@pytest.mark.spawn
def test_a_terminated_experiment_waits_until_its_step_has_ended_what_it_began():
    process = psutil.Popen([sys.executable, "-c", STEP], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    begin = time.monotonic()
    process.terminate()
    output, _ = process.communicate(timeout=PATIENCE)
    assert output == "ended its own\n"
    assert time.monotonic() - begin < running.INTERRUPT_TIMEOUT
    assert process.returncode != 0


def test_a_dry_run_writes_nothing(tiny, commands, capsys):
    assert run(tiny, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["step", *NAMES, "all"]
    assert lines[-1].split()[1:4] == ["5", "min", "0"]
    assert run(tiny, "--dry-run", "--only", "fixed", "--only", "train") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["step", "train", "fixed", "all"]
    assert not commands
    assert sorted(x.name for x in tiny.parent.iterdir()) == ["tiny.yml", "tiny_recipe.yml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tabel3"], "unknown experiment 'tabel3'; did you mean 'table3'?"),
        (["table3", "--scale", "smal"], "unknown scale 'smal'; did you mean 'small'?"),
        (["table3", "--only", "retrian"], "unknown step 'retrian'; did you mean 'retrain'?"),
        (["table3", "--set", "retrain.epoch=2"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["table3", "--set", "epochs=2"], "is not SECTION.KEY=VALUE"),
        (["nothing.yml"], "nothing.yml: no such file"),
        ([], "give the name of an experiment"),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_list_names_all(capsys):
    assert main(["experiment", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "correlation", "fig2", "fig3", "table3", "table4", "table5", "table6", "table7",
    ]  # fmt: skip


def test_a_damaged_record_is_named(tiny, commands, capsys):
    record = tiny.parent / "runs" / "tiny" / "steps" / "train.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"seconds": "soon"}))
    assert run(tiny, "--dry-run") == 2
    assert "train.json: is damaged. Delete it" in capsys.readouterr().err


def test_the_recipes_that_are_written_are_those_of_the_plan(tiny, monkeypatch):
    monkeypatch.setattr(running, "_run_command", lambda arguments: 1)
    assert run(tiny, "--set", "search.seed=7", "--output", str(tiny.parent / "other")) == 2
    content = yaml.safe_load((tiny.parent / "other" / "recipes" / "blocks.yml").read_text())
    assert content["search"]["seed"] == 7
    assert content["search"]["constraints"] == ["flops <= 13k"]
    assert content["output"] == str(tiny.parent / "other" / "blocks")
