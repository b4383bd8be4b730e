"""What the pickle in a checkpoint would make, found out before anything is made of it.

PyTorch's reader for untrusted files runs no code, but it does what the file says: allocate any
number of bytes, hash what stands for billions of values, copy one list a million times. So the
same instructions are followed here first, with stand-ins for tensors and storages. What a state
dict, an optimizer or plain values need is known; everything else is refused, and so is what would
take more time or memory than the length of the pickle and the sizes of the storages account for.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nni_spos.values import expands_beyond, shown

MAX_INSTRUCTIONS = 2_000_000
"""Of a pickle; a tensor takes less than 50."""

MAX_VALUES = 2_000_000
"""Values in a file, those that are shared counted each time; a checkpoint has some thousands."""

MAX_DEPTH = 50
"""Of containers in containers."""

MAX_DIMENSIONS = 128
"""Of a shape, with its strides."""

MAX_EXPANSION = 16
"""How many times larger all tensors, each with memory of its own, may be than the storages."""

MAX_SMALL = 64 << 20
"""Bytes that all tensors may have in any case."""

MAX_KEY_PARTS = 100
"""Of a tuple that is a key."""

SMALL_KEY = 1 << 20
"""Whole numbers below this as keys cannot be made to collide."""

MAX_ODD_KEYS = 4096
"""Keys that are neither text nor small whole numbers: whoever chooses them can make all collide."""

ITEM_SIZES = {
    "torch DoubleStorage": 8,
    "torch FloatStorage": 4,
    "torch HalfStorage": 2,
    "torch BFloat16Storage": 2,
    "torch LongStorage": 8,
    "torch IntStorage": 4,
    "torch ShortStorage": 2,
    "torch CharStorage": 1,
    "torch ByteStorage": 1,
    "torch BoolStorage": 1,
    "torch ComplexDoubleStorage": 16,
    "torch ComplexFloatStorage": 8,
    "torch.storage UntypedStorage": 1,
}
"""Bytes of a number, by the name of the storage's class."""

DTYPE_SIZES = {
    "torch float64": 8, "torch float32": 4, "torch float16": 2, "torch bfloat16": 2,
    "torch float8_e4m3fn": 1, "torch float8_e5m2": 1, "torch float8_e4m3fnuz": 1,
    "torch float8_e5m2fnuz": 1, "torch int64": 8, "torch int32": 4, "torch int16": 2,
    "torch int8": 1, "torch uint64": 8, "torch uint32": 4, "torch uint16": 2, "torch uint8": 1,
    "torch bool": 1, "torch complex128": 16, "torch complex64": 8,
}  # fmt: skip
"""The same by the name of the type."""


@dataclass(frozen=True)
class _Name:
    """A class, a function or a type that is named in the pickle."""

    name: str


@dataclass(frozen=True)
class _Storage:
    item_size: int
    num_bytes: int


@dataclass(frozen=True)
class _Leaf:
    """A value without parts: a tensor, a shape, a device, bytes."""

    name: str


class _Mapping(list[Any]):
    """Keys and values in turn: nothing is hashed."""

    def __init__(self, content: Iterable[Any] = (), is_ordered: bool = False):
        super().__init__(content)
        self.is_ordered = is_ordered


class _Set(list[Any]):
    """Members."""


_TENSOR = (_Storage, int, tuple, tuple, bool, _Mapping)
"""Storage, where in it the tensor begins, its shape, its strides, needs a gradient, hooks."""

_SCALARS = (type(None), bool, int, float, complex, str)
_PARENTS = (list, tuple)


def check_pickle(content: bytes, size_of: Callable[[str], int | None]) -> None:
    """Follow the instructions of a pickle, without making what it describes.

    Parameters
    ----------
    content
        The pickle.
    size_of
        Returns the bytes of a storage by its name; None if there is no such.

    Raises
    ------
    ValueError
        Something in it is not what a checkpoint consists of, or would take too much.
    """
    _Machine(len(content), size_of).run(content)


class _Machine:
    def __init__(self, length: int, size_of: Callable[[str], int | None]):
        self._size_of = size_of
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: list[Any] = []
        self._copies_left = length + 1000
        self._num_odd_keys = 0
        self._storages: dict[str, tuple[str, int]] = {}
        self._stored_bytes = 0
        self._tensor_bytes = 0
        self._hooks: list[_Mapping] = []
        self._states: list[_Mapping] = []
        self._do: dict[str, Callable[[Any], None]] = {
            "PROTO": self._version,
            "GLOBAL": self._name,
            "MARK": lambda _: self._mark(),
            "EMPTY_DICT": lambda _: self._stack.append(_Mapping()),
            "EMPTY_LIST": lambda _: self._stack.append([]),
            "EMPTY_TUPLE": lambda _: self._stack.append(()),
            "TUPLE": lambda _: self._push(tuple(self._since_mark())),
            "TUPLE1": lambda _: self._tuple(1),
            "TUPLE2": lambda _: self._tuple(2),
            "TUPLE3": lambda _: self._tuple(3),
            "NONE": lambda _: self._stack.append(None),
            "NEWTRUE": lambda _: self._stack.append(True),
            "NEWFALSE": lambda _: self._stack.append(False),
            "BINPUT": self._put,
            "LONG_BINPUT": self._put,
            "BINGET": lambda i: self._push(self._memo[i]),
            "LONG_BINGET": lambda i: self._push(self._memo[i]),
            "BINPERSID": lambda _: self._stack.append(self._storage(self._stack.pop())),
            "REDUCE": lambda _: self._reduce(self._stack.pop(), self._stack.pop()),
            "BUILD": lambda _: self._build(self._stack.pop()),
            "APPEND": lambda _: self._extend([self._stack.pop()]),
            "APPENDS": lambda _: self._extend(self._since_mark()),
            "SETITEM": lambda _: self._set_items([self._stack.pop(), self._stack.pop()][::-1]),
            "SETITEMS": lambda _: self._set_items(self._since_mark()),
        }
        for plain in ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"):
            self._do[plain] = self._push
        self._make: dict[str, Callable[..., Any]] = {
            "collections OrderedDict": lambda: _Mapping(is_ordered=True),
            "collections Counter": self._counter,
            "torch._utils _rebuild_tensor_v2": self._tensor,
            "torch._utils _rebuild_tensor_v3": self._tensor,
            "torch._utils _rebuild_parameter": self._parameter,
            "torch Size": self._shape,
            "torch device": self._device,
            "_codecs encode": self._bytes,
            "__builtin__ set": self._set,
            "__builtin__ complex": self._complex,
        }

    def run(self, content: bytes) -> None:
        """Follow the instructions. Raises ValueError."""
        for number, (instruction, argument, _) in enumerate(pickletools.genops(content)):
            if number >= MAX_INSTRUCTIONS:
                raise ValueError(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")
            if instruction.name == "STOP":
                self._finish(self._stack.pop())
                return
            do = self._do.get(instruction.name)
            if do is None:
                raise ValueError(f"its pickle has the instruction {instruction.name}")
            do(argument)

    def _push(self, value: Any) -> None:
        self._stack.append(value)  # the stack is another one after a mark

    def _version(self, number: int) -> None:
        if number != 2:
            raise ValueError(f"its pickle has version {number}")

    def _name(self, name: str) -> None:
        if name not in self._make and name not in ITEM_SIZES and name not in DTYPE_SIZES:
            raise ValueError(f"it contains {'.'.join(name.split())}")
        self._stack.append(_Name(name))

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        found, self._stack = self._stack, self._marked.pop()
        return found

    def _tuple(self, length: int) -> None:
        self._stack[-length:] = [tuple(self._stack[-length:])]

    def _put(self, place: int) -> None:
        if place > len(self._memo):
            raise ValueError("its pickle remembers values in no order")
        self._memo[place : place + 1] = [self._stack[-1]]

    def _copy(self, amount: int) -> None:
        """Note that so many values or characters are copied; each that is written is so once."""
        self._copies_left -= amount
        if self._copies_left < 0:
            raise ValueError("its values are copied again and again")

    def _storage(self, described: Any) -> _Storage:
        if isinstance(described, tuple) and len(described) == 6 and described[5] is None:
            described = described[:5]  # before version 1.6 PyTorch also said which part it is
        kind, cls, key, _, length = _typed(described, str, _Name, str, str, int)
        if kind != "storage" or cls.name not in ITEM_SIZES or length < 0:
            raise ValueError("a storage is none")
        num_bytes = length * ITEM_SIZES[cls.name]
        there = self._size_of(key)
        if there is None or num_bytes > there:
            raise ValueError(f"the numbers of the storage {shown(key)} are not all there")
        if key not in self._storages:
            self._storages[key] = (cls.name, length)
            self._stored_bytes += num_bytes
        elif self._storages[key] != (cls.name, length):
            raise ValueError(f"the storage {shown(key)} is described in two ways")
        return _Storage(ITEM_SIZES[cls.name], num_bytes)

    def _reduce(self, arguments: Any, function: Any) -> None:
        make = self._make.get(function.name) if isinstance(function, _Name) else None
        if make is None or not isinstance(arguments, tuple):
            raise ValueError("it calls what is no function")
        self._stack.append(make(*arguments))

    def _build(self, state: Any) -> None:
        made = self._stack[-1]
        if not (isinstance(made, _Mapping) and made.is_ordered and isinstance(state, _Mapping)):
            raise ValueError("it gives a state to what has none")
        self._copy(len(state))
        self._states.append(state)

    def _extend(self, items: Sequence[Any]) -> None:
        made = self._stack[-1]
        if type(made) is not list:
            raise ValueError("it appends to what is no list")
        made.extend(items)

    def _set_items(self, items: Sequence[Any]) -> None:
        made = self._stack[-1]
        if not isinstance(made, _Mapping) or len(items) % 2:
            raise ValueError("it sets items of what has none")
        for key in items[::2]:
            self._check_key(key)
        made.extend(items)

    def _check_key(self, key: Any) -> None:
        if type(key) is str or (type(key) in (bool, int) and abs(key) < SMALL_KEY):
            return
        self._num_odd_keys += 1
        if self._num_odd_keys > MAX_ODD_KEYS:
            raise ValueError(f"it has more than {MAX_ODD_KEYS} keys of unusual kinds")
        level, num_parts = [key], 0
        while level:
            num_parts += len(level)
            if num_parts > MAX_KEY_PARTS:
                raise ValueError("a key has too many parts")
            if not all(isinstance(x, (*_SCALARS, tuple)) for x in level):
                raise ValueError("a key is of a kind that none is of")
            level = [part for x in level if isinstance(x, tuple) for part in x]

    def _counter(self, counts: Any) -> _Mapping:
        if not isinstance(counts, _Mapping):
            raise ValueError("a counter has no counts")
        self._copy(len(counts))
        return _Mapping(counts)

    def _set(self, members: Any) -> _Set:
        if type(members) is not list:
            raise ValueError("a set has no members")
        self._copy(len(members))
        for member in members:
            self._check_key(member)
        return _Set(members)

    def _bytes(self, *arguments: Any) -> _Leaf:
        text, encoding = _typed(arguments, str, str)
        if encoding != "latin1":
            raise ValueError(f"it contains bytes as {shown(encoding)}")
        self._copy(len(text))
        return _Leaf("bytes")

    def _complex(self, *arguments: Any) -> complex:
        return complex(*_typed(arguments, float, float))

    def _shape(self, *arguments: Any) -> _Leaf:
        (lengths,) = _typed(arguments, tuple)
        self._copy(len(lengths))
        _counts(lengths)
        return _Leaf("shape")

    def _device(self, *arguments: Any) -> _Leaf:
        _typed(arguments, *([str] if len(arguments) == 1 else [str, int]))
        return _Leaf("device")

    def _tensor(self, *arguments: Any) -> _Leaf:
        """Check a tensor: whether it is within its storage, and what all come to."""
        kinds = _TENSOR if len(arguments) == len(_TENSOR) else (*_TENSOR, _Name)
        storage, begin, shape, steps, _, hooks, *rest = _typed(arguments, *kinds)
        item_size = storage.item_size
        if rest:
            item_size = DTYPE_SIZES.get(rest[0].name, 0)
            if not item_size or storage.item_size != 1:
                raise ValueError("a tensor has an unknown type")
        _counts((begin, *shape, *steps))
        if len(shape) != len(steps):
            raise ValueError("a tensor has no shape")
        self._hooks.append(hooks)
        num_bytes = math.prod(shape) * item_size
        if num_bytes:
            last = begin + sum((x - 1) * step for x, step in zip(shape, steps, strict=True))
            if (last + 1) * item_size > storage.num_bytes:
                raise ValueError("a tensor is larger than its storage")
        self._tensor_bytes += num_bytes
        return _Leaf("tensor")

    def _parameter(self, *arguments: Any) -> _Leaf:
        tensor, _, hooks = _typed(arguments, _Leaf, bool, _Mapping)
        if tensor.name != "tensor":
            raise ValueError("a parameter is no tensor")
        self._hooks.append(hooks)
        return tensor

    def _finish(self, root: Any) -> None:
        """Check what came of it. Lists may have changed after they were used."""
        if self._tensor_bytes > max(MAX_SMALL, MAX_EXPANSION * self._stored_bytes):
            raise ValueError("its tensors stand for much more than is in the file")
        if any(self._hooks):
            raise ValueError("a tensor has hooks")
        for state in self._states:
            _check_state(state)
        if expands_beyond(root, MAX_VALUES, _parts):
            raise ValueError("it contains itself, or too many values")
        level = [root]
        for _ in range(MAX_DEPTH):
            odd = next((x for x in level if not isinstance(x, (*_SCALARS, *_PARENTS, _Leaf))), None)
            if odd is not None and not (isinstance(odd, _Name) and odd.name in DTYPE_SIZES):
                raise ValueError("it contains what is no value")
            level = [part for x in level for part in _parts(x)]
            if not level:
                return
        raise ValueError(f"it has more than {MAX_DEPTH} containers in each other")


def _parts(value: Any) -> Iterable[Any]:
    return value if isinstance(value, _PARENTS) else ()


def _typed(values: Any, *kinds: type) -> Any:
    """Return values that are of certain types, as many as there are of these."""
    if not isinstance(values, tuple) or tuple(map(type, values)) != kinds:
        raise ValueError("something is not made of what it is made of")
    return values


def _counts(numbers: Sequence[Any]) -> None:
    """Check that there are whole numbers as in shapes. Raises ValueError."""
    if not numbers:
        return
    if len(numbers) > MAX_DIMENSIONS or set(map(type, numbers)) != {int}:
        raise ValueError("a shape is none")
    if min(numbers) < 0 or max(numbers) >= 1 << 62:
        raise ValueError("a shape is none")


def _check_state(state: _Mapping) -> None:
    """Check what PyTorch adds to a state dict: versions of modules, by their names."""
    if len(state) != 2 or state[0] != "_metadata" or not isinstance(state[1], _Mapping):
        raise ValueError("a state dict has an unknown state")
    for name, module in zip(state[1][::2], state[1][1::2], strict=True):
        if type(name) is not str or not isinstance(module, _Mapping):
            raise ValueError("a state dict has unknown versions")
        for key, value in zip(module[::2], module[1::2], strict=True):
            is_fine = value is None or type(value) is int
            if type(key) is not str or not (is_fine if key == "version" else _is_scalar(value)):
                raise ValueError("a state dict has unknown versions")


def _is_scalar(value: Any) -> bool:
    return isinstance(value, _SCALARS)
