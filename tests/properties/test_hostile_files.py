"""Files that are made to hang, to fill the memory or to run code; each beside one that is read."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from nni_spos.cli import main
from nni_spos.costs import stored as experiment_costs
from nni_spos.costs.stored import load_costs
from nni_spos.errors import MAX_LENGTH, CheckpointError, PathError, RecipeError, SposError
from nni_spos.evolution import Candidate, Journal, State
from nni_spos.experiment.check import check_config
from nni_spos.experiment.tuner_configuration import load_tuner_recipe
from nni_spos.files import atomic as files
from nni_spos.files import yaml_files
from nni_spos.files.tensors import is_loadable, load_tensors, save_tensors
from nni_spos.files.yaml_files import read_yaml
from nni_spos.modules.subnet import extract_subnet
from nni_spos.path import load_path
from nni_spos.process.child import python_command
from nni_spos.recipe.recipe import load_recipe
from nni_spos.report import gather_report
from nni_spos.retraining.network import SpaceArguments, TrainedNetwork, load_network, save_network
from nni_spos.search.results import load_results
from nni_spos.spaces import Form, build_space

RECIPE = {
    "output": "runs",
    "space": {"name": "shufflenet_small"},
    "data": {"name": "digits", "image_size": 16},
    "supernet": {"epochs": 1},
    "retrain": {"epochs": 1},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_recipe(**changes) -> Path:
    Path("recipe.yml").write_text(yaml.safe_dump({**RECIPE, **changes}))
    return Path("recipe.yml")


def line_of(error: type[SposError], function, *arguments) -> str:
    """Return the text of an error that comes at once."""
    begin = time.monotonic()
    with pytest.raises(error) as caught:
        function(*arguments)
    assert time.monotonic() - begin < 20
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) <= MAX_LENGTH
    return text


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [ha, ha]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("bad", "words", "good"),
    [
        (laughs(12), "its aliases stand for more than 100000 values", laughs(4)),
        (merges(12), "its aliases stand for more than 100000 values", merges(4)),
        ("a: &a [*a]", "its aliases stand for more than", "a: &a [1]\nb: *a"),
        ("a: 1\nb: 2\na: 3", "the key 'a' is there twice, line 3", "a: 1\nb: {a: 3}"),
        ("a: {'b': 1, b: 2}", "the key 'b' is there twice", "a: {'1': 1, 1: 2}"),
        ("a: &x {b: 1}\nc: {<<: *x, b: 2, b: 3}", "twice", "a: &x {b: 1}\nc: {<<: *x, b: 2}"),
        ("a: 0x" + "f" * 5000, "more than 1000 digits", "a: 0x" + "f" * 900),
        ("a: " + "[" * 2000, "is not valid YAML", "a: " + "[" * 50 + "]" * 50),
        ("a: !!python/object/apply:os.mkdir [canary]", "could not determine", "a: !!str x"),
        ("a: !!python/name:os.system", "could not determine", "a: !!set {x}"),
        ("a: \x1b[31m", "is not valid YAML", 'a: "\\e[31m"'),
        ("\ufeffa: b\n---\nc: d", "is not valid YAML", "\ufeffa: b"),
    ],
)
@pytest.mark.slow
def test_yaml(folder, bad, words, good):
    Path("any.yml").write_text(bad, encoding="utf-8")
    line = line_of(RecipeError, read_yaml, "any.yml")
    assert line.startswith("any.yml: is not valid YAML (")
    assert words in line
    Path("any.yml").write_text(good, encoding="utf-8")
    assert read_yaml("any.yml")
    assert not Path("canary").exists()


def test_a_key_twice_in_json(folder):
    Path("path.json").write_text('{"a": "k3", "b": {}, "a": "k5"}')
    line = line_of(PathError, load_path, "path.json")
    assert line == "path.json: is not valid JSON (the key 'a' is there twice)."
    Path("path.json").write_text('{"a": "k3", "b": "k3"}')
    assert load_path("path.json") == {"a": "k3", "b": "k3"}


def test_what_is_not_a_file(folder):
    Path("file.json").write_text('{"a": 1}')
    Path("link.json").symlink_to("file.json")
    assert load_path("link.json") == {"a": 1}
    Path("nowhere.json").symlink_to("missing.json")
    assert "nowhere.json: no such file" in line_of(PathError, load_path, "nowhere.json")
    Path("loop.json").symlink_to("loop.json")
    assert "loop.json: cannot be read" in line_of(PathError, load_path, "loop.json")
    os.mkfifo("pipe.json")  # reading would wait for ever
    assert "it is not a file" in line_of(PathError, load_path, "pipe.json")
    assert "it is not a file" in line_of(RecipeError, read_yaml, "pipe.json")
    assert "it is not a file" in line_of(PathError, load_path, "/dev/zero")
    assert "it is not a file" in line_of(PathError, load_path, folder)
    assert "cannot be read" in line_of(PathError, load_path, "a\0b.json")
    assert line_of(PathError, load_path, "a" * 5000).endswith(
        "a: cannot be read (File name too long)."
    )
    assert "cannot be loaded" in line_of(CheckpointError, load_tensors, folder)


def test_files_of_a_hundred_megabytes(folder):
    for name, limit in (("big.json", files.MAX_JSON_BYTES), ("big.yml", yaml_files.MAX_BYTES)):
        with open(name, "wb") as stream:
            stream.truncate(100_000_000)  # zeros that take no room on the disk
        read, error = (load_path, PathError) if name == "big.json" else (read_yaml, RecipeError)
        assert f"has 100000000 bytes; more than {limit} are not" in line_of(error, read, name)
    for name, read, limit in (
        ("full.yml", read_yaml, yaml_files.MAX_BYTES),
        ("full.json", load_path, files.MAX_JSON_BYTES),
    ):
        Path(name).write_bytes(b'{"a": 1}' + b" " * (limit - 8))
        assert read(name) == {"a": 1}
        with open(name, "ab") as stream:
            stream.write(b" ")
        assert "are not read" in line_of(SposError, read, name)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "a" * 256, "b/" * 600, "", 5])
@pytest.mark.parametrize("key", ["output", "root", "latency"])
def test_names_that_no_file_has(folder, key, name):
    def write(name):
        changes = {"output": name} if key == "output" else {"latency": [name]}
        if key == "root":
            changes = {"data": {"name": "digits", "root": name}}
        return write_recipe(**changes)

    line = line_of(RecipeError, load_recipe, write(name))
    assert line.startswith(f"recipe.yml: {'data.root' if key == 'root' else key}: ")
    assert load_recipe(write("é" * 100)).file.name == "recipe.yml"
    assert load_recipe(write("a" * 255)).file.name == "recipe.yml"


def test_older_formats_and_packed_archives(folder):
    content = {"a": torch.arange(4)}
    save_tensors("new.pt", content)
    assert torch.equal(load_tensors("new.pt")["a"], content["a"])
    torch.save(content, "old.pt", _use_new_zipfile_serialization=False)
    assert "old.pt: cannot be loaded safely" in line_of(CheckpointError, load_tensors, "old.pt")
    Path("pickle.pt").write_bytes(pickle.dumps({"a": 1}))
    assert "cannot be loaded safely" in line_of(CheckpointError, load_tensors, "pickle.pt")
    for way, words in ((zipfile.ZIP_DEFLATED, "it is packed"), (zipfile.ZIP_STORED, None)):
        with zipfile.ZipFile("new.pt") as old, zipfile.ZipFile("again.pt", "w", way) as again:
            for name in old.namelist():
                again.writestr(name, old.read(name))
        if words:
            assert words in line_of(CheckpointError, load_tensors, "again.pt")
        else:
            assert torch.equal(load_tensors("again.pt")["a"], content["a"])


def test_an_archive_whose_parts_share_their_bytes(folder):
    """Parts that overlap say together that they are larger than the file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a/version", "3")
        archive.writestr("a/data/0", bytes(1000))
        first = archive.infolist()[1]
        for i in range(1, 50):
            twin = zipfile.ZipInfo(f"a/data/{i}")
            for field in ("CRC", "compress_size", "file_size", "header_offset", "external_attr"):
                setattr(twin, field, getattr(first, field))
            archive.filelist.append(twin)
    Path("overlap.pt").write_bytes(packed.getvalue())
    line = line_of(CheckpointError, load_tensors, "overlap.pt")
    assert "it says that it is larger than it is" in line


def test_lists_that_stand_for_too_much_in_a_checkpoint(folder):
    content: list = ["ha"]
    for _ in range(30):
        content = [content] * 9
    save_tensors("laughs.pt", {"supernet_version": content})
    assert "too many values" in line_of(CheckpointError, load_tensors, "laughs.pt")
    save_tensors("fine.pt", {"supernet_version": [["ha"] * 9] * 9})
    assert load_tensors("fine.pt")


def test_a_network_that_would_take_terabytes(folder):
    arguments = {"stem_channels": 4, "stage_repeats": [1], "stage_channels": [8]}
    made_from = SpaceArguments("shufflenet_small", {**arguments, "last_channels": 16}, 10, 1, 8)
    network = extract_subnet(made_from.build(), {"layer_1": "k3"})
    save_network("fine.pt", TrainedNetwork(network, {"layer_1": "k3"}, {}, {}, {}, made_from))
    assert load_network("fine.pt").path == {"layer_1": "k3"}
    content = load_tensors("fine.pt")
    for name, value in [("last_channels", 10**11), ("last_channels", 2**70), ("dropout", "x")]:
        made = {**content["space"], "arguments": {**arguments, name: value}}
        save_tensors("bad.pt", {**content, "space": made})
        assert line_of(CheckpointError, load_network, "bad.pt").startswith("bad.pt: ")
    for size, words in ((10**6, "stand for much more than is in"), (10**3, "belongs to another")):
        wide = torch.zeros(1).expand(size, size)  # four bytes in the file
        weights = {**content["weights"], "classifier.0.weight": wide}
        save_tensors("bad.pt", {**content, "weights": weights})
        assert words in line_of(CheckpointError, load_network, "bad.pt")


def test_no_memory_is_taken_for_a_network_that_does_not_fit(folder, monkeypatch):
    arguments = {"stem_channels": 4, "stage_repeats": [1], "stage_channels": [8]}
    made_from = SpaceArguments("shufflenet_small", {**arguments, "last_channels": 16}, 10, 1, 8)
    network = extract_subnet(made_from.build(), {"layer_1": "k3"})
    save_network("fine.pt", TrainedNetwork(network, {"layer_1": "k3"}, {}, {}, {}, made_from))
    content = load_tensors("fine.pt")
    content["space"]["arguments"]["last_channels"] = 32
    save_tensors("bad.pt", content)
    devices = []
    build = SpaceArguments.build

    def record(self):
        devices.append(torch.empty(0).device.type)
        return build(self)

    monkeypatch.setattr(SpaceArguments, "build", record)
    line_of(CheckpointError, load_network, "bad.pt")
    assert devices == ["meta"]
    load_network("fine.pt")
    assert devices == ["meta", "meta", "cpu"]


@pytest.mark.parametrize(
    ("value", "is_accepted"),
    [
        (torch.ones(2, 3), True),
        (torch.ones(2, 3).half(), True),
        (torch.ones(1).expand(2, 3), True),
        (torch.ones(3, 2), False),
        (torch.ones(2, 3).int(), False),
        (torch.ones(2, 3).to(torch.complex64), False),
        (torch.ones(2, 3).to_sparse(), False),
        (torch.ones(2, 3).to("meta"), False),
        (torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8), False),
        ([[1.0] * 3] * 2, False),
        (None, False),
    ],
)
def test_weights_that_a_network_takes(value, is_accepted):
    like = torch.zeros(2, 3)
    assert is_loadable(value, like) == is_accepted
    if is_accepted:
        assert like.copy_(value).sum() == 6


@pytest.mark.parametrize("values", [{"last_channels": 10**11}, {"num_classes": 2**62}])
def test_a_recipe_that_would_take_terabytes(folder, values):
    with pytest.raises(RecipeError, match=r"^space shufflenet_small: "):
        build_space("shufflenet_small", values, Form.SUBNET)
    assert build_space("shufflenet_small", dict.fromkeys(values, 20), Form.SUBNET)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("os:system", {"command": "touch canary"}),
        ("subprocess:call", {"args": ["touch", "canary"]}),
        ("builtins:exec", {"source": "open('canary', 'w')"}),
        ("os:mkdir", {"path": "canary"}),
        ("pathlib:Path", {}),
        ("my_space:system", {"command": "touch canary"}),
    ],
)
def test_a_recipe_calls_no_function_of_a_library(folder, name, arguments):
    Path("my_space.py").write_text(
        "from os import system\n"
        "from nni_spos.spaces import ShuffleNetV2Space\n"
        "def make(num_classes=10):\n"
        "    return ShuffleNetV2Space.small(num_classes=num_classes)\n"
    )
    line = line_of(RecipeError, lambda: build_space(name, arguments, Form.SUBNET, folder=folder))
    assert line.startswith(f"space {name}: ")
    assert not Path("canary").exists()
    assert build_space("my_space:make", {"num_classes": 3}, Form.SUBNET, folder=folder)


def test_a_child_imports_nothing_from_the_working_directory(folder, monkeypatch):
    Path("yaml.py").write_text("open('canary', 'w').close()\n")
    plain = [sys.executable, "-c", "import yaml"]
    subprocess.run(plain, capture_output=True, check=False)
    assert Path("canary").exists(), "as Python does"
    Path("canary").unlink()
    done = subprocess.run(
        python_command("nni_spos.recipe.recipe", []), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path("canary").exists()
    commands = []

    def run(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 2, "", "CostError: planned")

    monkeypatch.setattr(experiment_costs.subprocess, "run", run)
    recipe = load_recipe(write_recipe())
    with pytest.raises(SposError, match="planned"):
        load_costs(recipe)
    assert commands == [python_command("nni_spos.costs.build", [str(recipe.file)])]


def test_a_child_gets_its_arguments(folder):
    done = subprocess.run(
        python_command("nni_spos.cli", ["costs", "missing.yml"]), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == f"RecipeError: {folder / 'missing.yml'}: no such file.\n"


def write_journal(path: dict, **settings) -> None:
    space = {label: {"_type": "choice", "_value": [choice]} for label, choice in path.items()}
    journal = Journal(Path("run") / "search.jsonl", {"choices": space, **settings})
    journal.append(Candidate(path, 0, 0, {"flops": 5}, State.DONE, {"top1": 50.0}))


def test_a_report_imports_nothing_on_a_records_word(folder):
    Path("evil.py").write_text("open('canary', 'w').close()\n")
    write_journal({"a": "k3"})
    recipe = write_recipe(space={"name": "evil:Space"}).absolute()
    Path("run/run.json").write_text(json.dumps({"recipe": str(recipe)}))
    found = gather_report("run")
    assert any("evil:Space is not imported on a record's word" in note for note in found.notes)
    assert not Path("canary").exists()


def test_what_a_journal_says_does_not_control_the_terminal(folder, capsys):
    write_journal({"\x1b]0;title": "k3\x1b[2J", "b": "\ud800"})
    assert main(["results", "run"]) == 0
    output = capsys.readouterr().out
    assert all(line.isprintable() for line in output.splitlines())
    assert r"k3\x1b[2J" in output
    assert r"\ud800" in output


@pytest.mark.parametrize("search", [5, [], {"objective": 5}, {"objective": "loss"}])
def test_a_journal_without_the_objective(folder, search):
    write_journal({"a": "k3"}, search=search)
    if isinstance(search, dict):
        assert "candidate 0 has a result" in line_of(SposError, load_results, "run")
    else:
        assert load_results("run").objective == "top1"


def test_arguments_of_the_tuner(folder):
    write_recipe()
    assert "classArgs: must map keys" in line_of(RecipeError, load_tuner_recipe, [1], folder)
    assert "a\\x00b" in line_of(RecipeError, load_tuner_recipe, {"recipe": "a\0b"}, folder)
    assert load_tuner_recipe({"recipe": "recipe.yml"}, folder).file == folder / "recipe.yml"


def test_a_search_space_file_that_explodes(folder):
    config = {
        "searchSpaceFile": "space.yml",
        "trialCommand": "nni-spos trial recipe.yml",
        "trialConcurrency": 1,
        "tuner": {
            "className": "nni_spos.experiment.tuner.EvolutionTuner",
            "codeDirectory": ".",
            "classArgs": {"recipe": "missing.yml"},
        },
        "trainingService": {"platform": "local"},
    }
    Path("spos.yml").write_text(yaml.safe_dump(config))
    Path("space.yml").write_text(laughs(12))
    line = line_of(RecipeError, check_config, "spos.yml")
    assert line.startswith("spos.yml: searchSpaceFile: ")
    assert "its aliases stand for" in line
    Path("space.yml").write_text("a: {_type: choice, _value: [1]}")
    assert "missing.yml: no such file" in line_of(RecipeError, check_config, "spos.yml")


def test_what_the_file_system_refuses_is_one_line(folder, capsys):
    write_journal({"a": "k3"})
    Path("file").write_text("")
    assert main(["results", "run", "--output", "file/best.json"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "Error: " in lines[0]
    assert "file" in lines[0]
    assert main(["results", "run", "--output", "folder/best.json"]) == 0
