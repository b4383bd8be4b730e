"""A seeded mutator: valid files of every kind that a user can be given, and damaged copies."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import random
import re
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

COUNTS = {
    "recipe": 100,
    "path": 60,
    "search_space": 60,
    "cost_table": 60,
    "latency_table": 60,
    "journal": 60,
    "supernet": 50,
    "network": 50,
    "training": 40,
    "score_cache": 40,
    "run_record": 40,
    "baseline": 40,
    "configuration": 40,
    "study": 40,
}
"""How many damaged copies of each kind there are: 740 together."""

WITH_TENSORS = ("supernet", "network", "training")

CANARY = "canary"
"""A file, or folder, that exists only if code in a damaged file was run."""

VALUES: list[Any] = [
    None, True, -1, 0, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "a" * 5000, [], {},
    "a\0b", "\ud800", "first\nsecond\x1b[31m", [[[[]]]], {"a": {"b": []}}, "../../etc/passwd",
]  # fmt: skip

NOISE = [
    b"\xff\xfe", b"\0", b"{", b"]", b",", b'"', b":", b"\n", b"\t", b"- ", b"NaN", b"1e999",
    b"9" * 5000, b"[" * 3000, b"&a [*a, *a]", b"<<: *a", b"!!python/tuple []", b"!!binary x",
    b"%YAML 9",
    b"!!python/object/apply:os.system ['touch canary']",
    b"!!python/object/new:os.mkdir ['canary']",
    b"!!python/module:antigravity", b"!!python/name:os.system",
]  # fmt: skip


class Gadget:
    """Runs a function where it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


@dataclass(frozen=True)
class Mutant:
    """A damaged file.

    Parameters
    ----------
    kind
        What it was.
    number
        Its number among those of the kind, which its damage is a function of.
    content
        Bytes.
    """

    kind: str
    number: int
    content: bytes


def mutants(kind: str, seed: bytes, canary: Path) -> list[Mutant]:
    """Return the damaged copies of a valid file.

    Parameters
    ----------
    kind
        Key of `COUNTS`.
    seed
        The file's content.
    canary
        What code in the copies would make.
    """
    damage = _damage_checkpoint if kind in WITH_TENSORS else _damage_text
    found = []
    for number in range(COUNTS[kind]):
        rng = random.Random(f"{kind} {number}")
        content = damage(seed, rng, canary, number)
        found.append(Mutant(kind, number, content))
    return found


def _damage_text(seed: bytes, rng: random.Random, canary: Path, number: int) -> bytes:
    if number % 2:
        return _damage_values(seed, rng)
    content = _damage_bytes(seed, rng)
    return re.sub(rb"\bcanary\b", os.fsencode(canary), content)


def _damage_bytes(content: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(content) + 1)
        end = min(len(content), start + rng.choice([0, 1, 1, 8, 64]))
        kind = rng.choice(["flip", "cut", "drop", "double", "noise", "noise", "noise"])
        if kind == "flip" and start < len(content):
            flipped = bytes([content[start] ^ (1 << rng.randrange(8))])
            content = content[:start] + flipped + content[start + 1 :]
        elif kind == "cut":
            content = content[:start]
        elif kind == "drop":
            content = content[:start] + content[end:]
        elif kind == "double":
            content = content[:end] + content[start:]
        else:
            content = content[:start] + rng.choice(NOISE) + content[end:]
    return content


def _damage_values(seed: bytes, rng: random.Random) -> bytes:
    """Change values and keys; the file stays JSON, which recipes may be too, or lines of it."""
    lines = seed.split(b"\n") if b'"sha256": "' in seed else [seed]
    i = rng.choice([number for number, line in enumerate(lines) if line])
    content = yaml.safe_load(lines[i])
    for _ in range(rng.randint(1, 2)):
        content = _damage_part(content, rng)
    text = json.dumps(content)
    if rng.random() < 0.15:
        text = re.sub(r'("\w+": )', r'\1"twice", \1', text, count=1)
    lines[i] = text.encode()
    return b"\n".join(lines)


def _damage_part(content: Any, rng: random.Random) -> Any:
    """Replace, remove or rename one part, however deep; what is already a plain value, replace."""
    if not isinstance(content, dict | list) or not content:
        return copy.deepcopy(rng.choice(VALUES))
    key = rng.choice(list(content)) if isinstance(content, dict) else rng.randrange(len(content))
    action = rng.random()
    if action < 0.1:
        content.pop(key)
    elif action < 0.2 and isinstance(content, dict):
        content[rng.choice(["", "\x1b[2J", "a" * 3000, "label_1", 5, None])] = content.pop(key)
    elif action < 0.25 and isinstance(content, list):
        content.append(content[key])
    elif action < 0.35:
        content[key] = copy.deepcopy(rng.choice(VALUES))
    else:
        content[key] = _damage_part(content[key], rng)
    return content


def _damage_checkpoint(seed: bytes, rng: random.Random, canary: Path, number: int) -> bytes:
    content = torch.load(io.BytesIO(seed), weights_only=True)
    key = "weights" if "weights" in content else "state_dict"
    kinds: list[Callable[[], bytes]] = [
        lambda: _flip_bits(seed, rng),
        lambda: seed[: rng.randrange(len(seed))],
        lambda: _saved(_damage_part(content, rng)),
        lambda: _saved({**content, key: _damage_weights(content[key], rng)}),
        lambda: _with_gadget(content, rng, canary),
        lambda: _saved(content | {rng.choice(list(content)): _explosive(rng)}),
        lambda: _repacked(seed, rng),
        lambda: _flip_bits(seed, rng, inside=b"FB"),
    ]
    return kinds[number % len(kinds)]()


def _flip_bits(content: bytes, rng: random.Random, inside: bytes = b"") -> bytes:
    changed = bytearray(content)
    limit = content.find(inside) if inside else len(content)  # numbers begin behind the pickle
    for _ in range(rng.choice([1, 4, 64])):
        changed[rng.randrange(max(limit, 1))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _damage_weights(weights: dict[str, Any], rng: random.Random) -> dict[Any, Any]:
    name = rng.choice(list(weights))
    tensor = weights[name]
    changed = rng.choice([
        5, None, "a" * 3000, tensor.double(), tensor.to(torch.complex64), tensor.to(torch.int8),
        tensor.reshape(-1)[:1], tensor.reshape(-1)[:1].expand(10**6, 10**6), torch.empty(0),
        tensor.to_sparse() if tensor.dim() else torch.ones(2).to_sparse(), tensor.to("meta"),
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    ])  # fmt: skip
    key = rng.choice([name, name, 5, "a" * 3000])
    return {**weights, key: changed}


def _with_gadget(content: Any, rng: random.Random, canary: Path) -> bytes:
    gadget = rng.choice([
        Gadget(os.system, f"touch {canary}"),
        Gadget(os.mkdir, str(canary)),
        Gadget(eval, f"open({str(canary)!r}, 'w')"),
        Gadget(exec, f"import os; os.mkdir({str(canary)!r})"),
        Gadget(subprocess.call, ["touch", str(canary)]),
    ])  # fmt: skip
    key = "weights" if "weights" in content else "state_dict"
    evil = rng.choice([gadget, {**content, key: gadget}, {**content, "cost": [gadget]}])
    way = rng.choice(["zip", "pickle", "legacy"])
    if way == "pickle":
        return pickle.dumps(evil)
    return _saved(evil, zipped=way == "zip")


def _explosive(rng: random.Random) -> Any:
    """Return a few lists that stand for 9^30 values, or a list that contains itself."""
    content: list[Any] = []
    if rng.random() < 0.3:
        content.append(content)
        return content
    for _ in range(30):
        content = [content] * 9
    return rng.choice([content, {"a": content}])


def _repacked(seed: bytes, rng: random.Random) -> bytes:
    """Pack some of the archive's parts, and perhaps make one of them huge."""
    packed = io.BytesIO()
    huge = rng.random() < 0.5
    with (
        zipfile.ZipFile(io.BytesIO(seed)) as old,
        zipfile.ZipFile(packed, "w") as new,
    ):
        for name in old.namelist():
            part = zipfile.ZipInfo(name)  # without the time
            part.compress_type = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
            new.writestr(part, bytes(4 << 20) if huge and "/data/" in name else old.read(name))
            huge = huge and "/data/" not in name
    return packed.getvalue()


def _saved(content: Any, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()
