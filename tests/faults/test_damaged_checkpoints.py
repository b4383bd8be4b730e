"""A training whose newest checkpoint, or whose product, is damaged."""

from __future__ import annotations

import pytest
import torch
import yaml

from nni_spos.cli import main
from nni_spos.errors import CheckpointError, FileWarning
from nni_spos.recipe.recipe import load_recipe
from nni_spos.supernet import load_supernet
from nni_spos.supernet.training import train_supernet
from nni_spos.training import Start

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")


@pytest.fixture
def recipe(tmp_path):
    content = {
        "output": "a",
        "space": {"name": "shufflenet_small", "stem_channels": 4, "stage_repeats": [1],
                  "stage_channels": [8], "last_channels": 8},
        "data": {"name": "digits", "num_train": 40, "num_validation": 20},
        "supernet": {"epochs": 3, "batch_size": 20, "keep_checkpoints": 1},
        "retrain": {"epochs": 1},
    }  # fmt: skip
    file = tmp_path / "a.yml"
    file.write_text(yaml.safe_dump(content))
    return load_recipe(file)


def weights(recipe):
    return load_supernet(recipe.checkpoint).weights


def damage(file):
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.slow
def test_the_checkpoint_before_is_used_and_the_weights_are_the_same(recipe, capsys):
    train_supernet(recipe)
    before = weights(recipe)
    folder = recipe.checkpoint.with_suffix("")
    # One is asked for, and the one before it stays.
    older, newest = sorted(folder.glob("*.ckpt"))
    assert (older.name, newest.name) == ("step_0000004.ckpt", "step_0000006.ckpt")
    left = [folder / f".{newest.name}.x1", recipe.output / ".supernet.pt.x2"]
    for file in left:
        file.write_bytes(b"half")
    damage(newest)
    recipe.checkpoint.unlink()
    assert main(["train", str(recipe.file), "--resume"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(lines) == 1
    assert newest.name in lines[0]
    assert lines[0].endswith(f"Going on from {older.name}.")
    for name, value in weights(recipe).items():
        assert torch.equal(value, before[name]), name
    assert not any(file.exists() for file in left)

    # A damaged product is written again from the checkpoint of its last step.
    damage(recipe.checkpoint)
    with pytest.raises(CheckpointError, match=r"supernet.pt: cannot be loaded safely"):
        load_supernet(recipe.checkpoint)
    with pytest.warns(FileWarning, match=r"supernet.pt: cannot .* It is written again"):
        train_supernet(recipe, Start.CONTINUE)
    for name, value in weights(recipe).items():
        assert torch.equal(value, before[name]), name

    # Without a checkpoint that can be read it is one line.
    recipe.checkpoint.unlink()
    for file in folder.glob("*.ckpt"):
        damage(file)
    for option in ("--resume", "--continue"):
        assert main(["train", str(recipe.file), option]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert newest.name in line
        assert line.endswith("No checkpoint before it can be read. --overwrite trains anew.")
    assert main(["train", str(recipe.file), "--overwrite"]) == 0
    for name, value in weights(recipe).items():
        assert torch.equal(value, before[name]), name
