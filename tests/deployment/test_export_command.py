"""What the command writes, whatever the format, and what it refuses."""

import json

import pytest
import torch
from networks_to_export import PATH

import nni_spos
from nni_spos.errors import ExportError, SposError
from nni_spos.files.tensors import save_tensors

MEMORY = ("--format", "memory_format:Memory")


def test_a_folder_says_what_is_in_it(export, work):
    lines = export("recipe.yml", *MEMORY)
    folder = work / "output" / "exported"
    assert lines[0] == f"exported: {folder}"
    assert {x.name for x in folder.iterdir()} == {
        "model.txt", "preprocessing.json", "classes.json", "export.json", "README.md",
    }  # fmt: skip
    content = json.loads((folder / "export.json").read_text())
    assert content["path"] == PATH
    assert content["bytes"] == len("here")
    proof = content["verification"]
    assert proof["num_images"] == 60
    assert proof["images"] == "search-validation images"
    assert proof["largest_difference"] == 0
    assert proof["agreement_percent"] == 100
    assert proof["file"] == proof["network"]
    assert json.loads((folder / "classes.json").read_text()) == [str(i) for i in range(10)]
    card = (folder / "README.md").read_text()
    assert "| layer\\_2 | xcep |" in card
    assert "network in PyTorch, on 20 test images | top-1 10.00 %" in card


def test_what_is_exported_is_what_was_found(export, work):
    export("recipe.yml", *MEMORY, "--verify", "7", "--output", "a/b")
    import memory_format

    trained = nni_spos.load_network("output/retrained.pt")
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(memory_format.WRITTEN["network"](images), trained.network(images))
    content = json.loads((work / "a" / "b" / "export.json").read_text())
    assert content["verification"]["num_images"] == 7


def test_a_network_alone_is_compared_on_random_images(export):
    lines = export("output/retrained.pt", *MEMORY, "--output", "alone", "--verify", "5")
    assert any("on 5 random images" in line for line in lines)
    assert "--recipe FILE" in lines[-1]
    lines = export("output/retrained.pt", *MEMORY, "--output", "named", "--recipe", "recipe.yml")
    assert any("on 60 search-validation images" in line for line in lines)


def test_test_images_are_used_only_if_asked_for(export, work):
    lines = export("recipe.yml", *MEMORY, "--test", "--verify", "10")
    assert any("on 10 test images" in line for line in lines)
    line = export("output/retrained.pt", *MEMORY, "--output", "x", "--test", code=2)
    assert "--test: test images are those of a recipe" in line


def test_a_file_that_differs_is_not_written(export, work):
    wrong = ("--set", "error=0.5")
    line = export("recipe.yml", *MEMORY, *wrong, "--output", "new/folder", code=2)
    assert line.startswith("ExportError: the file is not the network: its outputs differ")
    assert "0.5" in line
    assert not (work / "new").exists()
    lines = export("recipe.yml", *MEMORY, *wrong, "--tolerance", "1")
    assert any("differ by at most 0.5" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("recipe.yml", "--format", "onxx"), "unknown format 'onxx'; did you mean 'onnx'?"),
        (("recipe.yml", "--format", "memory_format:Memry"), "did you mean 'Memory'?"),
        (("recipe.yml", *MEMORY, "--opset", "18"), "unknown key 'opset'"),
        (("recipe.yml", *MEMORY, "--set", "error=-1"), "a number >= 0"),
        (("recipe.yml", *MEMORY, "--set", "error"), "must be KEY=VALUE"),
        (("recipe.yml", *MEMORY, "--static"), "leave out --static, --uint8 and --no-fold"),
        (("recipe.yml", *MEMORY, "--verify", "0"), "--verify: must be at least 1"),
        (("recipe.yml", *MEMORY, "--output", "output"), "the folder is not empty"),
        (("recipe.yml", *MEMORY, "--output", "recipe.yml"), "is not a folder"),
        (("none.yml", *MEMORY), "none.yml: no such file"),
        (("none.pt", *MEMORY), "none.pt: no such checkpoint"),
        (("output/retrained.pt", *MEMORY, "--path", "p.json"), "Give the recipe"),
        (("recipe.yml", *MEMORY, "--recipe", "recipe.yml"), "named by a recipe already"),
        (("recipe.yml", *MEMORY, "--path", "other.json"), "'k9' is not a choice"),
        (("damaged.pt", *MEMORY), "damaged.pt"),
        (("foreign.pt", *MEMORY), "is not a trained network"),
        (("recipe.yml", *MEMORY, "--path", "path.json"), "supernet.pt: no such checkpoint"),
    ],
)  # fmt: skip
def test_refusals(export, work, arguments, words):
    (work / "other.json").write_text(json.dumps({**PATH, "layer_1": "k9"}))
    (work / "path.json").write_text(json.dumps(PATH))
    (work / "damaged.pt").write_bytes((work / "output" / "retrained.pt").read_bytes()[:3000])
    save_tensors(work / "foreign.pt", {"weight": torch.ones(2)})
    assert words in export(*arguments, code=2)


def test_other_images_than_the_recipes(export, work):
    text = (work / "recipe.yml").read_text()
    (work / "other.yml").write_text(text.replace("image_size: 8", "image_size: 16"))
    line = export("output/retrained.pt", *MEMORY, "--recipe", "other.yml", code=2)
    assert "was 8 and now is 16" in line


def test_a_package_that_is_missing_is_named_with_its_extra(export, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *x: None if name == "onnx" else find(name, *x)
    )
    line = export("recipe.yml", code=2)
    assert "needs onnx. Install it: pip install 'nni_spos[onnx]'" in line


class Noisy(torch.nn.Module):
    def forward(self, images):
        return torch.randn(len(images), 10)


class Pair(torch.nn.Module):
    def forward(self, images):
        return images, images


class Fails(torch.nn.Module):
    def forward(self, images):
        raise RuntimeError("no such layer")


class Infinite(torch.nn.Module):
    def forward(self, images):
        return images.flatten(1) / 0


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Noisy, "other outputs each time"),
        (Pair, "returns a tuple"),
        (Fails, "does not run on images of shape (1, 8, 8) (RuntimeError: no such layer)"),
        (Infinite, "outputs of the network are not finite"),
    ],
)
def test_networks_that_no_file_can_be(network, words):
    from nni_spos.export.images import InputImages
    from nni_spos.export.preparing import settled

    images = InputImages(1, 8, 8, 8, (0.5,), (0.5,), 8)
    with pytest.raises(ExportError) as caught:
        settled(network(), images)
    assert words in str(caught.value)
    assert settled(torch.nn.Flatten(), images) is not None


def test_a_full_disk_leaves_nothing(small_disk, retrained_folder, monkeypatch, capsys):
    from nni_spos.cli import main

    monkeypatch.chdir(retrained_folder)
    small_disk.fill(free=4096)
    target = small_disk.root / "exported"
    before = sorted(small_disk.root.iterdir())
    assert main(["export", "recipe.yml", *MEMORY, "--output", str(target)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left" in line
    assert sorted(small_disk.root.iterdir()) == before


def test_in_python(work):
    found = nni_spos.export_network("recipe.yml", "there", format="memory_format:Memory", images=5)
    assert found.file.read_text() == "here"
    assert found.verification.num_images == 5
    with pytest.raises(SposError, match="not empty"):
        nni_spos.export_network("recipe.yml", "there", format="memory_format:Memory")
