"""Folders with ONNX files: what is in them, and that they run without this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from in_a_fork import alone
from networks_to_export import PATH, write_retrained
from PIL import Image

import nni_spos
from nni_spos import open_data
from nni_spos.deployment.benchmark import benchmark, read_speeds
from nni_spos.errors import ExportError
from nni_spos.export.runtimes import open_onnxruntime, open_openvino
from nni_spos.export.safetensors_format import load_safetensors
from nni_spos.recipe.recipe import load_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    write_retrained(folder)
    nni_spos.export_network(folder / "recipe.yml", folder / "exported")
    return folder


@pytest.fixture(scope="module")
def lone_packages(tmp_path_factory):
    """A folder of packages that has onnxruntime, NumPy and Pillow alone."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("onnxruntime", "numpy", "PIL"):
        package = Path(find_spec(name).origin).parent
        (folder / name).symlink_to(package)
        for libraries in package.parent.glob(f"{'pillow' if name == 'PIL' else name}.libs"):
            (folder / libraries.name).symlink_to(libraries)
    return folder


def run_alone(folder, packages, *arguments):
    done = subprocess.run(
        [sys.executable, "-S", "predict.py", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(packages), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()


def test_it_predicts_where_nothing_else_is_installed(place, lone_packages, tmp_path):
    outside = "import torch" if find_spec("torch") else ""
    program = f"try:\n    {outside}\nexcept ImportError:\n    print('alone')"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": str(lone_packages)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "alone\n"
    trained = nni_spos.load_network(place / "output" / "retrained.pt")
    data = open_data(load_recipe(place / "recipe.yml").data)
    images, _ = next(iter(data.validation_batches(20)))
    classes = trained.network(images).argmax(1).tolist()
    assert len(set(classes)) > 1
    pixels = (images * data.spec.std[0] + data.spec.mean[0]).mul(255).round().to(torch.uint8)
    files = []
    for number, image in enumerate(pixels):
        files.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(image[0].numpy()).save(files[-1])
    lines = run_alone(place / "exported", lone_packages, *files)
    assert [int(line.split(": ")[1].split()[0]) for line in lines] == classes


def nodes(file):
    import onnx

    model = onnx.load(file)
    return model, [node.op_type for node in model.graph.node]


def test_the_graph(place):
    model, kinds = nodes(place / "exported" / "model.onnx")
    assert "BatchNormalization" not in kinds
    assert "Conv" in kinds
    assert {x.domain for x in model.opset_import} <= {"", "ai.onnx"}
    (images,), (outputs,) = model.graph.input, model.graph.output
    assert images.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert outputs.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert str(place) not in str(model)
    assert "site-packages" not in str(model)
    run = open_onnxruntime(place / "exported" / "model.onnx", 1)
    assert run(np.zeros((5, 1, 8, 8), np.float32)).shape == (5, 10)
    proof = json.loads((place / "exported" / "export.json").read_text())["verification"]
    assert proof["largest_difference"] <= 1e-4
    assert proof["agreement_percent"] == 100


def test_other_forms(place):
    folder = place / "forms"
    nni_spos.export_network(
        place / "recipe.yml", folder, static=7, fold=False, uint8=True, opset=20
    )
    model, kinds = nodes(folder / "model.onnx")
    assert "BatchNormalization" in kinds
    assert [x.version for x in model.opset_import] == [20]
    (images,) = model.graph.input
    assert [x.dim_value for x in images.type.tensor_type.shape.dim] == [7, 1, 8, 8]
    assert images.type.tensor_type.elem_type == 2  # uint8
    assert json.loads((folder / "preprocessing.json").read_text())["input"] == "uint8"
    with pytest.raises(ExportError, match=r"takes 7 images at a time\. Give --batch 7"):
        benchmark([folder])


def test_whole_numbers_of_8_bits(place):
    folder = place / "int8"
    # Fewer than of a trained network, whose outputs are further apart.
    found = nni_spos.export_network(place / "recipe.yml", folder, quantize="int8", agreement=60.0)
    _, kinds = nodes(folder / "model.onnx")
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(kinds)
    assert found.verification.largest_difference > 0
    assert found.verification.agreement_percent >= 60
    assert [x.name for x in folder.glob("*.onnx")] == ["model.onnx"]
    with pytest.raises(ExportError, match="needs training images"):
        nni_spos.export_network(place / "output" / "retrained.pt", place / "none", quantize="int8")
    assert not (place / "none").exists()


def test_a_path_with_the_weights_of_the_supernet(tmp_path):
    from trained_recipes import write_trained

    recipe = write_trained(tmp_path)
    found = nni_spos.export_network(recipe.file, tmp_path / "there", path=PATH)
    content = json.loads((found.folder / "export.json").read_text())
    assert content["weights"]["kind"] == "of the supernet"
    assert content["path"] == PATH
    assert set(content["costs"]) == {"flops", "params"}
    assert found.verification.largest_difference <= 1e-4


def test_a_benchmark_is_kept_beside_the_file(place, capsys):
    from nni_spos.cli import main

    original = str(place / "output" / "retrained.pt")
    arguments = ["benchmark", str(place / "exported"), "--runs", "12", "--original", original]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "times as fast as" in lines[-1]
    (speed,) = read_speeds(place / "exported")
    assert speed["runtime"] == "onnxruntime"
    assert 0 < speed["p50_ms"] <= speed["p90_ms"]
    assert speed["num_bytes"] == (place / "exported" / "model.onnx").stat().st_size
    assert speed["network_memory_bytes"] < speed["peak_memory_bytes"]
    assert len(benchmark([place / "exported"], batch=4, runs=3)) == 1
    assert [x["batch"] for x in read_speeds(place / "exported")] == [1, 4]


@alone
def test_openvino_computes_what_onnxruntime_does(place):
    (found,) = benchmark([place / "exported"], runtime="openvino", runs=3)
    assert found.runtime == "openvino"
    images = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    file = place / "exported" / "model.onnx"
    one, other = (open_file(file, 1)(images) for open_file in (open_onnxruntime, open_openvino))
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_weights_and_their_configuration(place):
    folder = place / "weights"
    nni_spos.export_network(place / "recipe.yml", folder, format="safetensors")
    trained = nni_spos.load_network(place / "output" / "retrained.pt")
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(load_safetensors(folder)(images), trained.network(images))
    assert not (folder / "predict.py").exists()
    content = json.loads((folder / "network.json").read_text())
    content["path"]["layer_1"] = "k7"
    (folder / "network.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match="cannot be rebuilt"):
        load_safetensors(folder)
    (folder / "network.json").write_text(
        json.dumps({**content, "space": {**content["space"], "name": "bomb:Space"}})
    )
    with pytest.raises(ExportError, match="not imported on a file's word"):
        load_safetensors(folder)


def test_a_quantized_network_is_compared_by_its_answers(tmp_path):
    path = {"channels_1": 4, "bits_1": "8w8a"}
    space = {"name": "resnet_small", "stage_repeats": [1], "stage_channels": [8],
             "channel_scales": [0.5, 1.0], "bit_pairs": [[8, 8], [4, 4]]}  # fmt: skip
    recipe = write_retrained(tmp_path, path, space=space)
    found = nni_spos.export_network(recipe.file, tmp_path / "there")
    assert found.verification.limits.difference is None
    assert found.verification.agreement_percent >= 99.9
    with pytest.raises(ExportError, match="is for float networks"):
        nni_spos.export_network(recipe.file, tmp_path / "int8", quantize="int8")


class Spectrum(torch.nn.Module):
    def forward(self, images):
        x = torch.special.bessel_j0(images)
        return x.flatten(1)[:, :10]


class Attention(torch.nn.Module):
    def forward(self, images):
        x = images.flatten(2)
        return torch.nn.functional.scaled_dot_product_attention(x, x, x).mean(1)[:, :10]


class FixedBatch(torch.nn.Module):
    def forward(self, images):
        return images.reshape(2, -1)[:, :10]


class Branches(torch.nn.Module):
    def forward(self, images):
        x = images.flatten(1)[:, :10]
        if x.sum() > 0:
            return x
        return -x


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (
            Spectrum,
            r"has no operator for \w+\.\w*bessel_j0 \(layer 'inner', test_onnx_folder",
        ),
        (Attention, r"only 4D .*; layer 'inner', test_onnx_folder\.py, line \d+\)\. Compute it in"),
        (FixedBatch, r"fixed number of images.*Export it with --static"),
        (Branches, r"cannot be traced \(test_onnx_folder\.py, line \d+\)"),
    ],
)
def test_what_onnx_cannot_have(network, words, tmp_path):
    from nni_spos.export.base import Model
    from nni_spos.export.images import InputImages
    from nni_spos.export.onnx_format import write_onnx

    images = InputImages(1, 8, 8, 8, (0.5,), (0.5,), 8)
    whole = torch.nn.Sequential()
    whole.add_module("inner", network())
    with pytest.raises(ExportError, match=words) as caught:
        write_onnx(Model(whole.eval(), images), tmp_path / "model.onnx", 18)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_opsets(place):
    for opset, words in ((11, "opset 18 and later"), (99, "knows up to")):
        with pytest.raises(ExportError, match=words):
            nni_spos.export_network(place / "recipe.yml", place / "none", opset=opset)
