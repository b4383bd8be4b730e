"""The benchmark scripts run; what they measure is not judged here."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from programs import run_program

from nni_spos.spaces import load_nas_bench_macro

FOLDER = Path(__file__).with_name("benchmarks")
CIFAR10 = Path(__file__).parents[2] / "shared" / "data" / "cifar10-jpeg.zip"


def test_what_the_scripts_import_is_there():
    """Some import in the middle of a long measurement, or only beside other packages."""
    missing = []
    for file in sorted(FOLDER.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nni_spos"):
                module = importlib.import_module(str(node.module))
                missing += [
                    f"{file.name}: {x.name}"
                    for x in node.names
                    if not hasattr(module, x.name)
                    and importlib.util.find_spec(f"{node.module}.{x.name}") is None
                ]
    assert missing == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("step.py", "--repeats 1 --paths 1 --batch-size 2 --threads 1"),
        (
            "data_parallel.py",
            "--repeats 1 --paths 1 --batch-size 2 --image-size 32 --space channels",
        ),
        ("busy.py", "--repeats 1 --paths 1 --steps 1 --batch-size 2 --image-size 16 --busy 1"),
        ("freed_memory.py", "--repeats 1 --paths 1 --batch-size 2"),
        ("freed_memory.py", "--repeats 1 --paths 1 --batch-size 2 --stage score"),
        ("prior.py", "--repeats 1 --paths 1000"),
        (
            "population.py",
            "--data digits --epochs 1 --limit 1G --population 4 --generations 2 --images 250 "
            "--repeats 1 --sample 2",
        ),
        ("complete.py", "--prefix 7 --alone 1 --images 20"),
        ("growth.py", "--candidates 500 --trials 20 --algorithms random"),
        ("latency.py", "--quick --rounds 1 --repeats 1 --paths 3"),
        ("runtime_latency.py", "shufflenet_small --rounds 1 --paths 3 --generations 2"),
        ("proposals.py", "--told 100 --populations 20"),
        ("starts.py", "--repeats 1 --only help"),
    ],
)
def test_it_runs(script, arguments):
    done = run_program(FOLDER / script, *arguments.split(), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.slow
def test_the_techniques_benchmark_goes_on(tmp_path):
    if not CIFAR10.exists():
        pytest.skip(f"{CIFAR10} is not there")
    arguments = [
        "--images-per-class",
        "8",
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--code",
        "00000000",
        "--batch-size",
        "20",
        "--num-validation",
        "20",
        "--json",
        "--output",
    ]
    first = run_program(FOLDER / "techniques.py", *arguments, tmp_path, "--variants", "plain")
    assert first.returncode == 0, first.stderr
    network = (tmp_path / "plain_0.pt").read_bytes()
    done = run_program(FOLDER / "techniques.py", *arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == ["plain", "techniques", "kd"]
    assert found["plain"] == json.loads(first.stdout)["plain"]
    assert (tmp_path / "plain_0.pt").read_bytes() == network


@pytest.mark.slow
@pytest.mark.usefixtures("nas_bench_macro_file")
def test_the_short_landmarks_benchmark_goes_on(tmp_path):
    if not CIFAR10.exists():
        pytest.skip(f"{CIFAR10} is not there")
    arguments = [
        *("--images-per-class", "8", "--epochs", "1", "--landmarks", "3", "--image-size", "8"),
        *("--batch-size", "20", "--num-validation", "20", "--json", "--output", tmp_path),
    ]
    first = run_program(FOLDER / "short_landmarks.py", *arguments, "--part", "1/2")
    assert first.returncode == 0, first.stderr
    (network,) = tmp_path.glob("*.pt")
    before = network.read_bytes()
    done = run_program(FOLDER / "short_landmarks.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert network.read_bytes() == before
    assert len(list(tmp_path.glob("*_1.pt"))) == 3
    found = json.loads(done.stdout)
    assert list(found) == ["1", "published"]
    assert 95 > found["published"]["top1"] > found["1"]["top1"]


@pytest.mark.nni
def test_the_experiment_benchmark():
    """A process of its own, for it measures those of an experiment under nnictl."""
    arguments = "--data digits --population 2 --generations 1 --images 250 --concurrency 2 --json"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", FOLDER / "experiment.py", *arguments.split()],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.slow
def test_the_integers_benchmark():
    if not CIFAR10.exists():
        pytest.skip(f"{CIFAR10} is not there")
    arguments = ["resnet_small", "--images", "50", "--training-images", "50", "--epochs", "1"]
    done = run_program(FOLDER / "integers.py", *arguments)
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[1] for row in rows] == ["8w8a", "4w8a and 8w8a", "2 to 8 bits"], done.stderr
    for row in rows:
        assert row[5].endswith("of 14")  # layers with bits, each an operator of integers
        kinds = {kind: int(n) for n, kind in (x.split() for x in row[6].split(", "))}
        assert kinds["Conv"] == 1
        assert kinds.get("QLinearConv", 0) + kinds.get("ConvInteger", 0) == 14
    for row in rows[:2]:  # of 8 and 4 bits, which files have as such
        assert abs(float(row[-1].split()[0])) < 2


@pytest.mark.slow
@pytest.mark.usefixtures("nas_bench_macro_file")
def test_the_search_benchmark(tmp_path):
    plot = tmp_path / "plots" / "search.png"
    arguments = ["--seeds", "2", "--evaluations", "60", "--json", "--plot", plot]
    done = run_program(FOLDER / "search.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert plot.read_bytes().startswith(b"\x89PNG")
    content = json.loads(done.stdout)
    # Published: no network is better than 93.13 %, and 7.7 to 105.7 MFLOPs are all there are.
    assert [round(problem["optimum"], 2) for problem in content.values()] == [93.13, 92.31, 91.94]
    for problem in content.values():
        curves = problem["contenders"]
        for curve in curves.values():
            assert len(curve["mean"]) == 60
            assert curve["mean"] == sorted(curve["mean"], reverse=True)
            assert curve["mean"][-1] >= 0
            for low, mean, high in zip(curve["low"], curve["mean"], curve["high"], strict=True):
                assert low - 1e-9 <= mean <= high + 1e-9
        # Until the second generation they are the same.
        assert curves["evolution"]["mean"][:50] == curves["random"]["mean"][:50]


@pytest.mark.slow
@pytest.mark.usefixtures("nas_bench_macro_file")
def test_the_search_benchmark_goes_on(tmp_path):
    contenders = ["random", "bayesian, population 5"]
    arguments = ["--evaluations", "15", "--json", "--output", tmp_path, "--contenders"]
    first = run_program(FOLDER / "search.py", "--seeds", "1", *arguments, *contenders[:1])
    assert first.returncode == 0, first.stderr
    before = (tmp_path / "regrets.jsonl").read_text()
    # A line that was cut short is measured again.
    (tmp_path / "regrets.jsonl").write_text(before[:-20])
    done = run_program(FOLDER / "search.py", "--seeds", "2", *arguments, *contenders)
    assert done.returncode == 0, done.stderr
    after = (tmp_path / "regrets.jsonl").read_text().splitlines()
    assert after[:2] == before.splitlines()[:2]
    assert len({str(json.loads(line)["what"]) for line in after}) == len(after) == 3 * 2 * 2
    for problem in json.loads(done.stdout).values():
        assert list(problem["contenders"]) == contenders


@pytest.mark.slow
@pytest.mark.usefixtures("nas_bench_macro_file")
def test_the_landmarks_benchmark():
    arguments = ["--draws", "2", "--numbers", "8", "16", "--tables", "NAS-Bench-Macro", "--json"]
    done = run_program(FOLDER / "landmarks.py", *arguments)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout).values()
    # Published figures: they rank as multiply-adds alone do, and less than units do.
    assert found["trivial"]["flops"] == pytest.approx(0.556, abs=1e-3)
    assert found["trivial"]["units"] == pytest.approx(0.693, abs=1e-3)
    for design in ("D-optimal", "random"):
        assert min(found[design]["16"]) > found["trivial"]["flops"]


@pytest.mark.slow
def test_a_score_helps_a_model_of_landmarks_if_it_is_right(nas_bench_macro_file, tmp_path):
    table, generator = load_nas_bench_macro(nas_bench_macro_file), np.random.default_rng(0)
    drawn = generator.permutation(len(table.codes))[:200]
    paths = table.space.decode(table.space.enumerate()[drawn])
    points = [
        {
            "path": path,
            "accuracy": table.accuracy(path),
            "flops": 1.0,
            "good": table.accuracy(path) + generator.normal(0, 0.1),
            "random": generator.normal(),
        }
        for path in paths
    ]
    study = tmp_path / "study.json"
    study.write_text(json.dumps({"points": points}))
    arguments = ["--draws", "3", "--numbers", "20", "--json"]
    done = run_program(FOLDER / "landmarks_with_scores.py", study, *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["alone"].keys() == {"good", "random"}
    assert found["alone"]["good"] > 0.9
    means = {name: np.mean(found[name]["20"]) for name in ("none", "good", "random")}
    assert means["good"] > means["none"] + 0.03
    assert means["random"] < means["none"] + 0.03


def test_the_search_benchmark_needs_a_table(tmp_path):
    done = run_program(FOLDER / "search.py", "--table", tmp_path / "none")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "none: no such file; it is published with NAS-Bench-Macro."
    )


@pytest.mark.slow
def test_the_comparison_goes_on(tmp_path):
    if not CIFAR10.exists():
        pytest.skip(f"{CIFAR10} is not there")
    small = "--images 40 --validation-images 20 --test-images 20 --size 8 --epochs 1"
    arguments = [*small.split(), "--start-epochs", "1", "--ways", "original", "--json"]
    # Rows are measured by processes of their own.
    command = [sys.executable, "-W", "ignore", FOLDER / "compare.py", "--output", tmp_path]
    command += [*arguments, "--seeds"]
    first = subprocess.run([*command, "1"], capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    weights = (tmp_path / "original.pt").read_bytes()
    done = subprocess.run([*command, "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, other = json.loads(done.stdout)
    assert json.loads(first.stdout) == [before]
    assert (before["seed"], other["seed"]) == (0, 1)
    assert other["multiply_adds"] == other["of_original"]
    assert other["before_top1"] == before["before_top1"]
    assert (tmp_path / "original.pt").read_bytes() == weights
    command[command.index("original")] = "uniform"
    done = subprocess.run([*command, "1"], capture_output=True, text=True)
    (narrow,) = json.loads(done.stdout)
    assert "failed" not in narrow, narrow
    assert narrow["multiply_adds"] <= 0.75 * narrow["of_original"]
