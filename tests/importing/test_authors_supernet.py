"""The authors' supernet as a file of ours: the same logits, and refusals of what it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml
from others_checkpoints import (
    PAPER,
    SMALL,
    TINY_ARGUMENTS,
    authors_checkpoint,
    authors_logits,
)
from PIL import Image
from small_spaces import set_path

import nni_spos
from nni_spos import cli, open_supernet
from nni_spos.errors import CheckpointError, RecipeError
from nni_spos.importing import import_weights
from nni_spos.spaces import ShuffleNetV2Space, published
from nni_spos.supernet import load_supernet

CHOICES = ("k3", "k5", "k7", "xcep")
PATHS = ([0, 1, 2], [3, 0, 3], [2, 3, 1])
OTHERS_NAMES = "features.0.0.branch_main.0.weight"


def path_of(blocks):
    return {f"layer_{i}": CHOICES[block] for i, block in enumerate(blocks, 1)}


def write(file, content, **options):
    torch.save(content, file, **options)
    return file


@pytest.fixture(scope="module")
def content():
    return authors_checkpoint()


@pytest.fixture
def file(tmp_path, content):
    return write(tmp_path / "checkpoint-150000.pth.tar", content)


@pytest.mark.parametrize("is_new", [True, False], ids=["archive", "older format"])
def test_paths_have_the_logits_that_the_authors_code_gives(tmp_path, content, is_new):
    # Older PyTorch, which the authors used, wrote pickles one after the other.
    file = write(tmp_path / "x.pth.tar", content, _use_new_zipfile_serialization=is_new)
    found = import_weights(file, "shufflenet_small", tmp_path / "supernet.pt", TINY_ARGUMENTS)
    assert (found.title, found.num_classes, found.channels) == ("the authors' supernet", 10, 3)
    assert dict(found.space) == {"name": "shufflenet_small", **TINY_ARGUMENTS}
    supernet = open_supernet(
        found.file, ShuffleNetV2Space.small(num_classes=10, **TINY_ARGUMENTS)
    ).eval()
    images = 50 * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    seen = set()
    for blocks in PATHS:
        set_path(supernet, path_of(blocks))
        with torch.no_grad():
            logits = supernet(images)
        expected = authors_logits(content, blocks, images)
        torch.testing.assert_close(
            logits, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max())
        )
        seen.add(logits.sum().item())
    assert len(seen) == len(PATHS)


@pytest.mark.slow
def test_the_authors_own_space_has_their_logits_too(tmp_path):
    content = authors_checkpoint(PAPER, last=1024, classes=1000)
    file = write(tmp_path / "checkpoint-150000.pth.tar", content)
    import_weights(file, "shufflenet", tmp_path / "supernet.pt")
    supernet = open_supernet(tmp_path / "supernet.pt", ShuffleNetV2Space()).eval()
    path = published("shufflenet-spos").path
    set_path(supernet, path)
    images = 50 * torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = supernet(images)
    blocks = [CHOICES.index(choice) for choice in path.values()]
    expected = authors_logits(content, blocks, images, PAPER, stem_stride=2)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_the_file_says_how_images_are_prepared_as_far_as_it_is_known(tmp_path, file):
    import_weights(file, "shufflenet_small", tmp_path / "supernet.pt", TINY_ARGUMENTS)
    checkpoint = load_supernet(tmp_path / "supernet.pt")
    assert checkpoint.preprocessing == {
        "known_in_part": True,
        "num_classes": 10,
        "channels": 3,
        "value_range": [0.0, 1.0],
        "mean": [0.0, 0.0, 0.0],
        "std": [1 / 255, 1 / 255, 1 / 255],
        "channel_order": "bgr",
    }
    assert checkpoint.made_for is None


def test_names_without_prefix_and_without_counted_batches_are_read_too(tmp_path, content):
    plain = {
        name.removeprefix("module."): tensor
        for name, tensor in content["state_dict"].items()
        if not name.endswith("num_batches_tracked")
    }
    import_weights(
        write(tmp_path / "x.pth", plain), "shufflenet_small", tmp_path / "a.pt", TINY_ARGUMENTS
    )
    import_weights(
        write(tmp_path / "y.pth", content), "shufflenet_small", tmp_path / "b.pt", TINY_ARGUMENTS
    )
    one, other = (load_supernet(tmp_path / name).weights for name in ("a.pt", "b.pt"))
    assert list(one) == list(other)
    assert int(one["first_conv.1.num_batches_tracked"]) == 0
    assert all(torch.equal(one[x], other[x]) for x in one if not x.endswith("tracked"))


def without(name):
    return lambda weights: weights.pop(f"module.{name}")


def with_tensor(name, *shape):
    return lambda weights: weights.update({f"module.{name}": torch.ones(shape)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            without(OTHERS_NAMES),
            f"'{OTHERS_NAMES}' has no tensor in it, and shape (12, 16, 1, 1) in the space.",
        ),
        (
            with_tensor(OTHERS_NAMES, 16, 16, 3, 3),
            f"'{OTHERS_NAMES}' has shape (16, 16, 3, 3) in it, and shape (12, 16, 1, 1) in the",
        ),
        (
            with_tensor("features.3.0.branch_main.0.weight", 2),
            "'features.3.0.branch_main.0.weight' has shape (2,) in it, and no tensor in the space.",
        ),
        (
            with_tensor("first_conv.1.bias", 16),
            "'first_conv.1.bias' has shape (16,) in it, and no tensor in the space.",
        ),
        (without("classifier.0.weight"), "'classifier.0.weight' has no tensor in it"),
        (with_tensor("classifier.0.weight", 3), "'classifier.0.weight' has shape (3,) in it"),
        (with_tensor("first_conv.0.weight", 4, 0, 3, 3), "has shape (4, 0, 3, 3) in it, and must"),
        (
            lambda weights: weights[f"module.{OTHERS_NAMES}"].fill_(float("nan")),
            f"the weight '{OTHERS_NAMES}' is not finite.",
        ),
    ],
)
def test_files_of_other_names_or_shapes_are_refused_in_a_line(tmp_path, change, words):
    content = authors_checkpoint()
    change(content["state_dict"])
    file = write(tmp_path / "x.pth", content)
    with pytest.raises(CheckpointError) as caught:
        import_weights(file, "shufflenet_small", tmp_path / "out" / "supernet.pt", TINY_ARGUMENTS)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_how_many_others_do_not_fit_is_said(tmp_path, content):
    file = write(tmp_path / "x.pth", content)
    with pytest.raises(CheckpointError, match=r"'features.0.0.* 414 other names do not fit either"):
        import_weights(file, "shufflenet_small", tmp_path / "supernet.pt")


class Bomb:
    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("is_new", [True, False], ids=["archive", "older format"])
def test_code_in_somebody_elses_file_is_not_run(tmp_path, is_new):
    trap = tmp_path / "trap"
    content = {"state_dict": {"a": torch.ones(2)}, "more": Bomb(trap)}
    file = write(tmp_path / "x.pth.tar", content, _use_new_zipfile_serialization=is_new)
    with pytest.raises(CheckpointError, match=r"cannot be loaded safely") as caught:
        import_weights(file, "shufflenet", tmp_path / "supernet.pt")
    assert "\n" not in str(caught.value)
    assert "mkdir" in str(caught.value)
    assert not trap.exists()


def test_a_file_of_the_older_format_that_was_cut_off_is_refused(tmp_path, content):
    file = write(tmp_path / "x.pth.tar", content, _use_new_zipfile_serialization=False)
    whole = file.read_bytes()
    for share in (0.001, 0.02, 0.5, 0.999):
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError, match=r"cannot be loaded safely"):
            import_weights(file, "shufflenet_small", tmp_path / "supernet.pt", TINY_ARGUMENTS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.ones(3), "is no state dict, but a Tensor"),
        ({}, "is no state dict, but a dict"),
        ({"state_dict": {"a": 3}}, "is no state dict: 'a' in it is a int, not a tensor"),
        ({"a": torch.ones(3)}, r"Its first weight is 'a' of shape \(3,\)\."),
        (
            {"blocks.1.blocks.0.k3e3.0.weight": torch.ones(3)},
            "but of one of proxylessnas_cpu, .* Use --as proxylessnas_cpu",
        ),
    ],
)
def test_what_is_no_file_of_the_kind_is_refused(tmp_path, content, words):
    with pytest.raises(CheckpointError, match=words):
        import_weights(write(tmp_path / "x.pth", content), "shufflenet", tmp_path / "s.pt")


def test_a_file_that_is_not_there_and_a_name_that_is_unknown_are_refused(tmp_path, file):
    with pytest.raises(CheckpointError, match=r"none.pth: no such file"):
        import_weights(tmp_path / "none.pth", "shufflenet", tmp_path / "s.pt")
    with pytest.raises(RecipeError, match=r"'shufflenets'; did you mean 'shufflenet'"):
        import_weights(file, "shufflenets", tmp_path / "s.pt")
    with pytest.raises(RecipeError, match=r"'fbnet'"):  # nobody else has its weights
        import_weights(file, "fbnet", tmp_path / "s.pt")


def test_a_supernet_is_not_taken_for_a_published_network(tmp_path, file):
    with pytest.raises(
        CheckpointError, match=r"are of a supernet, and not of shufflenet-spos. Use"
    ):
        import_weights(file, "shufflenet-spos", tmp_path / "s.pt")


@pytest.fixture
def small_file(tmp_path):
    return write(tmp_path / "small.pth.tar", authors_checkpoint(SMALL, last=256))


def test_the_command_says_what_a_recipe_needs(tmp_path, small_file, capsys):
    output = tmp_path / "runs" / "supernet.pt"
    code = cli.main(
        ["import", str(small_file), "--as", "shufflenet_small", "--output", str(output)]
    )
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    assert printed.out.splitlines() == [
        f"supernet: {output}",
        "  the authors' supernet, 10 classes, images of 3 channels",
        "  in a recipe: space: {name: shufflenet_small}",
        "               data: {channel_order: bgr, normalisation: none}",
    ]


def write_images(root, size=16):
    """Write an image folder of ten classes, two images each in both parts."""
    generator = torch.Generator().manual_seed(0)
    for part in ("train", "val"):
        for number in range(10):
            folder = root / part / f"class_{number}"
            folder.mkdir(parents=True)
            for i in range(4):
                pixels = torch.randint(256, (size, size, 3), generator=generator).byte()
                Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")


@pytest.mark.slow
def test_a_search_starts_at_once(tmp_path, small_file):
    write_images(tmp_path / "images")
    training = {"epochs": 1, "batch_size": 10}
    recipe = {
        "output": "runs",
        "space": {"name": "shufflenet_small"},
        "data": {
            "name": "image_folder",
            "root": "images",
            "image_size": 16,
            "num_validation": 10,
            "channel_order": "bgr",
            "normalisation": "none",
        },
        "supernet": training,
        "evaluation": {"recalibration_images": 20},
        "search": {"population_size": 4, "num_generations": 1},
        "retrain": training,
    }
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
    import_weights(small_file, "shufflenet_small", tmp_path / "runs" / "supernet.pt")
    found = nni_spos.run_search(nni_spos.load_recipe(tmp_path / "recipe.yml"))
    assert found.candidates
    # Other colours are those of other images.
    recipe["data"]["channel_order"] = "rgb"
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(
        CheckpointError, match=r"channel_order is 'bgr' in the checkpoint, 'rgb' in"
    ):
        nni_spos.run_search(nni_spos.load_recipe(tmp_path / "recipe.yml"), folder="other")
