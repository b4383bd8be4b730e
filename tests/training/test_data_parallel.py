"""Two processes train as one does with the same batches, and send only what the path used."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import yaml
from forked import as_srun, as_torchrun, run

from nni_spos.cli import main
from nni_spos.data import open_data
from nni_spos.errors import RecipeError
from nni_spos.priors import UniformPrior
from nni_spos.ranks import count_devices, launched, run_processes
from nni_spos.recipe.recipe import load_recipe
from nni_spos.retraining.network import load_network
from nni_spos.retraining.retrain import train_path, with_teacher
from nni_spos.supernet import load_supernet
from nni_spos.supernet import training as module
from nni_spos.supernet.building import build_recipe_costs
from nni_spos.training import last_checkpoint

SPACE = {"stem_channels": 4, "stage_repeats": [1, 2], "stage_channels": [16, 32],
         "last_channels": 16, "dropout": 0.0}  # fmt: skip
SETTINGS = {"steps": 20, "batch_size": 40, "learning_rate": 0.1}
PATH = {"layer_1": "k5", "layer_2": "xcep", "layer_3": "k3"}


@pytest.fixture
def recipe_in(tmp_path):
    def write(folder, space="shufflenet_small", data=None, section=None, **settings):
        content = {
            "output": folder,
            "space": {"name": space, **SPACE},
            "data": {"name": "digits", "num_train": 130, "num_validation": 60, **(data or {})},
            "supernet": {**SETTINGS, **settings} if section != "retrain" else SETTINGS,
            "retrain": {**SETTINGS, **settings} if section != "supernet" else SETTINGS,
        }
        file = tmp_path / f"{folder}.yml"
        file.write_text(yaml.safe_dump(content))
        return load_recipe(file)

    return write


def exactly(recipe):
    """The recipe in 64 bits, in which what differs by rounding only stays so for 20 steps."""
    return dataclasses.replace(
        recipe,
        supernet=dataclasses.replace(recipe.supernet, precision="64-true"),
        retrain=dataclasses.replace(recipe.retrain, precision="64-true"),
    )


def fit(rank, recipe, resume=None):
    """Train as one of the processes; return the weights and the number of values it sent."""
    saved = {}
    sent = []
    send = torch.distributed.all_reduce

    def counted(tensor, *arguments, **options):
        sent.append(tensor.numel() * tensor.is_floating_point())  # not Lightning's decisions
        return send(tensor, *arguments, **options)

    torch.distributed.all_reduce = counted
    build = module.build_recipe_supernet
    module.build_recipe_supernet = lambda *a: saved.setdefault("supernet", build(*a))
    space, costs = build_recipe_costs(recipe)
    prior = module.build_prior(recipe.supernet, space, costs)
    data = open_data(recipe.data)
    module._fit(recipe, data, prior, costs, torch.channels_last, resume)
    weights = {name: x.tolist() for name, x in saved["supernet"].state_dict().items()}
    return weights, sum(sent)


def tensors(weights):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in weights.items()}


def distance(one, other, kinds=("weight", "bias")):
    """The largest difference of a weight, where weights are of the size of 1."""
    names = [name for name in one if name.rpartition(".")[2] in kinds]
    assert names
    return max((one[name] - other[name]).abs().max().item() for name in names)


def alone(recipe):
    alone = dataclasses.replace(recipe.supernet, devices=1, strategy="auto")
    recipe = dataclasses.replace(recipe, supernet=alone)
    module.train_supernet(recipe)
    weights = load_supernet(recipe.checkpoint).weights
    return {name: x.double() for name, x in weights.items()}


@pytest.mark.spawn
@pytest.mark.parametrize("space", ["shufflenet_small", "shufflenet_joint_small"])
def test_twenty_steps_with_synchronised_batchnorm_are_those_of_one_process(recipe_in, space):
    recipe = exactly(recipe_in("together", space, devices=2, sync_batchnorm=True))
    first, second = (tensors(weights) for weights, _ in run(fit, recipe))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    single = exactly(recipe_in("single", space))
    expected = alone(single)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert distance(first, expected) < 1e-10
    assert distance(first, expected, statistics) < 1e-10
    assert load_supernet(recipe.checkpoint).weights.keys() == first.keys()
    other = alone(exactly(recipe_in("other", space, seed=1)))
    assert distance(first, other) > 1e-2


@pytest.mark.spawn
def test_steps_of_several_paths_are_those_of_one_process_and_gradients_are_sent_once(recipe_in):
    keys = {"paths": 3, "sandwich": True, "inplace_distillation": True, "steps": 6,
            "section": "supernet"}  # fmt: skip
    space = "shufflenet_joint_small"
    recipe = exactly(recipe_in("together", space, devices=2, sync_batchnorm=True, **keys))
    (first, sent), (second, _) = run(fit, recipe)
    first, second = tensors(first), tensors(second)
    assert distance(first, second) == 0
    assert distance(first, alone(exactly(recipe_in("single", space, **keys)))) < 1e-10
    _, largest = build_recipe_costs(recipe)[1]["flops"].dearest()
    # What it and the others use, and no more than once.
    assert num_weights(recipe, largest) * 6 <= sent < num_weights(recipe, largest) * 6 * 2


@pytest.mark.spawn
def test_local_batchnorm_trains_otherwise_but_alike_in_all_processes(recipe_in):
    recipe = exactly(recipe_in("local", devices=2))
    first, second = (tensors(weights) for weights, _ in run(fit, recipe))
    assert distance(first, second) == 0
    assert distance(first, second, ("running_mean",)) > 1e-3
    assert distance(first, alone(exactly(recipe_in("single")))) > 1e-3
    saved = load_supernet(recipe.checkpoint).weights
    assert distance(first, saved, ("running_mean", "weight")) == 0


@pytest.mark.spawn
def test_every_strategy_trains_the_same_and_ours_sends_the_least(recipe_in):
    recipe = exactly(recipe_in("auto", devices=2))
    settings = dataclasses.replace(recipe.supernet, strategy="ddp_find_unused_parameters_true")
    lightning = dataclasses.replace(recipe_in("lightning"), supernet=settings)
    (ours, sent), _ = run(fit, recipe)
    (theirs, _), _ = run(fit, lightning)
    assert distance(tensors(ours), tensors(theirs)) < 1e-10
    # Paths of blocks have costs of their own: BatchNorm without weights adds none.
    space, _ = build_recipe_costs(recipe)
    prior = UniformPrior(space, seed=0)
    assert sent == sum(num_weights(recipe, prior.path(step)) for step in range(20))


@pytest.mark.spawn
def test_of_channel_numbers_only_slices_are_sent(recipe_in):
    recipe = exactly(recipe_in("joint", "shufflenet_joint_small", devices=2, steps=3))
    (_, sent), _ = run(fit, recipe)
    space, _ = build_recipe_costs(recipe)
    prior = UniformPrior(space, seed=0)
    assert sent == sum(num_weights(recipe, prior.path(step)) for step in range(3))


def num_weights(recipe, path):
    """Weights of a path as the supernet trains them: without those of BatchNorm."""
    network = module.build_recipe_supernet(recipe).freeze(path)
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.spawn
def test_a_strategy_that_needs_all_weights_is_refused_in_one_line(recipe_in, capfd):
    file = recipe_in("ddp", devices=2, strategy="ddp").file
    run(command, ["train", str(file)])
    lines = capfd.readouterr().err.splitlines()
    assert any(line.startswith("RecipeError: strategy: ddp needs every weight") for line in lines)


@pytest.mark.spawn
def test_going_on_with_two_processes_gives_the_same_weights_bit_for_bit(recipe_in):
    recipe = recipe_in("whole", devices=2)
    (whole, _), _ = run(fit, recipe)
    folder = recipe.checkpoint.with_suffix("")
    for file in sorted(folder.glob("*.ckpt"))[2:]:
        file.unlink()
    assert last_checkpoint(folder).name == "step_0000006.ckpt"
    recipe.checkpoint.unlink()
    first, second = run(fit, recipe, last_checkpoint(folder))
    for name, value in whole.items():
        assert first[0][name] == value, name
        if name.endswith("weight"):
            assert second[0][name] == value, name
    # And with one, which is allowed: BatchNorm then has the whole batch.
    other = dataclasses.replace(recipe, supernet=dataclasses.replace(recipe.supernet, devices=1))
    recipe.checkpoint.unlink()
    module.train_supernet(other, folder / "step_0000003.ckpt")


@pytest.mark.spawn
def test_a_retraining_is_that_of_one_process(recipe_in):
    recipe = exactly(recipe_in("together", devices=2, sync_batchnorm=True))
    first, second = (tensors(weights) for weights in run(fit_path, recipe))
    single = exactly(recipe_in("single"))
    _, costs = build_recipe_costs(single)
    data = open_data(single.data)
    network = train_path(
        single, PATH, data, costs, single.files.retrained, module.Start.NEW
    ).network
    expected = {name: x.double() for name, x in network.state_dict().items()}
    assert distance(first, second) == 0
    assert distance(first, expected) < 1e-5  # it is kept in 32 bits


def fit_path(rank, recipe):
    from nni_spos.retraining.retrain import _fit

    folder = recipe.files.retrained.with_suffix("")
    data = open_data(recipe.data)
    weights, _ = _fit(recipe, PATH, data, folder, torch.channels_last, 1e6, None, "retrain")
    return {name: x.tolist() for name, x in weights.items()}


def command(rank, words):
    return main(words)


@pytest.mark.spawn
@pytest.mark.parametrize("variables", [as_torchrun, as_srun])
def test_the_commands_under_torchrun_and_slurm(recipe_in, tmp_path, capfd, variables):
    file = recipe_in("launched", devices="auto").file
    path = tmp_path / "path.json"
    path.write_text(json.dumps(PATH))
    for words, begin in (
        (["train", str(file), "--paths", "1"], "supernet: "),
        (["retrain", str(file), "--path", str(path), "--repeats", "2"], "2 seeds: "),
    ):
        assert run(command, words, variables=variables) == [0, 0]
        out, err = capfd.readouterr()
        assert out.count(begin) == 1
        assert "Error" not in err
        assert "distributed" not in err
        # There is something already: rank 0 refuses, and the others know.
        assert run(command, words, variables=variables) == [2, 0]
        assert capfd.readouterr().err.count("is there already") == 1
    supernet = tmp_path / "launched" / "supernet.pt"
    before = load_supernet(supernet).weights
    supernet.unlink()
    last_checkpoint(supernet.with_suffix("")).unlink()
    words = ["train", str(file), "--paths", "0", "--continue"]
    assert run(command, words, variables=variables) == [0, 0]
    for name, value in load_supernet(supernet).weights.items():
        assert torch.equal(value, before[name]), name
    assert load_network(tmp_path / "launched" / "retrained.pt").test["num_images"] == 360


@pytest.mark.spawn
def test_an_error_of_one_process_under_torchrun_is_a_line_in_each(recipe_in, capfd):
    file = recipe_in("broken", devices="auto").file
    assert run(broken_command, ["train", str(file)]) == [2, 2]
    lines = capfd.readouterr().err.splitlines()
    # The first one's progress bar has a line that does not end.
    assert {line[line.rindex("]") + 1 :] if "]" in line else line for line in lines} >= {
        "DataError: image 7 is damaged.",
        "ProcessError: another process of the training is gone.",
    }


def broken_command(rank, words):
    from nni_spos.data import TrainBatches
    from nni_spos.errors import DataError

    iterate = TrainBatches.__iter__

    def damaged(self):
        for number, batch in enumerate(iterate(self)):
            if rank == 1 and number == 1:
                raise DataError("image 7 is damaged.")
            yield batch

    TrainBatches.__iter__ = damaged
    code = main(words)
    if rank == 1:
        torch.distributed.destroy_process_group()  # as the end of the process does
    return code


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"devices": 1}, "devices: 1 on num_nodes: 1 is not what was launched: 4 processes on 1"),
        ({"devices": 2, "num_nodes": 2}, "2 on num_nodes: 2 is not what was launched"),
        ({"devices": 4}, None),
        ({"devices": "auto"}, None),
        ({"devices": "auto", "batch_size": 42}, "cannot share 42 images evenly"),
    ],
)
def test_what_was_launched_and_what_is_asked_for_agree(recipe_in, monkeypatch, settings, words):
    recipe = recipe_in("a", **settings)
    for name, value in as_torchrun(1, 4, 1234).items():
        monkeypatch.setenv(name, value)
    if words is None:
        assert count_devices(recipe.supernet) == 4
        assert (launched().rank, launched().num_nodes) == (1, 1)
    else:
        with pytest.raises(RecipeError, match=words):
            count_devices(recipe.supernet)


def test_gpus_that_are_not_there_and_machines_without_a_launcher(recipe_in, monkeypatch):
    assert count_devices(recipe_in("a", devices="auto").supernet) == 1
    with pytest.raises(RecipeError, match=r"num_nodes: 2 needs a launcher .*torchrun or srun"):
        run_processes(recipe_in("a", num_nodes=2).supernet, print)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert count_devices(recipe_in("a", devices="auto").supernet) == 2
    assert count_devices(recipe_in("a", devices=2).supernet) == 2
    with pytest.raises(RecipeError, match="devices: got 4, but 2 GPUs are visible"):
        count_devices(recipe_in("a", devices=4).supernet)


def test_only_the_commands_that_train_know_torchrun(recipe_in, monkeypatch):
    recipe = recipe_in("a", devices=2)
    for name, value in as_torchrun(0, 2, 1234).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match="under torchrun or srun run 'nni-spos train'"):
        module.train_supernet(recipe)


@pytest.mark.spawn
def test_techniques_train_in_two_processes_as_in_one(recipe_in):
    keys = {"opt": "adamw", "learning_rate": 0.01, "accumulate": 2, "model_ema": True,
            "sched": "cosine", "steps": 6}  # fmt: skip
    space = "shufflenet_joint_small"
    recipe = exactly(recipe_in("together", space, devices=2, sync_batchnorm=True, **keys))
    first, second = (tensors(weights) for weights, _ in run(fit, recipe))
    assert distance(first, second) == 0
    expected = alone(exactly(recipe_in("single", space, **keys)))
    assert distance(first, expected) < 1e-7
    assert distance(first, alone(exactly(recipe_in("plain", space, steps=6)))) > 1e-3


@pytest.mark.spawn
@pytest.mark.parametrize(
    "keys",
    [
        {"label_smoothing": 0.3},
        {"class_balanced": True},
        {"mixup": 0.4, "cutmix": 1.0},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_what_is_of_images_alone_does_not_depend_on_the_number_of_processes(recipe_in, keys):
    recipe = exactly(recipe_in("together", devices=2, sync_batchnorm=True, steps=6, **keys))
    first, second = (tensors(weights) for weights, _ in run(fit, recipe))
    assert distance(first, second) == 0
    assert distance(first, alone(exactly(recipe_in("single", steps=6, **keys)))) < 1e-10
    assert distance(first, alone(exactly(recipe_in("plain", steps=6)))) > 1e-4


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        ({"kd": "largest"}, 6),
        # No gain is large enough, so that it ends after the second of six epochs.
        ({"early_stopping": 1, "early_stopping_min_delta": 100}, 6),
    ],
    ids=lambda keys: next(iter(keys)) if isinstance(keys, dict) else "",
)
def test_a_retraining_with_a_technique_is_that_of_one_process(recipe_in, keys, steps):
    steps_asked = {"steps": steps if "kd" in keys else 18}
    both = {"sync_batchnorm": True, "devices": 2, "section": "retrain"}
    recipe = exactly(recipe_in("together", **both, **steps_asked, **keys))
    single = exactly(recipe_in("single", section="retrain", **steps_asked, **keys))
    _, costs = build_recipe_costs(single)
    data = open_data(single.data)
    network = train_path(
        single, PATH, data, costs, single.files.retrained, module.Start.NEW
    ).network
    expected = {name: x.double() for name, x in network.state_dict().items()}
    # The teacher, which is trained before, is the same for both.
    techniques = with_teacher(single, data, costs).retrain.techniques
    retraining = dataclasses.replace(recipe.retrain, techniques=techniques)
    recipe = dataclasses.replace(recipe, retrain=retraining)
    first, second = (tensors(weights) for weights in run(fit_path, recipe))
    assert distance(first, second) == 0
    assert distance(first, expected) < 1e-5  # it is kept in 32 bits
    plain = exactly(recipe_in("plain", section="retrain", **steps_asked))
    other = train_path(plain, PATH, data, costs, plain.files.retrained, module.Start.NEW).network
    assert distance(first, {name: x.double() for name, x in other.state_dict().items()}) > 1e-4
    for one in (recipe, single):
        assert last_checkpoint(one.files.retrained.with_suffix("")).name == f"step_{steps:07}.ckpt"
