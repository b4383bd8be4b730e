"""Small checkpoints that would take much time or memory, or end the process; from kinds and seeds.

As a program: load files, each in a process of its own with little memory and little time, and
print what came of each as a line of JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import struct
import sys
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY = 2 << 30
"""Bytes that a process may take beyond what it has before it loads."""

SECONDS = 20
"""That it may take."""

P = 2**61 - 1
"""Whole numbers that differ by this have the same hash."""

FUNCTIONS = {
    "tensor": "torch._utils _rebuild_tensor_v2",
    "parameter": "torch._utils _rebuild_parameter",
    "ordered": "collections OrderedDict",
    "encode": "_codecs encode",
    "set": "__builtin__ set",
    "counter": "collections Counter",
    "size": "torch Size",
}


def pick(rng: random.Random, values: list) -> Any:
    """Return one value after the other as the seeds count up."""
    return values[rng.number % len(values)]  # type: ignore[attr-defined]


def text(value: str) -> bytes:
    content = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(content)) + content


def number(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def tuple_of(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def list_of(*parts: bytes) -> bytes:
    return b"](" + b"".join(parts) + b"e"


def dict_of(*parts: bytes) -> bytes:
    return b"}(" + b"".join(parts) + b"u"


def name(full: str) -> bytes:
    module, _, function = FUNCTIONS.get(full, full).partition(" ")
    return f"c{module}\n{function}\n".encode()


def call(function: str, *arguments: bytes) -> bytes:
    return name(function) + tuple_of(*arguments) + b"R"


def put(place: int) -> bytes:
    return b"r" + struct.pack("<I", place)


def get(place: int) -> bytes:
    return b"j" + struct.pack("<I", place)


def storage(length: int, key: str = "0", kind: str = "torch FloatStorage") -> bytes:
    return tuple_of(text("storage"), name(kind), text(key), text("cpu"), number(length)) + b"Q"


def tensor(
    shape: tuple[int, ...] = (4,),
    steps: tuple[int, ...] = (1,),
    begin: int = 0,
    hooks: bytes | None = None,
    stored: bytes | None = None,
) -> bytes:
    return call(
        "tensor",
        stored or storage(4),
        number(begin),
        tuple_of(*map(number, shape)),
        tuple_of(*map(number, steps)),
        b"\x89",
        hooks or call("ordered"),
    )


def archive(pickle: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    """Return an archive as PyTorch writes it, with a pickle and storages of four numbers."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr(_part("a/data.pkl"), pickle)
        packed.writestr(_part("a/byteorder"), "little")
        for key, content in ({"0": bytes(16)} if storages is None else storages).items():
            packed.writestr(_part(f"a/data/{key}"), content)
        packed.writestr(_part("a/version"), "3\n")
    return stream.getvalue()


def _part(name: str, packing: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    """Return a part of an archive, without the time."""
    found = zipfile.ZipInfo(name)
    found.compress_type = packing
    return found


def checkpoint(value: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    """Return a checkpoint that has a value beside ordinary weights."""
    content = dict_of(text("weights"), dict_of(text("a"), tensor()), text("value"), value)
    return archive(b"\x80\x02" + content + b".", storages)


def doubled(levels: int, ways: int, pack: Callable[..., bytes] = tuple_of, first: int = 0) -> bytes:
    """Return a value that stands for ways^levels others."""
    parts = [pack(number(1)) + put(first)]
    parts += [pack(*[get(first + i - 1)] * ways) + put(first + i) for i in range(1, levels)]
    return list_of(*parts, get(first + levels - 1))


def chain(depth: int, kind: str) -> bytes:
    if kind == "tuple":
        return b")" + b"\x85" * depth
    return b"]" * depth + b"a" * (depth - 1) if kind == "list" else _dicts(depth)


def _dicts(depth: int) -> bytes:
    return (b"}" + text("a")) * depth + b"N" + b"s" * depth


def again(times: int, made: bytes, repeat: bytes) -> bytes:
    """Return a list of what is made of one value again and again."""
    return list_of(made + put(0), repeat * times)


def called_again(function: str, value: bytes, rng: random.Random) -> bytes:
    times = rng.randint(8_000, 12_000)
    return again(times, value, name(function) + get(0) + b"\x85R")


def sets_again(rng: random.Random) -> bytes:
    return called_again("set", list_of(*map(number, range(300, 10_300))), rng)


def counters_again(rng: random.Random) -> bytes:
    pairs = [part for i in range(300, 5_300) for part in (number(i), number(1))]
    return called_again("counter", dict_of(*pairs), rng)


def counted_lists(rng: random.Random) -> bytes:
    return called_again("counter", list_of(*map(number, range(300, 10_300))), rng)


def sizes_again(rng: random.Random) -> bytes:
    return called_again("size", tuple_of(*[number(1)] * 20_000), rng)


def bytes_again(rng: random.Random) -> bytes:
    times = rng.randint(100_000, 200_000)
    repeat = get(1) + get(0) + get(2) + b"\x86R"
    start = text("a" * 50_000) + put(0), name("encode") + put(1), text("latin1") + put(2)
    return list_of(*start, repeat * times)


def states_again(rng: random.Random) -> bytes:
    pairs = [part for i in range(10_000) for part in (text(str(i)), b"N")]
    return list_of(dict_of(*pairs) + put(0), call("ordered"), (get(0) + b"b") * 20_000)


def colliding_keys(rng: random.Random) -> bytes:
    count = rng.randint(25_000, 30_000)
    return dict_of(*[part for i in range(count) for part in (number(7 + i * P), b"N")])


def colliding_members(rng: random.Random) -> bytes:
    count = rng.randint(25_000, 30_000)
    return call("set", list_of(*[number(9 + i * P) for i in range(count)]))


def colliding_places(rng: random.Random) -> bytes:
    return list_of(*[b"N" + put(i << 16) for i in range(1, 60_000)])


def tuples_as_keys(rng: random.Random) -> bytes:
    levels = rng.randint(40, 80)
    return list_of(doubled(levels, 2), dict_of(get(levels - 1), b"N"))


def tuples_in_sets(rng: random.Random) -> bytes:
    levels = rng.randint(40, 80)
    return list_of(doubled(levels, 2), call("set", list_of(get(levels - 1))))


def equal_tuples(rng: random.Random) -> bytes:
    levels = rng.randint(24, 27)
    both = doubled(levels, 2), doubled(levels, 2, first=levels)
    return list_of(*both, dict_of(get(levels - 1), b"N", get(2 * levels - 1), b"N"))


def deep_keys(rng: random.Random) -> bytes:
    return dict_of(chain(rng.randint(200_000, 400_000), "tuple"), b"N")


def odd_state(rng: random.Random) -> bytes:
    state = pick(rng, [
        dict_of(text("items"), number(5)),
        dict_of(text("_metadata"), number(5)),
        dict_of(text("_metadata"), dict_of(text(""), number(5))),
        dict_of(text("_metadata"), dict_of(text(""), dict_of(text("version"), text("x")))),
        dict_of(text("_metadata"), dict_of(), text("copy"), b"N"),
    ])  # fmt: skip
    return call("ordered") + state + b"b"


def late_hooks(rng: random.Random) -> bytes:
    """Hooks that are empty while the tensor is made."""
    hooks = call("ordered") + put(0)
    return list_of(tensor(hooks=hooks), get(0) + number(rng.randrange(9)) + b"Ns")


def beyond_the_storage(rng: random.Random) -> bytes:
    n = rng.randint(10**8, 10**9)
    return pick(rng, [
        tensor((n,), (1,)), tensor((2,), (n,)), tensor((1,), (1,), begin=n), tensor((n, n), (1, 1)),
        tensor((2**62,), (4,)), tensor((3,), (2**61,)),
    ])  # fmt: skip


def storages_that_lie(rng: random.Random) -> bytes:
    n = rng.randint(10**6, 10**8)
    return pick(rng, [
        tensor((n,), (1,), stored=storage(n, "1")),
        tensor((4,), (1,), stored=storage(4, "2")),
        tensor((2,), (1,), stored=storage(2, kind="torch DoubleStorage")),
        tensor((4,), (1,), stored=storage(-4, "1")),
        storage(n, "1"),
    ])  # fmt: skip


def expanded(rng: random.Random) -> bytes:
    n = rng.randint(10**4, 10**6)
    return pick(rng, [tensor((n, n), (0, 0)), list_of(*[tensor((n * 99,), (0,))] * 99)])


def allocated(rng: random.Random) -> bytes:
    n = number(rng.randint(3 << 30, 1 << 34))
    return pick(rng, [
        call("__builtin__ bytearray", n), call("torch.storage UntypedStorage", n),
        call("torch FloatTensor", n), call("torch DoubleTensor", n), call("torch Tensor", n),
        name("torch Tensor") + tuple_of(n) + b"\x81", name("torch FloatTensor") + n + b"\x85\x81",
        name("__builtin__ bytearray") + tuple_of(n) + b"\x81",
    ])  # fmt: skip


def allocated_again(rng: random.Random) -> bytes:
    n = number(rng.randint(1 << 20, 1 << 24))
    start = name("__builtin__ bytearray") + put(0), n + put(1)
    return list_of(*start, (get(0) + get(1) + b"\x85R") * 4000)


def other_tensors(rng: random.Random) -> bytes:
    n = rng.randint(10**5, 10**6)
    shape = tuple_of(number(n), number(n))
    float32, layout = (
        name("torch float32"),
        call("torch.serialization _get_layout", text("torch.sparse_coo")),
    )
    return pick(rng, [
        call("torch._utils _rebuild_sparse_tensor", layout, tuple_of(
            tensor((2, 0), (1, 1)), tensor((0,), (1,)), shape, b"\x88")),
        call("torch._utils _rebuild_meta_tensor_no_storage", float32, shape, shape, b"\x89"),
        call("torch._utils _rebuild_wrapper_subclass", name("torch Tensor"), float32, shape, shape,
             number(0), layout, call("torch device", text("cpu")), b"\x89"),
        call("torch._utils _rebuild_qtensor", storage(4, kind="torch QInt8Storage"), number(0),
             shape, tuple_of(number(0), number(0)),
             tuple_of(name("torch per_tensor_affine"), number(1), number(0)), b"\x89",
             call("ordered")),
        call("torch._utils _rebuild_nested_tensor", tensor(), tensor(), tensor(), tensor()),
        call("torch._tensor _rebuild_from_type_v2", name("__builtin__ bytearray"),
             name("torch Tensor"), tuple_of(number(1 << 33)), dict_of()),
        call("torch._utils _rebuild_device_tensor_from_numpy", tensor(), float32, text("meta"),
             b"\x89"),
    ])  # fmt: skip


def nested_sequences(rng: random.Random) -> bytes:
    """Lists that stand for billions of numbers, made into a tensor."""
    levels = rng.randint(30, 60)
    made = pick(rng, ["torch FloatTensor", "torch LongTensor", "size"])
    return list_of(doubled(levels, 2, list_of), call(made, get(levels - 1)))


def odd_parts(rng: random.Random) -> bytes:
    return pick(rng, [
        name("ordered"), name("torch FloatStorage"), storage(4),
        call("parameter", number(1), b"\x88", dict_of()),
        list_of(b"N", b"s"), call("torch device", text("a" * 10**6)), call("size", number(5)),
        call("torch device", number(5)), dict_of(b"N"), b"e", b"t", b"R", b"0", b"2", get(10**9),
    ])  # fmt: skip


def itself(rng: random.Random) -> bytes:
    return pick(
        rng,
        [
            b"]" + put(0) + get(0) + b"a",
            b"}" + put(0) + text("a") + get(0) + b"s",
            b"]" + put(0) + b"](" + get(0) + get(0) + b"ea",
            b"]" + put(0) + get(0) + b"\x85\x85a",
        ],
    )


def other_instructions(rng: random.Random) -> bytes:
    long = rng.randint(10**6, 2 * 10**6)
    return pick(rng, [
        b"\x8f", b"\x8f" * 10**6, b"I" + b"9" * long + b"\n", b"L" + b"9" * long + b"L\n",
        b"\x8b" + struct.pack("<I", long) + b"\x7f" * long, b"\x96" + struct.pack("<Q", 1 << 40),
        b"\x95" + struct.pack("<Q", 1 << 60), b"\x8d" + struct.pack("<Q", 1 << 62),
        b"\x80\x05N", b"S'" + b"\\x00" * 10**6 + b"'\n", b"\x8a\xff" + b"\x7f" * 254,
        b"X" + struct.pack("<I", 2**32 - 1), b"\x82\x01", b"Pstorage\n",
    ])  # fmt: skip


VALUES: dict[str, Callable[[random.Random], bytes]] = {
    f.__name__: f
    for f in (
        sets_again, counters_again, counted_lists, sizes_again, bytes_again, states_again,
        colliding_keys, colliding_members, colliding_places, tuples_as_keys, tuples_in_sets,
        equal_tuples, deep_keys, odd_state, late_hooks, beyond_the_storage, storages_that_lie,
        expanded, allocated, allocated_again, other_tensors, nested_sequences, odd_parts, itself,
        other_instructions,
    )
}  # fmt: skip
VALUES |= {
    "deep": lambda rng: chain(rng.randint(10**5, 2 * 10**5), pick(rng, ["list", "tuple", "dict"])),
    "laughs": lambda rng: doubled(rng.randint(30, 60), rng.randint(2, 9), list_of),
    "idna": lambda rng: call("encode", text("\xe9" * rng.randint(40_000, 60_000)), text("idna")),
    "packed_text": lambda rng: call("encode", text("x" * 9**6), text("zlib_codec")),
    "many_dicts": lambda rng: list_of(b"}" * rng.randint(3 * 10**6, 10**7)),
    "marks": lambda rng: b"(" * rng.randint(3 * 10**6, 10**7),
}  # fmt: skip
"""A value in the checkpoint, by kind."""


def many_parts(rng: random.Random) -> bytes:
    return checkpoint(b"N", {"0": bytes(16)} | {str(i): b"" for i in range(1, 120_000)})


def twins(rng: random.Random) -> bytes:
    """Parts that differ only in the case of their names, or not at all."""
    names = [f"{x}" for x in ("a" * 9, "A" * 9, "aA" * 4, "Aa" * 4)]
    with contextlib.suppress(UserWarning):
        stream = io.BytesIO(checkpoint(b"N", {"0": bytes(16)}))
        with zipfile.ZipFile(stream, "a") as packed:
            for one in pick(rng, [names, ["0", "0"]]):
                packed.writestr(_part(f"a/data/{one}"), bytes(99))
    return stream.getvalue()


def overlapping(rng: random.Random) -> bytes:
    """Parts that have their bytes in common: together they are a thousand times the file."""
    stream = io.BytesIO(checkpoint(b"N", {"0": bytes(1 << 20)}))
    with zipfile.ZipFile(stream, "a") as packed:
        first = packed.getinfo("a/data/0")
        for i in range(1, 4000):
            twin = zipfile.ZipInfo(f"a/data/{i}")
            for field in ("CRC", "compress_size", "file_size", "header_offset"):
                setattr(twin, field, getattr(first, field))
            packed.filelist.append(twin)
        packed._didModify = True
    return stream.getvalue()


def hidden_directory(rng: random.Random) -> bytes:
    """Two lists of parts: readers that look for another one see other parts."""
    good, bad = checkpoint(b"N"), checkpoint(call("__builtin__ bytearray", number(3 << 30)))
    return pick(rng, [good + bad, bad + good, good + bad[-22:], bad + good[-22:]])


def packed_storage(rng: random.Random) -> bytes:
    stream = io.BytesIO()
    n = 1 << 28
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        packed.writestr(
            _part("a/data.pkl"), b"\x80\x02" + tensor((n // 4,), stored=storage(n // 4)) + b"."
        )
        with packed.open(_part("a/data/0", zipfile.ZIP_DEFLATED), "w") as part:
            for _ in range(n >> 20):
                part.write(bytes(1 << 20))
        packed.writestr(_part("a/version"), "3\n")
    return stream.getvalue()


def damaged(rng: random.Random) -> bytes:
    content = bytearray(checkpoint(list_of(tensor((2, 2), (2, 1)), doubled(5, 2), b"N")))
    for _ in range(rng.choice([1, 3, 20])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])


FILES: dict[str, Callable[[random.Random], bytes]] = {
    f.__name__: f
    for f in (many_parts, twins, overlapping, hidden_directory, packed_storage, damaged)
}
"""Whole files, by kind."""

SEEDS = dict.fromkeys([*VALUES, *FILES], 3) | {
    "allocated": 8, "other_tensors": 7, "other_instructions": 14, "odd_parts": 14, "odd_state": 5,
    "beyond_the_storage": 6, "storages_that_lie": 6, "damaged": 20, "many_parts": 1,
    "packed_storage": 1, "overlapping": 1, "many_dicts": 1, "marks": 1, "hidden_directory": 4,
    "itself": 4, "twins": 2,
}  # fmt: skip
"""How many there are of each kind."""


def hostile(kind: str, seed: int) -> bytes:
    """Return the checkpoint of a kind and a seed, the same each time."""
    rng = random.Random(f"{kind} {seed}")
    rng.number = seed  # type: ignore[attr-defined]
    if kind in FILES:
        return FILES[kind](rng)
    return checkpoint(VALUES[kind](rng), {"0": bytes(16), "1": bytes(64)})


def _limit() -> None:
    """Let this process have little more memory than it has; only Linux keeps to it."""
    import resource

    statm = Path("/proc/self/statm")
    if statm.exists():
        taken = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _load(file: str) -> str:
    from nni_spos.errors import CheckpointError
    from nni_spos.files.tensors import load_tensors

    try:
        load_tensors(file)
    except CheckpointError as problem:
        return str(problem)
    except BaseException:
        return traceback.format_exc()
    return ""


def main() -> None:
    """Load the files that are named, each in a child of this process."""
    import nni_spos.files.tensors  # noqa: F401 - before the children, each of which needs it

    for file in sys.argv[1:]:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            _limit()
            # Of processor time: what else a machine does is not the reader's fault.
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            os.write(writer, _load(file).encode("utf-8", "replace")[-4000:])
            os._exit(0)
        os.close(writer)
        with open(reader, encoding="utf-8") as stream:
            said = stream.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"file": file, "code": code, "said": said}), flush=True)


if __name__ == "__main__":
    main()
