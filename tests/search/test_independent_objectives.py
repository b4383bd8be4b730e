"""What a search says of a path is what plain PyTorch finds for its network, for every task.

The network is NNI's own frozen one, its statistics are gathered by hand, all validation images are
one batch with targets looked up among the raw ones, and scikit-learn computes the figure.
"""

from __future__ import annotations

import dataclasses
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import average_precision_score, jaccard_score, r2_score
from torch import nn

from nni_spos.data import open_data
from nni_spos.recipe.dataset import find_dataset
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.running import run_search
from nni_spos.spaces import Form
from nni_spos.supernet import load_supernet
from nni_spos.supernet.building import build_recipe_space
from nni_spos.supernet.training import train_supernet

EXAMPLES = Path(__file__).parents[2] / "examples"

SMALL = {
    "supernet": {"epochs": 8, "batch_size": 32, "learning_rate": 0.1, "warmup_steps": 5},
    "evaluation": {"recalibration_images": 96, "batch_size": 32},
    "search": {"population_size": 4, "num_generations": 1, "top_k": 2},
}


def write_small(folder, name):
    """Copy an example, with a short training and a search of four paths."""
    shutil.copytree(EXAMPLES / name, folder / name)
    if name == "own_data":
        runpy.run_path(str(folder / name / "make_images.py"), run_name="__main__")
    file = folder / name / "recipe.yml"
    example = yaml.safe_load(file.read_text())
    content = {**example, **SMALL, "output": "output"}
    if name == "segmentation":  # with less training all paths predict the background
        content["supernet"] = example["supernet"]
    file.write_text(yaml.safe_dump(content))
    return load_recipe(file)


def outputs_of(recipe, path, data):
    """What the path's network returns for all validation images."""
    space = build_recipe_space(recipe, Form.SUPERNET)
    space.load_state_dict(load_supernet(recipe.checkpoint).weights)
    network = space.freeze(path).eval()
    norms = [x for x in network.modules() if isinstance(x, nn.BatchNorm2d)]
    sums = {norm: [0.0, 0.0] for norm in norms}

    def note(norm, inputs):
        x = inputs[0].transpose(0, 1).flatten(1)
        sums[norm][0] = sums[norm][0] + x.mean(1)
        sums[norm][1] = sums[norm][1] + x.var(1)

    handles = [norm.register_forward_pre_hook(note) for norm in norms]
    settings = recipe.evaluation
    batches = list(data.recalibration_batches(96, settings.batch_size, settings.seed))
    with torch.no_grad():
        for norm in norms:
            norm.train()
        for images, _ in batches:
            network(images)
        for handle, norm in zip(handles, norms, strict=True):
            handle.remove()
            norm.running_mean.copy_(sums[norm][0] / len(batches))
            norm.running_var.copy_(sums[norm][1] / len(batches))
            norm.eval()
        return network(torch.cat([x for x, _ in data.validation_batches(50)]))


def own_targets(recipe, data):
    """Targets of the validation images; of drawn ones looked up by the bytes of these."""
    if recipe.data.name == "csv":  # its images are resized
        return torch.cat([y for _, y in data.validation_batches(50)]).numpy()
    images, targets = find_dataset(recipe.data).open_training_set()
    known = {np.ascontiguousarray(x).tobytes(): y for x, y in zip(images, targets, strict=True)}
    assert len(known) == len(images)
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (data.spec.mean, data.spec.std))
    found = []
    for image in torch.cat([x for x, _ in data.validation_batches(50)]):
        pixels = ((image * std + mean) * 255).round().to(torch.uint8)
        torch.testing.assert_close((pixels / 255 - mean) / std, image)
        found.append(known[np.ascontiguousarray(pixels.numpy()).tobytes()])
    return np.stack(found)


def average_precision(outputs, targets):
    return average_precision_score(targets, outputs.sigmoid().numpy(), average="macro"), 1e-6


def explained_variance(outputs, targets):
    return r2_score(targets, outputs.numpy()), 1e-6


def mean_iou(outputs, targets):
    """A pixel whose best two classes are the same up to rounding may be counted for either."""
    first, second = outputs.topk(2, dim=1).values.unbind(1)
    ties = int((first - second < 1e-5 * outputs.abs().max()).sum())
    predicted = outputs.argmax(1).numpy().ravel()
    found = 100 * jaccard_score(targets.ravel(), predicted, average="macro")
    return found, 1e-6 + 100 * ties / np.bincount(targets.ravel()).min()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "objective", "compute"),
    [
        ("own_data", "map", average_precision),
        ("segmentation", "miou", mean_iou),
        ("keypoints", "r2", explained_variance),
    ],
)
def test_the_objective_of_every_row_is_an_independent_computation(
    name, objective, compute, tmp_path
):
    recipe = write_small(tmp_path, name)
    assert recipe.search.maximised == objective
    train_supernet(recipe)
    results = run_search(recipe, progress=False)
    assert results.objective == objective
    data = open_data(recipe.data, task=recipe.task, measured=recipe.files.normalisation)
    targets = own_targets(recipe, data)
    rows = {str(x.path): x.metrics[objective] for x in results.candidates}
    assert len(set(rows.values())) > 1
    for candidate in results.candidates:
        value, tolerance = compute(outputs_of(recipe, candidate.path, data), targets)
        assert rows[str(candidate.path)] == pytest.approx(value, abs=tolerance)
    # And of what is retrained: the test figure, of the file that anybody can open.
    assert_test_figure(recipe, results.best.path, objective, compute)


def assert_test_figure(recipe, path, objective, compute):
    from nni_spos.retraining.network import load_network
    from nni_spos.retraining.retrain import retrain

    settings = dataclasses.replace(recipe.retrain, epochs=2, batch_size=32, learning_rate=0.05)
    recipe = dataclasses.replace(recipe, retrain=settings)
    retrain(recipe, path)
    space = build_recipe_space(recipe, Form.SUBNET)
    trained = load_network(recipe.files.retrained, space)
    data = open_data(recipe.data, task=recipe.task)
    batches = list(data.test_batches(50))
    with torch.no_grad():
        outputs = trained.network(torch.cat([x for x, _ in batches]))
    targets = torch.cat([y for _, y in batches]).numpy()
    value, tolerance = compute(outputs, targets)
    assert trained.test[objective] == pytest.approx(value, abs=tolerance)
