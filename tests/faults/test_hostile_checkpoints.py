"""Small files that would hang, fill the memory or end the process are refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import hostile_checkpoints
import pytest
import torch
from hostile_checkpoints import (
    SEEDS,
    call,
    checkpoint,
    dict_of,
    doubled,
    hostile,
    list_of,
    number,
    tensor,
    text,
    tuple_of,
)
from torch import nn

from nni_spos.errors import MAX_LENGTH, CheckpointError
from nni_spos.files import pickled_values
from nni_spos.files.tensors import load_tensors, save_tensors


def outcomes(files: list[Path]) -> list[dict]:
    command = [sys.executable, "-W", "ignore", hostile_checkpoints.__file__, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def write_all(folder: Path) -> list[Path]:
    files = []
    for kind, count in SEEDS.items():
        for seed in range(count):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # one has a part twice
                content = hostile(kind, seed)
            files.append(folder / f"{kind}-{seed}.pt")
            files[-1].write_bytes(content)
    return files


@pytest.mark.spawn
def test_each_is_an_object_or_one_line(tmp_path):
    files = write_all(tmp_path)
    assert len(files) > 150
    found = outcomes(files)
    assert [x["file"] for x in found] == list(map(str, files))
    for outcome in found:
        said = outcome["said"]
        assert outcome["code"] == 0, outcome
        assert said == "" or said.startswith(f"{outcome['file']}: cannot be loaded safely (")
        assert len(said) <= MAX_LENGTH
        assert said.isprintable()
    read = {Path(x["file"]).stem.rpartition("-")[0] for x in found if not x["said"]}
    assert read <= {"damaged", "other_instructions", "twins"}, "what is damaged may be harmless"


def test_they_are_the_same_each_time():
    for kind in ("tuples_as_keys", "damaged", "storages_that_lie", "overlapping"):
        assert hostile(kind, 1) == hostile(kind, 1)
        assert hostile(kind, 1) != hostile(kind, 2) or kind == "overlapping"


def words_of(file: Path, value: bytes) -> str:
    """Return why a checkpoint with a value is refused, or "" if it is read."""
    file.write_bytes(checkpoint(value))
    try:
        load_tensors(file)
    except CheckpointError as problem:
        return str(problem)
    return ""


def nested(depth: int) -> bytes:
    return b"]" * depth + b"a" * (depth - 1)


@pytest.mark.parametrize(
    ("bad", "words", "good"),
    [
        (doubled(30, 2, list_of), "too many values", doubled(12, 2, list_of)),
        (nested(60), "more than 50 containers", nested(40)),
        (
            dict_of(tuple_of(*[number(1)] * 200), b"N"),
            "a key has too many parts",
            dict_of(tuple_of(*[number(1)] * 50), b"N"),
        ),
        (tensor((5,)), "a tensor is larger than its storage", tensor((2, 2), (2, 1))),
        (tensor((10**4,) * 2, (0, 0)), "stand for much more", tensor((10**3,) * 2, (0, 0))),
        (tensor((2,), begin=3), "a tensor is larger", tensor((1,), begin=3)),
        (tensor((0, 10**18), (1, 1), begin=-1), "a shape is none", tensor((0, 10**18), (1, 1))),
        (
            call("encode", text("a"), text("idna")),
            "it contains bytes as 'idna'",
            call("encode", text("a"), text("latin1")),
        ),
        (
            call("ordered") + dict_of(text("items"), number(5)) + b"b",
            "a state dict has an unknown state",
            call("ordered") + dict_of(text("_metadata"), dict_of(text("a"), dict_of())) + b"b",
        ),
        (call("__builtin__ bytearray", number(5)), "builtin__.bytearray", call("set", b"]")),
        (call("counter", text("aab")), "a counter has no counts", call("counter", dict_of())),
    ],
)
def test_what_is_refused_and_what_is_read(tmp_path, bad, words, good):
    assert words in words_of(tmp_path / "bad.pt", bad)
    assert words_of(tmp_path / "good.pt", good) == ""


def keys(count: int) -> bytes:
    return dict_of(*[part for i in range(count) for part in (number((1 << 20) + i), b"N")])


def test_keys_that_may_collide(tmp_path):
    limit = pickled_values.MAX_ODD_KEYS
    assert "keys of unusual kinds" in words_of(tmp_path / "bad.pt", keys(limit + 1))
    assert words_of(tmp_path / "good.pt", keys(limit)) == ""
    dense = dict_of(*[part for i in range(3 * limit) for part in (number(i), b"N")])
    assert words_of(tmp_path / "good.pt", dense) == ""


def test_what_trainings_keep_is_read(tmp_path):
    """State dicts, optimizers, schedules, and the plain values beside them."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU())
    adam = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.MultiStepLR(adam, [2, 2, 5])
    network(torch.ones(1, 1, 4, 4)).sum().backward()
    adam.step()
    shared = torch.arange(24.0).reshape(4, 6)
    content = {
        "weights": network.state_dict(),
        "optimizer": adam.state_dict(),
        "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(),
        "parameter": nn.Parameter(shared.T),
        "views": [shared[1:, ::2], shared.T, shared],
        "kinds": [shared.to(kind) for kind in KINDS],
        "empty": torch.empty(0, 3),
        "one": torch.tensor(2.5),
        "expanded": torch.ones(1).expand(100, 100),
        "plain": [2**70, -3, 1.5, 2j, None, True, "\ud800", b"\0\xff", {3}, (1, ("a",)), {1.5: 2}],
        "shape": shared.shape,
        "device": torch.device("cpu"),
        "kind": torch.bfloat16,
    }
    save_tensors(tmp_path / "all.pt", content)
    found = load_tensors(tmp_path / "all.pt")
    expected = torch.load(tmp_path / "all.pt", weights_only=True)
    assert list(found) == list(content)
    for name in ("plain", "shape", "device", "kind", "schedule"):
        assert found[name] == expected[name] == content[name]
    for name in ("parameter", "random", "empty", "one", "expanded"):
        assert torch.equal(found[name], content[name])
    for one, other in zip(
        found["views"] + found["kinds"], content["views"] + content["kinds"], strict=True
    ):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU())
    other.load_state_dict(found["weights"])
    torch.optim.AdamW(other.parameters()).load_state_dict(found["optimizer"])


KINDS = [
    torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.uint16, torch.bool, torch.complex64, torch.complex128, torch.float8_e4m3fn,
]  # fmt: skip
