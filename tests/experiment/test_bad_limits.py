"""Wrong limits, priors and latency tables at the command line: one line, code 2, nothing written.

Beside each wrong input there is one next to it that is accepted.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from small_experiments import save_table
from trained_recipes import change_recipe

from nni_spos.cli import main
from nni_spos.path import PathSpace

SPACE = PathSpace({f"layer_{i}": ["k3", "k5", "k7", "xcep"] for i in (1, 2, 3)})
TABLE = "latency_cpu.json"

# Multiply-adds on 8x8 pixels with k3 everywhere: the stem of 4 channels and two units with stride 2
# (first 1x1 of the branch, two depth-wise 3x3, two 1x1), one with stride 1 (1x1, 3x3, 1x1), the
# last convolution and the classifier. The second cheapest path has xcep in the second unit, which
# has only 2x2 pixels left for its three 1x1 and three depth-wise convolutions.
CHEAPEST = (
    64 * 4 * 9
    + (64 * 4 * 4 + 2 * 16 * 4 * 9 + 2 * 16 * 4 * 4)
    + (16 * 8 * 8 + 2 * 4 * 8 * 9 + 2 * 4 * 8 * 8)
    + (4 * 8 * 8 + 4 * 8 * 9 + 4 * 8 * 8)
    + 4 * 16 * 16
    + 16 * 10
)
SECOND = CHEAPEST + (3 * 4 * 8 * 8 + 3 * 4 * 8 * 9) - (16 * 8 * 8 + 4 * 8 * 9 + 4 * 8 * 8)

COMMANDS = {
    "check": ["check", "spos.yml"],
    "search": ["search", "recipe.yml"],
    "train": ["train", "recipe.yml", "--overwrite"],
    "prior": ["prior", "recipe.yml"],
    "retrain": ["retrain", "recipe.yml", "--path", "path.json"],
}


@pytest.fixture(autouse=True)
def files(folder):
    """What the commands name: an NNI configuration, a path, and a table of 1 to 5.5 ms."""
    tuner = {
        "className": "nni_spos.experiment.tuner.EvolutionTuner",
        "codeDirectory": ".",
        "classArgs": {"recipe": "recipe.yml"},
    }
    config = {
        "searchSpace": SPACE.to_search_space(),
        "trialCommand": "nni-spos trial recipe.yml",
        "trialConcurrency": 1,
        "tuner": tuner,
        "trainingService": {"platform": "local"},
    }
    Path("spos.yml").write_text(yaml.safe_dump(config))
    Path("path.json").write_text(json.dumps(dict.fromkeys(SPACE, "k3")))
    save_table(TABLE, space=SPACE)
    recipe = yaml.safe_load(Path("recipe.yml").read_text())
    Path("recipe.yml").write_text(yaml.safe_dump({**recipe, "latency": [TABLE]}))


@pytest.mark.parametrize("command", ["check", "search"])
@pytest.mark.parametrize(
    ("limits", "words", "accepted"),
    [
        (["10k <= flops <= 9k"], "lower bound 10k exceeds the upper bound 9k",
         ["9k <= flops <= 10k"]),
        (["flop <= 10k"], "unknown metric 'flop'; did you mean 'flops'?", ["flops <= 10k"]),
        (["flops <= 10kB"], "unknown unit 'kB'. Write METRIC <= NUMBER, ", ["flops <= 10k"]),
        (["latency_ms(cpu) <= 3ms"], "unknown unit 'ms'. Write METRIC <= NUMBER, ",
         ["latency_ms(cpu) <= 3"]),
        (["latency_ms(cuda) <= 3"], "there is no table of 'latency_ms(cuda)'. Measure",
         ["latency_ms(cpu) <= 3"]),
        (["latency_ms(cpu) <= 0.9"], "lies between 1 (cheapest path) and 5.5 (dearest path)",
         ["latency_ms(cpu) <= 1"]),
        (["3.1 <= latency_ms(cpu) <= 3.4"], "the nearest cost is 3 below and 3.5 above",
         ["3.1 <= latency_ms(cpu) <= 3.5"]),
        (["latency_ms(cpu) <= 2", "latency_ms(cpu) >= 2.5"],
         "none of the space's 64 paths meets 'latency_ms(cpu) <= 2' and 'latency_ms(cpu) >= 2.5'",
         ["latency_ms(cpu) <= 2", "latency_ms(cpu) >= 2"]),
        # Both hold for some path, but not for the same: only the cheapest has 1 ms.
        ([f"flops >= {CHEAPEST + 1}", "latency_ms(cpu) <= 1"], "none of the space's 64 paths meets",
         [f"flops >= {CHEAPEST}", "latency_ms(cpu) <= 1"]),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_limits(refused, command, limits, words, accepted):
    change_recipe("search", constraints=limits)
    assert words in refused(*COMMANDS[command])
    change_recipe("search", constraints=accepted)
    assert main(COMMANDS["check"]) == 0


@pytest.mark.parametrize("command", ["train", "prior"])
@pytest.mark.parametrize(
    ("key", "given", "words", "accepted"),
    [
        ("bins", [f"{CHEAPEST + 1} <= flops <= {SECOND - 1}"],
         f"the nearest cost is {CHEAPEST} below and {SECOND} above",
         [f"{CHEAPEST + 1} <= flops <= {SECOND}"]),
        ("bins", ["flops <= 1G", f"flops <= {CHEAPEST - 1}"],
         f"the nearest cost is {CHEAPEST} above", ["flops <= 1G", f"flops <= {CHEAPEST}"]),
        ("bins", ["10k <= flops <= 9k"], "lower bound 10k exceeds the upper bound 9k",
         ["9k <= flops <= 10k"]),
        ("bins", ["flop <= 10k"], "unknown metric 'flop'; did you mean 'flops'?", ["flops <= 10k"]),
        ("bins", ["flops <= 10kB"], "unknown unit 'kB'. Write METRIC <= NUMBER, ",
         ["flops <= 10k"]),
        ("quantiles", [0, 0.5, 0.25], "(0, 0.5, 0.25) must be two or more numbers that rise from 0",
         [0, 0.25, 0.5]),
        ("quantiles", [0.5], "(0.5,) must be two or more numbers that rise", [0.5, 1]),
        # One of the 64 paths is 0.0156 of them.
        ("quantiles", [0, 0.001, 0.01], "lies between the quantiles 0.001 and 0.01: both are",
         [0, 0.001, 0.05]),
    ],
)  # fmt: skip
def test_priors(refused, command, key, given, words, accepted):
    change_recipe("supernet", prior="constrained", **{f"prior_{key}": given})
    assert words in refused(*COMMANDS[command])
    change_recipe("supernet", **{f"prior_{key}": accepted})
    assert main(COMMANDS["prior"]) == 0


def damage(**changes) -> None:
    """Change the entry of the table's first factor, or the constant."""
    content = json.loads(Path(TABLE).read_text())
    if "entry" in changes:
        content["table"]["factors"][0]["table"][3] = changes["entry"]
    else:
        content["table"].update(changes)
    Path(TABLE).write_text(json.dumps(content))


def truncate() -> None:
    text = Path(TABLE).read_text()
    Path(TABLE).write_text(text[: len(text) // 2])


@pytest.mark.parametrize("command", ["check", "search", "prior", "retrain"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda: save_table(TABLE, space=PathSpace({**SPACE, "layer_3": ["k3", "k5"]})),
         "was measured for another space: label 'layer_3' has the choices 'k3', 'k5' there and"),
        (truncate, "is not valid JSON"),
        (lambda: damage(entry=float("nan")), "layer_1 has an entry that is not a finite number"),
        (lambda: damage(constant=float("nan")), "the constant nan is not finite"),
        (lambda: Path(TABLE).unlink(), "no such file, which recipe.yml names as a latency table"),
    ],
)  # fmt: skip
def test_latency_tables(refused, command, spoil, words):
    spoil()
    line = refused(*COMMANDS[command])
    assert words in line
    assert TABLE in line
    save_table(TABLE, space=SPACE)
    damage(entry=1.75)
    assert main(COMMANDS["prior"]) == 0


@pytest.mark.slow
def test_measuring(folder, refused):
    file = folder / "new" / "latency.json"
    measure = ["latency", "recipe.yml", "--output", str(file)]
    line = refused(*measure, "--paths", "1")
    assert line == "CostError: a validation needs at least 2 paths, got 1."
    line = refused(*measure, "--batch", "0")
    assert line == "CostError: batch_size must be at least 1, got 0."
    line = refused(*measure, "--threads", "-1")
    assert line == "CostError: threads must be at least 1, got -1."
    assert not file.parent.exists()
    assert main([*measure, "--paths", "2", "--batch", "1", "--threads", "1"]) == 0
    assert file.exists()


def test_a_profile_has_no_limits(refused):
    """Costs are shown also where no path meets a recipe's limits; a latency table is no path."""
    line = refused("profile", "recipe.txt")
    assert "unknown space 'recipe.txt'. Spaces: shufflenet, shufflenet_small" in line
    line = refused("profile", "shufflenet_small", "--path", TABLE)
    assert f"PathError: {TABLE}: label 'latency_version' is not in the search space" in line
    Path("path.json").write_text(json.dumps({f"layer_{i}": "k3" for i in range(1, 9)}))
    assert main(["profile", "shufflenet_small", "--path", "path.json"]) == 0
    change_recipe("search", constraints=["flops <= 1"])
    assert main(["profile", "recipe.yml"]) == 0
