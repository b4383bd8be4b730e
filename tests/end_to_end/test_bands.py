"""Images of four bands, 16 bits and two unequal sides go through all that is done with a recipe."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from nni_spos import load_network
from nni_spos.cli import main
from nni_spos.profilers.networks import count_macs

BANDS = '''
import numpy as np
from dataclasses import dataclass
from nni_spos.data import Dataset, DatasetSpec


@dataclass(frozen=True)
class Bands(Dataset):
    """Noise whose third band is brighter in the second class."""

    def spec(self):
        mean, std = (0.5,) * 4, (0.25,) * 4
        return DatasetSpec(self.name, 2, 4, (12, 20), (12, 20), mean, std, "shift", bits=16)

    def open_training_set(self):
        return self._images(0, 120)

    def open_test_set(self):
        return self._images(1, 40)

    def digest_training_images(self):
        return None

    def digest_test_images(self):
        return None

    def _images(self, seed, number):
        labels = np.arange(number) % 2
        images = np.random.default_rng(seed).integers(0, 20_000, (number, 4, 12, 20))
        images[:, 2] += 15_000 * labels[:, None, None]
        return images.astype(np.uint16), labels
'''

SHAPE = [4, 12, 16]
"""What the network gets for an image."""

RECIPE = {
    "output": "out",
    "space": {
        "name": "shufflenet",
        "stem_channels": 4,
        "stem_stride": 1,
        "stage_repeats": [1, 1],
        "stage_channels": [8, 16],
        "last_channels": 16,
    },
    "data": {
        "name": "bands:Bands",
        "image_size": [12, 16],
        "normalisation": "from data",
        "num_validation": 20,
    },
    "supernet": {
        "epochs": 6,
        "batch_size": 20,
        "learning_rate": 0.1,
        "progressive_resizing": {8: 0.5},
    },
    "evaluation": {"recalibration_images": 40, "batch_size": 20},
    "search": {"population_size": 4, "num_generations": 2, "top_k": 2},
    "latency": ["cpu.json"],
}


@pytest.mark.slow
def test_all_that_is_done_with_a_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "recipe.yml"
    (tmp_path / "bands.py").write_text(BANDS)

    def run(words):
        code = main(words.split())
        found = capsys.readouterr()
        assert code == 0, (words, found.err)
        return found.out

    file.write_text(yaml.safe_dump({**RECIPE, "latency": []}))
    run("latency recipe.yml --threads 1 --paths 2 --output cpu.json")
    assert json.loads((tmp_path / "cpu.json").read_text())["conditions"]["input_shape"] == SHAPE
    file.write_text(yaml.safe_dump(RECIPE))
    run("train recipe.yml")
    run("search recipe.yml --output best.json")
    run("retrain recipe.yml --path best.json")
    profile = json.loads(run("profile recipe.yml --path best.json --json"))
    run("report out/search --recipe recipe.yml --output report.html")
    run("correlate recipe.yml --retrain 3 --json correlation.json")

    # The network of the file has the costs of the images, and sees what the training saw.
    trained = load_network("out/retrained.pt")
    assert profile["input_shape"] == SHAPE
    for metric in ("flops", "params"):
        assert trained.costs[metric] == profile["path"][metric]
    assert trained.costs["flops"] == count_macs(trained.network, SHAPE)
    assert trained.settings["batch_size"] == RECIPE["supernet"]["batch_size"]
    kept = json.loads((tmp_path / "out" / "normalisation.json").read_text())
    assert [trained.preprocessing[x] for x in ("mean", "std")] == [kept["mean"], kept["std"]]
    assert (trained.preprocessing["image_size"], trained.preprocessing["bits"]) == ([12, 16], 16)

    # Test images that are prepared by hand, as its description says, are scored as `retrain` did.
    images, labels = read_test_images()
    images = torch.nn.functional.interpolate(
        torch.from_numpy(images).float(), (12, 16), mode="bilinear", antialias=True
    )
    mean, std = (torch.tensor(kept[x]).view(-1, 1, 1) for x in ("mean", "std"))
    with torch.inference_mode():
        logits = trained.network((images.round() / 65535 - mean) / std)
    top1 = 100 * (logits.argmax(1).numpy() == labels).mean()
    assert trained.test["top1"] == pytest.approx(top1)
    assert top1 > 80, "the third band tells the classes apart"


def read_test_images():
    names = {}
    exec(BANDS, names)
    return names["Bands"](None).open_test_set()
