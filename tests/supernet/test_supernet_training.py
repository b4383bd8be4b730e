"""Training the supernet of a recipe: from nothing, resumed, and by several processes."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import shutil
import sys

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nni_spos.errors import CheckpointError, ConstraintError, InfeasibleError, RecipeError
from nni_spos.priors import UniformPrior
from nni_spos.recipe.recipe import load_recipe
from nni_spos.supernet import load_supernet
from nni_spos.supernet import training as module
from nni_spos.supernet.building import build_recipe_costs
from nni_spos.supernet.training import ensure_supernet, train_supernet
from nni_spos.training import Start, last_checkpoint

SPACE = {"name": "shufflenet_small", "stem_channels": 4, "stage_repeats": [1, 2],
         "stage_channels": [8, 16], "last_channels": 16}  # fmt: skip


@pytest.fixture
def recipe_in(tmp_path):
    def write(folder="a", **supernet):
        content = {
            "output": folder,
            "space": SPACE,
            "data": {"name": "digits", "num_train": 120, "num_validation": 60},
            "supernet": {"epochs": 3, "batch_size": 40, "learning_rate": 0.1, **supernet},
            "retrain": {"epochs": 1},
        }
        file = tmp_path / f"{folder}.yml"
        file.write_text(yaml.safe_dump(content))
        return load_recipe(file)

    return write


@pytest.fixture
def folder_of():
    return lambda recipe: recipe.checkpoint.with_suffix("")


def weights(recipe):
    return load_supernet(recipe.checkpoint).weights


def assert_equal(one, other):
    assert list(one) == list(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("length", [{"epochs": 3}, {"epochs": None, "steps": 9}])
@pytest.mark.parametrize("stop_after", [1, 2])
def test_resuming_from_any_epoch_gives_the_same_weights_bit_for_bit(
    recipe_in, folder_of, stop_after, length
):
    whole, cut = recipe_in("whole", **length), recipe_in("cut", **length)
    train_supernet(whole)
    checkpoints = sorted(folder_of(whole).glob("*.ckpt"))
    assert [file.name for file in checkpoints] == [
        "step_0000003.ckpt", "step_0000006.ckpt", "step_0000009.ckpt"
    ]  # fmt: skip
    folder_of(cut).mkdir(parents=True)
    for file in checkpoints[:stop_after]:
        shutil.copy(file, folder_of(cut))
    torch.manual_seed(stop_after)  # whatever the process did before
    train_supernet(cut, Start.RESUME)
    assert_equal(weights(whole), weights(cut))
    last = [torch.load(last_checkpoint(folder_of(r)), weights_only=True) for r in (whole, cut)]
    momenta = [content["optimizer_states"][0]["state"] for content in last]
    assert momenta[0].keys() == momenta[1].keys()
    for key, state in momenta[0].items():
        assert torch.equal(state["momentum_buffer"], momenta[1][key]["momentum_buffer"])


@pytest.mark.slow
def test_resuming_from_a_named_checkpoint_is_the_same_again(recipe_in, folder_of):
    recipe = recipe_in()
    train_supernet(recipe)
    before = weights(recipe)
    train_supernet(recipe, folder_of(recipe) / "step_0000003.ckpt")
    assert_equal(before, weights(recipe))


@pytest.mark.slow
def test_another_seed_gives_other_weights_and_the_generator_is_not_the_reason(recipe_in):
    recipes = [recipe_in("a"), recipe_in("b"), recipe_in("c", seed=1)]
    for i, recipe in enumerate(recipes):
        torch.manual_seed(i)
        train_supernet(recipe)
    first, second, other = map(weights, recipes)
    assert_equal(first, second)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.slow
def test_nothing_is_overwritten_unasked(recipe_in, folder_of):
    recipe = recipe_in(epochs=1, keep_checkpoints=1)
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        train_supernet(recipe, Start.RESUME)
    train_supernet(recipe)
    before = recipe.checkpoint.read_bytes()
    for start in (Start.NEW, Start.RESUME):
        with pytest.raises(CheckpointError, match=r"is there already\. --overwrite"):
            train_supernet(recipe, start)
    assert recipe.checkpoint.read_bytes() == before
    recipe.checkpoint.unlink()
    with pytest.raises(CheckpointError, match=r"was begun here .*step_0000003.*--resume"):
        train_supernet(recipe)
    train_supernet(recipe, Start.OVERWRITE)
    assert recipe.checkpoint.exists()


@pytest.mark.slow
def test_a_checkpoint_of_other_settings_is_not_resumed(recipe_in, folder_of):
    recipe = recipe_in(epochs=1)
    train_supernet(recipe)
    checkpoint = last_checkpoint(folder_of(recipe))
    for changed, words in (
        (recipe_in(epochs=1, learning_rate=0.2), "supernet: learning_rate was 0.1 and now is 0.2"),
        (recipe_in(epochs=2), "supernet: epochs was 1 and now is 2"),
    ):
        with pytest.raises(CheckpointError, match=words):
            train_supernet(changed, checkpoint)
    train_supernet(recipe_in(epochs=1, keep_checkpoints=2), checkpoint)  # no matter for weights
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be loaded safely"):
        train_supernet(recipe, checkpoint)
    with pytest.raises(CheckpointError, match="not a checkpoint of a training"):
        train_supernet(recipe, recipe.checkpoint)


OWN = """
import nni
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

class Net(ModelSpace):
    def __init__(self, num_classes: int):
        super().__init__()
        self.conv = LayerChoice([nn.Conv2d(1, WIDTH, 3), nn.Conv2d(1, WIDTH, 3)], label="conv")
        self.head = nn.Linear(WIDTH, num_classes)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))
"""


@pytest.mark.slow
def test_a_checkpoint_of_other_layers_is_not_resumed(recipe_in, folder_of, tmp_path, monkeypatch):
    module_file = tmp_path / "own_net_of_two_widths.py"

    def write(width):
        module_file.write_text(OWN.replace("WIDTH", str(width)))
        # Python takes a compiled file for today's if size and second of the source are the same.
        os.utime(module_file, (next(seconds),) * 2)
        monkeypatch.delitem(sys.modules, "own_net_of_two_widths", raising=False)

    seconds = itertools.count(10**9)
    write(4)
    recipe = recipe_in()
    space = dataclasses.replace(recipe.space, name="own_net_of_two_widths:Net", arguments={})
    recipe = dataclasses.replace(recipe, space=space)
    train_supernet(recipe)
    recipe.checkpoint.unlink()
    write(6)
    with pytest.raises(
        CheckpointError, match=r"tensors: conv\.0\.weight was \[4, 1, 3, 3\] and now"
    ):
        train_supernet(recipe, Start.RESUME)
    write(4)
    train_supernet(recipe, Start.RESUME)


@pytest.mark.slow
def test_only_the_last_checkpoints_stay(recipe_in, folder_of):
    recipe = recipe_in(keep_checkpoints=2)
    train_supernet(recipe)
    names = sorted(file.name for file in folder_of(recipe).glob("*.ckpt"))
    assert names == ["step_0000006.ckpt", "step_0000009.ckpt"]
    assert list((folder_of(recipe) / "logs").glob("events*"))


@pytest.mark.slow
def test_tensorboard_shows_what_the_sampled_paths_cost(recipe_in, folder_of):
    recipe = recipe_in()
    train_supernet(recipe)
    events = EventAccumulator(str(folder_of(recipe) / "logs"), size_guidance={"histograms": 0})
    events.Reload()
    space, costs = build_recipe_costs(recipe)
    prior = module.build_prior(recipe.supernet, space, costs)
    for metric in ("flops", "params"):
        logged = events.Histograms(f"sampled_{metric}")
        assert [event.step for event in logged] == [3, 6, 9]
        for event in logged:
            paths = [prior.path(step) for step in range(event.step - 3, event.step)]
            prices = [costs[metric].price(path) for path in paths]
            value = event.histogram_value
            assert (value.num, value.min, value.max) == (3, min(prices), max(prices))
    assert {"loss", "top1", "learning_rate"} <= set(events.Tags()["scalars"])


def test_the_prior_of_a_recipe(recipe_in):
    space, costs = build_recipe_costs(recipe_in())
    flops = costs["flops"].price_many(space.enumerate())
    middle = float(np.median(flops))
    for settings, low, high in (
        ({"prior_bins": [f"flops <= {middle:.0f}"]}, 0, middle),
        ({"prior_quantiles": [0.5, 1]}, middle, max(flops)),
    ):
        recipe = recipe_in(prior="constrained", **settings)
        prior = module.build_prior(recipe.supernet, space, costs)
        prices = [costs["flops"].price(prior.path(step)) for step in range(200)]
        assert low <= min(prices) < max(prices) <= high
    uniform = module.build_prior(recipe_in().supernet, space, costs)
    assert uniform.path(5) == UniformPrior(space, 0).path(5)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"prior_bins": ["flops <= 10"]}, InfeasibleError, "flops <= 10"),
        ({"prior_bins": ["flop <= 10M"]}, ConstraintError, "unknown metric 'flop'; did you mean"),
        ({"prior_quantiles": [0.5, 0.4]}, ConstraintError, "quantiles"),
        ({"prior": "uniform", "progressive_resizing": {99: 0.5}}, RecipeError, "16 pixels, got 99"),
    ],
)
def test_what_cannot_be_trained_ends_before_anything_is_written(recipe_in, settings, error, words):
    recipe = recipe_in(**{"prior": "constrained", **settings})
    with pytest.raises(error, match=words):
        train_supernet(recipe)
    assert not recipe.output.exists()


@pytest.mark.slow
def test_a_constrained_training_resumes_and_is_another_one(recipe_in, folder_of):
    settings = {"prior": "constrained", "prior_quantiles": [0, 0.3]}
    recipe = recipe_in(**settings)
    train_supernet(recipe)
    before = weights(recipe)
    first = folder_of(recipe) / "step_0000003.ckpt"
    train_supernet(recipe, first)
    assert_equal(before, weights(recipe))
    with pytest.raises(CheckpointError, match="supernet: prior was 'constrained' and now is"):
        train_supernet(recipe_in(), first)


@pytest.mark.slow
def test_a_number_of_steps_instead_of_epochs(recipe_in, folder_of):
    recipe = recipe_in(epochs=None, steps=4)
    train_supernet(recipe)
    assert last_checkpoint(folder_of(recipe)).name == "step_0000004.ckpt"


@pytest.mark.slow
def test_an_interrupted_training_goes_on_by_itself(recipe_in, folder_of, monkeypatch):
    whole, cut = recipe_in("whole"), recipe_in("cut")
    train_supernet(whole)
    prior = module.build_prior(whole.supernet, *build_recipe_costs(whole))

    class Interrupting:
        space = prior.space

        def path(self, step):
            if step == 4:
                raise KeyboardInterrupt
            return prior.path(step)

    with monkeypatch.context() as patched:
        patched.setattr(module, "build_prior", lambda *_: Interrupting())
        with pytest.raises(KeyboardInterrupt):
            ensure_supernet(cut)
    assert not cut.checkpoint.exists()
    assert last_checkpoint(folder_of(cut)).name == "step_0000003.ckpt"
    assert ensure_supernet(cut) == cut.checkpoint
    assert_equal(weights(whole), weights(cut))


@pytest.mark.slow
def test_continuing_begins_goes_on_and_leaves_what_is_finished(recipe_in, folder_of):
    whole, cut = recipe_in("whole"), recipe_in("cut")
    train_supernet(whole)
    assert train_supernet(cut, Start.CONTINUE) == cut.checkpoint
    assert_equal(weights(whole), weights(cut))
    before = cut.checkpoint.stat().st_mtime_ns
    train_supernet(cut, Start.CONTINUE)
    assert cut.checkpoint.stat().st_mtime_ns == before
    cut.checkpoint.unlink()
    last = last_checkpoint(folder_of(cut))
    last.unlink()
    train_supernet(cut, Start.CONTINUE)
    assert last.exists()
    assert_equal(weights(whole), weights(cut))


def _ensure(file, queue):
    recipe = load_recipe(file)
    trained = []
    train = module._train
    module._train = lambda *arguments: trained.append(1) or train(*arguments)
    ensure_supernet(recipe)
    queue.put((len(trained), recipe.checkpoint.exists()))


@pytest.mark.spawn
def test_processes_that_need_it_together_train_it_once(recipe_in):
    recipe = recipe_in(epochs=1)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_ensure, args=(recipe.file, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    outcomes = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    assert sorted(outcomes) == [(0, True), (1, True)]
    with (
        module.exclusive(recipe.checkpoint.with_suffix(""), timeout=0),
        pytest.raises(CheckpointError, match="another process is training"),
    ):
        train_supernet(recipe, Start.OVERWRITE)
    assert recipe.checkpoint.exists()
