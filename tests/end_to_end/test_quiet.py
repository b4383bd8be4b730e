"""No warning of NNI or its dependencies reaches a user."""

import os
import re
import subprocess
import sys

import pytest

RECIPE = """
output: run
space: {name: shufflenet_small}
data: {name: digits, augmentation: none}
supernet: {epochs: 1, batch_size: 256, learning_rate: 0.1}
evaluation: {recalibration_images: 64}
search: {population_size: 2, num_generations: 1}
retrain: {epochs: 1}
"""

BAR = re.compile(r"(supernet|random paths|search): .*")

COMMANDS = [
    "--help",
    "costs recipe.yml",
    "train recipe.yml",
    "search recipe.yml",
    "results run/search",
    "report run/search",
]


@pytest.mark.spawn
def test_commands_print_progress_and_nothing_else_to_the_error_stream(tmp_path):
    (tmp_path / "recipe.yml").write_text(RECIPE)
    plain = {key: text for key, text in os.environ.items() if key != "PYTHONWARNINGS"}
    for command in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "nni_spos.cli", *command.split()],
            cwd=tmp_path,
            env=plain,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        lines = [line.strip() for line in re.split(r"[\r\n]", done.stderr)]
        assert [line for line in lines if line and not BAR.fullmatch(line)] == [], command
