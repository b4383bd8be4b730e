"""The multiply-adds that PyTorch itself sees in a run, operator by operator."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import nni
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import nni_spos


class Product(NamedTuple):
    """An operator that multiplies matrices, as it was called.

    Parameters
    ----------
    operator
        Its name.
    macs
        Multiply-adds; None where they cannot be counted.
    shapes
        Of the tensors that it got.
    file, line
        The code outside of PyTorch and NNI that called it; ("", 0) if there is none.
    """

    operator: str
    macs: int | None
    shapes: tuple[tuple[int, ...], ...]
    file: str
    line: int

    @property
    def place(self) -> str:
        """Operator, and where it is called, for people."""
        where = f" ({FilePath(self.file).name}, line {self.line})" if self.file else ""
        return f"{self.operator}{where}"


ProductFormula = Callable[[Any, dict[str, Any], Any], int]
"""(arguments, arguments by name, output) to multiply-adds."""


def _matrices(one: Tensor, other: Tensor, *_: Any) -> int:
    return one.numel() * other.shape[-1]


def _added_matrices(_: Tensor, one: Tensor, other: Tensor, *__: Any) -> int:
    return _matrices(one, other)


_FORMULAS: dict[str, Callable[..., int]] = {
    "mm": _matrices,
    "bmm": _matrices,
    "_int_mm": _matrices,
    "addmm": _added_matrices,
    "addbmm": _added_matrices,
    "baddbmm": _added_matrices,
    "_addmm_activation": _added_matrices,
    "mv": lambda matrix, vector: matrix.numel(),
    "addmv": lambda _, matrix, vector: matrix.numel(),
    "dot": lambda one, other: one.numel(),
    "vdot": lambda one, other: one.numel(),
    "addr": lambda _, one, other: one.numel() * other.numel(),
    "_scaled_dot_product_flash_attention_for_cpu": lambda query, key, value, *_: (
        math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    ),
    # A layer of an LSTM in one direction, for all times: the input's weights, and the state's.
    "mkldnn_rnn_layer": lambda x, input_weight, state_weight, *_: (
        math.prod(x.shape[:-1]) * (input_weight.numel() + state_weight.numel())
    ),
    # Every pixel is a vector times the matrix of its image.
    "affine_grid_generator": lambda theta, size, *_: (
        size[0] * math.prod(size[2:]) * theta.shape[1] * theta.shape[2]
    ),
}
"""Multiply-adds by operator, of those that PyTorch's own registry leaves out, and of the most
frequent, for which it takes longer than the operator does without data."""

_UNCOUNTED = re.compile(
    r"(?!_thnn_fused).*(conv(olution|_|\d)|mm(_|$)|matmul|lstm|gru|rnn|attention|transformer).*"
    r"|(?!_?upsample).*linear.*"
    r"|_?(cdist|pdist|euclidean_dist|trilinear).*|.*affine_grid.*"
    r"|_?linalg_(?!vector_norm|norm|cross|diagonal|check_errors|_powsum).*"
    r"|_?(cholesky|lu_solve|triangular_solve|spsolve|geqrf|orgqr|ormqr|inverse|matrix_exp).*"
    r"|_fft_.*|.*svd.*"
)
"""Names of operators that multiply matrices. What is made of others is seen as these."""

_KNOWN_NAMESPACES = {"aten", "prim", "prims", "profiler", "torchvision"}
"""Of the operators whose names say what they do."""

_PYTORCHS = tuple(
    str(folder) + os.sep
    for folder in (
        *(FilePath(package.__path__[0]) for package in (torch, nni)),
        FilePath(nni_spos.__path__[0], "profilers"),
        FilePath(nni_spos.__path__[0], "mutables"),
    )
)
_INSTALLED, _STANDARD = (
    tuple({sysconfig.get_path(name) + os.sep for name in names})
    for names in (("purelib", "platlib"), ("stdlib", "platstdlib"))
)
"""Where code lies that is not the user's: PyTorch's and NNI's, other packages', Python's own."""


class ProductCounter(TorchDispatchMode):
    """Adds what is computed, while it is entered, to `products`.

    PyTorch's ``FlopCounterMode`` knows neither products with vectors nor the in-place forms, and
    passes over what it does not know.
    """

    supports_higher_order_operators = True  # or those would fail while it is entered
    _is_hidden = False

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it would import PyTorch's compiler, which takes seconds

    def run(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """Return what a function returns, with what it computes added."""
        if "torch._dynamo" in sys.modules and not self._is_hidden:
            _hide_from_compiler()
        with self:
            return function(*inputs)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = _kind(func)
        if kind is _DECOMPOSED:
            with self:
                return func.decompose(*args, **kwargs)
        output = func(*args, **kwargs)
        if kind is not _NO_PRODUCT:
            self.products.append(_product(func, kind, args, kwargs, output))
        return output


def _hide_from_compiler() -> None:
    """Keep PyTorch's compiler, which has been imported, from compiling the counter itself.

    Control flow such as ``torch.cond`` compiles what it calls, whatever is entered.
    """
    hidden: Any = torch._disable_dynamo(ProductCounter.__torch_dispatch__)
    ProductCounter.__torch_dispatch__ = hidden  # type: ignore[method-assign]
    ProductCounter._is_hidden = True


def _no_formula(*_: Any) -> int:
    raise NotImplementedError


_NO_PRODUCT, _DECOMPOSED = object(), object()


@functools.cache
def _kind(func: Any) -> Any:
    """Return the formula of an operator, or what else it is."""
    if (formula := _formula(func)) is not None:
        return formula
    if not isinstance(func, OpOverload):
        return _no_formula  # it calls functions, or is a kernel in another language
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    if composite in func.py_kernels or func.has_kernel_for_dispatch_key(composite):
        return _DECOMPOSED
    name = func._overloadpacket.__name__
    if func.namespace in _KNOWN_NAMESPACES and not _UNCOUNTED.fullmatch(name):
        return _NO_PRODUCT
    return _no_formula


def _formula(func: Any) -> ProductFormula | None:
    """Return what counts an operator: ours or PyTorch's own formula, for its in-place form too."""
    packet = getattr(func, "_overloadpacket", func)
    if isinstance(func, OpOverload) and func.namespace == "aten":
        if func is torch.ops.aten.convolution.default:
            return _count_convolution
        name = packet.__name__.removesuffix("_")
        if name in _FORMULAS:
            count = _FORMULAS[name]
            return lambda args, kwargs, _: count(*args)
        if packet not in flop_registry:
            packet = getattr(torch.ops.aten, name, packet)
    if packet not in flop_registry:
        return None
    flops = flop_registry[packet]
    return lambda args, kwargs, output: int(flops(*args, **kwargs, out_val=output)) // 2


def _count_convolution(args: Any, _: dict[str, Any], output: Tensor) -> int:
    """Every pixel of the output, or of the input if transposed, meets the weights of a filter."""
    x, weight, *_more = args
    is_transposed = args[6]
    pixels = (x if is_transposed else output).shape[2:]
    return int(x.shape[0] * math.prod(pixels) * weight.numel())


def _product(
    func: Any, formula: ProductFormula, args: Any, kwargs: dict[str, Any], output: Any
) -> Product:
    name = str(getattr(func, "_overloadpacket", func))
    tensors = list(_tensors([*args, *kwargs.values()]))
    macs: int | None = None
    if formula is not _no_formula:
        problem = _formulas_do_not_say(tensors)
        name += problem
        if not problem:
            with contextlib.suppress(Exception):  # a formula for other arguments, or anybody's own
                macs = formula(args, kwargs, output)
    return Product(name, macs, tuple(tuple(x.shape) for x in tensors), *_caller())


def _formulas_do_not_say(tensors: Iterable[Tensor]) -> str:
    """Return of what numbers tensors are for which formulas do not hold; "" if they do."""
    for tensor in tensors:
        if tensor.is_complex():
            return " of complex numbers"
        if tensor.layout is not torch.strided:
            return " of sparse tensors or the like"
    return ""


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    lists = (x if isinstance(x, list | tuple) else (x,) for x in values)
    return (x for x in itertools.chain.from_iterable(lists) if isinstance(x, Tensor))


def _caller() -> tuple[str, int]:
    """Return file and line of the innermost code in the run that is the user's.

    If there is none, of another package that is neither PyTorch nor NNI.
    """
    frame: Any = sys._getframe(1)
    package = ("", 0)
    while frame is not None and frame.f_code is not ProductCounter.run.__code__:
        file = frame.f_code.co_filename
        if not file.startswith(("<", *_PYTORCHS)):  # "<": code that was made while it ran
            if file.startswith(_INSTALLED):
                package = package if package[0] else (file, frame.f_lineno)
            elif not file.startswith(_STANDARD):
                return file, frame.f_lineno
        frame = frame.f_back
    return package
