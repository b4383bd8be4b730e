"""740 damaged files: each is read as a valid object or refused in one clear line; no code runs."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mutations import CANARY, COUNTS, WITH_TENSORS, Mutant, mutants
from tiny_space import TINY_DATA, TINY_SPACE

from nni_spos.baseline import read_baselines
from nni_spos.baseline.table import baseline_table
from nni_spos.cli import main
from nni_spos.cost_table import CostTable
from nni_spos.costs import stored as experiment_costs
from nni_spos.costs.stored import load_costs, save_costs
from nni_spos.errors import FileWarning, SposError
from nni_spos.evolution import Candidate, Journal, State
from nni_spos.experiment.check import check_config
from nni_spos.files.tensors import save_tensors
from nni_spos.latency.table import (
    LatencyConditions,
    LatencyTable,
    LatencyValidation,
    load_latency_table,
    this_machine,
)
from nni_spos.modules.subnet import extract_subnet
from nni_spos.path import PathSpace, load_path, save_path
from nni_spos.process.stage_cost import StageCost
from nni_spos.profilers import build_costs
from nni_spos.recipe.output import SearchFolder
from nni_spos.recipe.recipe import load_recipe
from nni_spos.report import gather_report
from nni_spos.retraining.network import SpaceArguments, TrainedNetwork, load_network, save_network
from nni_spos.search.results import load_results
from nni_spos.search.run_record import RunRecorder
from nni_spos.search.score_cache import ScoreCache
from nni_spos.spaces import Form
from nni_spos.study import load_study, make_plan
from nni_spos.supernet import load_supernet, restore_supernet, save_supernet
from nni_spos.supernet.building import build_recipe_space
from nni_spos.training.checkpoints import KEY, check_identity

RECIPE = {
    "output": "output",
    "space": TINY_SPACE,
    "data": TINY_DATA,
    "supernet": {
        "steps": 2,
        "batch_size": 20,
        "prior": "constrained",
        "prior_bins": ["flops <= 1G"],
    },
    "retrain": {"epochs": 1, "batch_size": 20},
    "evaluation": {"recalibration_images": 40, "batch_size": 20},
    "search": {
        "population_size": 4, "num_generations": 2, "top_k": 2, "constraints": ["params <= 9M"],
    },
    "latency": ["latency.json"],
}  # fmt: skip
PATH = {"layer_1": "k5", "layer_2": "xcep", "layer_3": "k3"}
FILES = {
    "recipe": "recipe.yml",
    "path": "path.json",
    "search_space": "space.json",
    "cost_table": "output/costs.json",
    "latency_table": "latency.json",
    "journal": "search/search.jsonl",
    "supernet": "output/supernet.pt",
    "network": "output/retrained.pt",
    "training": "training/step_0000002.ckpt",
    "score_cache": "output/scores.jsonl",
    "run_record": "search/run.json",
    "baseline": "baselines/fixed.json",
    "configuration": "spos.yml",
    "study": "study.yml",
}
FORGIVING = ("score_cache", "run_record")
"""What is damaged in them counts as not there."""

IDENTITY = {"settings": {"epochs": 3, "seed": 0}, "preprocessing": {"image_size": 8}}


@dataclasses.dataclass(frozen=True)
class Work:
    """A folder with a valid file of every kind, and how each is read."""

    folder: Path
    space: PathSpace
    read: dict[str, Callable[[Path], Any]]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "recipe.yml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    recipe = load_recipe(folder / "recipe.yml")
    model = build_recipe_space(recipe, Form.SUPERNET, seed=0)
    space = PathSpace.from_model_space(model)
    costs = build_costs(build_recipe_space(recipe, Form.SUBNET), (1, 8, 8))
    save_costs(recipe, space, costs)
    save_path(folder / "path.json", PATH)
    (folder / "space.json").write_text(json.dumps(space.to_search_space()))
    (folder / "spos.yml").write_text(yaml.safe_dump(nni_config()))
    latency = CostTable("latency_ms(cpu)", space, 1.5, costs["flops"].factors)
    machine = this_machine("cpu") or "unknown"
    LatencyTable(
        latency,
        LatencyConditions("cpu", machine, 1, 1, (1, 8, 8), True, "2.6", "2026-01-01"),
        LatencyValidation.compare([1.0, 2.0, 3.0], [1.5, 2.0, 2.5]),
        costs["flops"],
        "shufflenet",
    ).save(folder / "latency.json")
    journal = Journal(
        folder / "search" / "search.jsonl",
        {
            "choices": space.to_search_space(),
            "search": {"objective": "top1", "constraints": ["params <= 9M"]},
            "checkpoint": "supernet.pt",
        },
    )
    for i, choice in enumerate(space["layer_1"]):
        path = {**PATH, "layer_1": choice}
        prices = {name: table.price(path) for name, table in costs.items()}
        state = State.FAILED if i == 1 else State.DONE
        done = {"metrics": {"top1": 50.0 + i}} if state is State.DONE else {"reason": "planned"}
        journal.append(Candidate(path, i, i // 2, prices, state, **done))
    save_supernet(recipe.checkpoint, model, {"image_size": 8})
    made_from = SpaceArguments(
        "shufflenet", {k: v for k, v in TINY_SPACE.items() if k != "name"}, 10, 1, 8
    )
    network = extract_subnet(build_recipe_space(recipe, Form.SUBNET, seed=0), PATH)
    test = {"top1": 90.0, "top5": 99.0, "loss": 0.5, "num_images": 20}
    prices = {name: table.price(PATH) for name, table in costs.items()}
    settings = recipe.retrain.deciding()
    save_network(
        recipe.files.retrained,
        TrainedNetwork(network, PATH, prices, settings, {"image_size": 8}, made_from, test),
    )

    save_tensors(
        folder / FILES["training"],
        {"loops": {"fit": 1}, "state_dict": network.state_dict(), KEY: IDENTITY, "epoch": 2},
    )
    ScoreCache(folder / FILES["score_cache"], space).put(PATH, {"top1": 50.0, "loss": 0.5})
    run = RunRecorder(SearchFolder(folder / "search"), recipe, 0)
    run.add(StageCost(5.0, 300, "cpu"))
    result = {"name": "fixed", "path": PATH, "costs": prices, "test": test, "cost": None}
    (folder / "baselines").mkdir()
    (folder / FILES["baseline"]).write_text(json.dumps({**result, "widths": None}))
    (folder / "study.yml").write_text(json.dumps(study()))

    def resumed(file: Path) -> Any:
        check_identity(file, IDENTITY)
        return file

    def restored(file: Path) -> Any:
        checkpoint = load_supernet(file)
        try:
            restore_supernet(model, checkpoint)
        except SposError as problem:  # it does not know the file
            raise type(problem)(f"{file}: {problem}") from None
        return checkpoint

    return Work(folder, space, {
        "recipe": load_recipe,
        "path": lambda file: load_path(file, space),
        "search_space": lambda file: check_config(folder / "spos.yml"),
        "cost_table": lambda file: load_costs(recipe),
        "latency_table": lambda file: load_latency_table(file, space),
        "journal": lambda file: load_results(file.parent).format_table(),
        "supernet": restored,
        "network": load_network,
        "training": resumed,
        "score_cache": lambda file: [ScoreCache(file, space).get(PATH)],
        "run_record": lambda file: gather_report(file.parent),
        "baseline": lambda file: baseline_table(read_baselines(file.parent)).rows,
        "configuration": check_config,
        "study": lambda file: make_plan(load_study(file), "small", [], folder / "results"),
    })  # fmt: skip


def nni_config() -> dict[str, Any]:
    tuner = {
        "className": "nni_spos.experiment.tuner.EvolutionTuner",
        "codeDirectory": ".",
        "classArgs": {"recipe": "recipe.yml"},
    }
    return {
        "searchSpaceFile": "space.json",
        "trialCommand": "nni-spos trial recipe.yml",
        "trialCodeDirectory": ".",
        "trialConcurrency": 1,
        "tuner": tuner,
        "trainingService": {"platform": "local"},
    }


def study() -> dict[str, Any]:
    return {
        "title": "A study",
        "about": "Nothing.",
        "output": "results",
        "steps": [
            {"name": "train", "run": "train {tiny} --continue"},
            {"name": "search", "run": "search {tiny} --output {tiny.output}/best.json"},
        ],
        "tables": [{"title": "Costs", "kind": "stages", "of": {"tiny": "{tiny}"}}],
        "scales": {
            "small": {
                "about": "A test.",
                "base": "recipe.yml",
                "values": {"limit": "9M"},
                "variants": {"tiny": {"supernet": {"learning_rate": 0.2}}},
                "minutes": {"train": 1, "search": 0.5},
            }
        },
    }


@pytest.fixture(scope="module")
def corpus(work):
    """All damaged files by kind."""
    seeds = {kind: (work.folder / name).read_bytes() for kind, name in FILES.items()}
    return {kind: mutants(kind, seeds[kind], work.folder / CANARY) for kind in COUNTS}


@pytest.fixture
def place(work):
    """Put a damaged file where the valid one is; afterwards the valid one is back."""
    valid = {name: (work.folder / name).read_bytes() for name in FILES.values()}

    def put(mutant: Mutant) -> Path:
        file = work.folder / FILES[mutant.kind]
        file.write_bytes(mutant.content)
        return file

    yield put
    for name, content in valid.items():
        (work.folder / name).write_bytes(content)


@pytest.fixture
def rebuilt(work, monkeypatch):
    """Cost tables that were made for something else are built anew, here without a process."""
    valid = (work.folder / FILES["cost_table"]).read_bytes()

    def run(*arguments: Any, **options: Any) -> Any:
        (work.folder / FILES["cost_table"]).write_bytes(valid)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(experiment_costs.subprocess, "run", run)


def test_there_are_740(corpus):
    assert sum(map(len, corpus.values())) == 740
    assert {kind: len(found) for kind, found in corpus.items()} == COUNTS
    contents = Counter(mutant.content for found in corpus.values() for mutant in found)
    assert len(contents) > 710, "nearly all differ"


def test_they_are_the_same_each_time(work, corpus):
    # PyTorch's older format has addresses in it.
    for kind in FILES.keys() - set(WITH_TENSORS):
        seed = (work.folder / FILES[kind]).read_bytes()
        assert mutants(kind, seed, work.folder / CANARY) == corpus[kind]


def check_line(text: str, kind: str) -> None:
    assert len(text) < 1000
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    names = [FILES[kind].rpartition("/")[2]] + ["spos.yml"] * (kind == "search_space")
    assert any(name in text for name in names), text


@pytest.mark.slow
@pytest.mark.parametrize("kind", COUNTS)
def test_each_is_read_or_refused_in_one_line(work, corpus, place, rebuilt, kind):
    assert work.read[kind](work.folder / FILES[kind]), "the seed is valid"
    num_noticed = 0
    for mutant in corpus[kind]:
        file = place(mutant)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", FileWarning)
            try:
                assert work.read[kind](file) is not None
            except SposError as problem:
                check_line(str(problem), kind)
                num_noticed += 1
            except FileWarning as problem:
                check_line(str(problem), kind)
                num_noticed += 1
                warnings.simplefilter("ignore", FileWarning)
                assert work.read[kind](file) is not None, "what is not damaged is read"
        assert not (work.folder / CANARY).exists(), mutant
    if kind not in FORGIVING:
        assert num_noticed >= len(corpus[kind]) // 3, "else the damage does none"


COMMANDS = {
    "recipe": ["train", "recipe.yml", "--overwrite"],
    "path": ["retrain", "recipe.yml", "--path", "path.json", "--overwrite"],
    "search_space": ["check", "spos.yml"],
    "latency_table": ["prior", "recipe.yml"],
    "journal": ["results", "search"],
    "supernet": ["search", "recipe.yml"],
    "network": ["retrain", "recipe.yml", "--path", "path.json", "--resume"],
    "configuration": ["check", "spos.yml"],
    "study": ["experiment", "study.yml", "--scale", "small", "--dry-run"],
}
SAMPLE = 6
"""Damaged files of each kind that are tried at the command line."""


def everything(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock"]
    return {str(file): file.read_bytes() for file in files}


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMMANDS)
def test_the_command_line_says_one_line(
    work, corpus, place, rebuilt, kind, tmp_path, monkeypatch, capsys
):
    refused = []
    for mutant in corpus[kind]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                work.read[kind](place(mutant))
            except SposError:
                refused.append(mutant)
    step = len(refused) // SAMPLE
    for i, mutant in enumerate(refused[::step][:SAMPLE]):
        place(mutant)
        folder = tmp_path / str(i)
        shutil.copytree(work.folder, folder)
        monkeypatch.chdir(folder)
        before = everything(folder)
        capsys.readouterr()
        code = main(COMMANDS[kind])
        output = capsys.readouterr()
        assert (code, output.out) == (2, ""), mutant
        assert len(output.err.splitlines()) == 1, output.err
        check_line(output.err.rstrip("\n"), kind) if kind != "path" else None
        assert everything(folder) == before
        assert not (folder / CANARY).exists()
        assert not (work.folder / CANARY).exists()


def test_the_gadgets_would_run(work, tmp_path):
    """The canary is no empty promise: without our rules the same bytes make it."""
    seed = (work.folder / FILES["network"]).read_bytes()
    found = mutants("network", seed, tmp_path / CANARY)
    for mutant in found:
        (tmp_path / "evil.pt").write_bytes(mutant.content)
        try:
            torch.load(tmp_path / "evil.pt", weights_only=False)
        except Exception:
            continue
        if (tmp_path / CANARY).exists():
            break
    assert (tmp_path / CANARY).exists()
