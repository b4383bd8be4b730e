"""A training is not resumed from what Lightning cannot restore: one line, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from nni_spos.cli import main

RECIPE = {
    "output": "output",
    "space": {
        "name": "shufflenet",
        "stem_channels": 4,
        "stem_stride": 1,
        "stage_repeats": [1],
        "stage_channels": [8],
        "last_channels": 8,
    },
    "data": {"name": "digits", "image_size": 8, "num_train": 40, "num_validation": 20},
    "supernet": {"epochs": 1, "batch_size": 20},
    "retrain": {"epochs": 1, "batch_size": 20},
    "evaluation": {"recalibration_images": 20, "batch_size": 20},
}


@pytest.mark.slow
def test_damaged_states(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yml").write_text(yaml.safe_dump(RECIPE))
    Path("path.json").write_text('{"layer_1": "k3"}')
    command = ["retrain", "recipe.yml", "--path", "path.json"]
    assert main(command) == 0
    (file,) = Path("output/retrained").glob("*.ckpt")
    valid = torch.load(file, weights_only=True)
    Path("output/retrained.pt").unlink()
    for changes in (
        {"state_dict": {}},
        {"state_dict": 5},
        {"optimizer_states": [{"state": {}, "param_groups": []}]},
        {"loops": {}},
        {"loops": 5},
        {"lr_schedulers": "none"},
        {"pytorch-lightning_version": []},
    ):
        torch.save({**valid, **changes}, file)
        capsys.readouterr()
        code = main([*command, "--resume"])
        lines = [x for x in capsys.readouterr().err.splitlines() if "Error" in x]
        assert code == 2, changes
        assert len(lines) == 1
        assert lines[0].startswith("CheckpointError: ")
        assert file.name in lines[0]
        assert not Path("output/retrained.pt").exists()
    torch.save(valid, file)
    assert main([*command, "--resume"]) == 0


pytestmark = pytest.mark.filterwarnings("ignore")
