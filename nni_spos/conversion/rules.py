"""What each operation does to the channels of the tensors that it gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map_only

from nni_spos.conversion.channels import FIXED, ChannelSets
from nni_spos.conversion.shadows import Shadow, compress

aten = torch.ops.aten


class Watcher(Protocol):
    """What rules need to know of a run."""

    channels: ChannelSets
    shadows: Any

    def place(self) -> str: ...

    def add(self, terms: list[Shadow]) -> None: ...


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MOVES = _names(
    "_reshape_alias _reshape_copy _unsafe_view alias as_strided_scatter channel_shuffle "
    "diagonal expand expand_as flip index index_select movedim native_channel_shuffle numpy_T "
    "permute pixel_shuffle pixel_unshuffle repeat reshape roll select slice split "
    "split_with_sizes squeeze stack swapaxes t tile transpose unbind unfold unsafe_chunk "
    "unsafe_split unsafe_split_with_sizes unsqueeze view view_as"
)
"""Operations that move values to other places, and change none."""

COPIES = _names(
    "_to_copy alias bernoulli clone contiguous detach detach_ dropout dropout_ empty_like "
    "feature_dropout full_like hardswish hardswish_ lift_fresh native_dropout ones_like "
    "rand_like randn_like zeros_like"
)
"""Operations of one tensor that leave every value at its place; more are tagged so by PyTorch."""

WINDOWS = _names(
    "_adaptive_avg_pool2d _upsample_bicubic2d_aa _upsample_bilinear2d_aa "
    "_upsample_nearest_exact2d adaptive_avg_pool2d adaptive_max_pool2d avg_pool2d "
    "grid_sampler_2d im2col_ max_pool2d max_pool2d_with_indices max_pool2d_with_indices_ "
    "mkldnn_max_pool2d reflection_pad2d replication_pad2d upsample_bicubic2d "
    "upsample_bilinear2d upsample_nearest2d"
)
"""Operations that go over height and width, the last two dimensions, for each channel alone."""

REDUCTIONS = _names("amax amin linalg_vector_norm max mean min norm std sum var var_mean")
"""Operations that make one value of many along given dimensions, or along all."""

ALONG = _names("_log_softmax _softmax cumsum log_softmax softmax sort")
"""Operations that keep the shape, and mix the values along one dimension."""

SUMS = _names("add add_ rsub sub sub_")

NOT_NEGATIVE = _names(
    "_softmax abs abs_ exp exp_ hardsigmoid hardsigmoid_ relu relu_ sigmoid sigmoid_ softplus "
    "sqrt sqrt_ square"
)
"""Operations whose results are never negative."""

KEEP_SIGN = _names(
    "_to_copy add add_ alias amax amin bernoulli cat clone contiguous detach div div_ dropout "
    "max mean min mul mul_ native_dropout sum"
)
"""Operations whose results are not negative where nothing that they get is."""

CREATE = _names(
    "_local_scalar_dense all any arange argmax argmin bernoulli_ empty empty_strided eq equal "
    "fill_ full ge gt is_nonzero isfinite isnan item le lt ne new_empty new_empty_strided "
    "new_full new_ones new_zeros normal_ ones rand randn scalar_tensor sym_size topk uniform_ "
    "zero_ zeros"
)
"""Operations whose results have no channels."""


def follow(
    watcher: Watcher, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Any
) -> None:
    """Let the results of an operation have the channels that they should."""
    given = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
    shadows = [watcher.shadows.get(x) for x in given]
    if not any(shadow is not None for shadow in shadows):
        return
    name = func.overloadpacket.__name__
    rule = _find_rule(name, func)
    if rule is None or not rule(watcher, func, args, kwargs, outputs):
        text = f"they go through '{name}' in {watcher.place()}, which may mix them"
        for shadow in shadows:
            if shadow is not None:
                watcher.channels.fix(shadow.channels.numpy(), text)


def _find_rule(name: str, func: Any) -> Callable[..., bool] | None:
    for names, rule in RULES:
        if name in names:
            return rule
    return _pointwise if torch.Tag.pointwise in func.tags else None


def _is_signed(name: str, func: Any, args: Sequence[Any], given: list[Any]) -> bool:
    """Whether a result can be negative."""
    if name in NOT_NEGATIVE:
        return False
    if name in ("hardtanh", "hardtanh_", "clamp", "clamp_", "clamp_min", "clamp_min_"):
        low = args[1] if len(args) > 1 else (-1.0 if "hardtanh" in name else None)
        if isinstance(low, int | float) and low >= 0:
            return False
        return any(shadow is None or shadow.is_signed for shadow in given)
    if name in KEEP_SIGN or name in MOVES or name in WINDOWS:
        return any(shadow is None or shadow.is_signed for shadow in given)
    return True


def _pointwise(
    watcher: Watcher, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Any
) -> bool:
    name = func.overloadpacket.__name__
    given = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
    output = next((x for x in tree_iter(outputs) if isinstance(x, Tensor)), None)
    if output is None:
        return False
    known = [x for x in given if watcher.shadows.get(x) is not None]
    shadows = [_aligned(watcher.shadows[x], output.dim()) for x in known]
    shape = _broadcast(shadows)
    if shape is None:
        return False
    # A gate of one channel, say, is spread over all: it belongs to none of them.
    terms = [
        shadow.channels
        for tensor, shadow in zip(known, shadows, strict=True)
        if not _is_spread(tensor, output, shadow, shape)
    ]
    if not terms:
        return False
    first = terms[0]
    is_sum = len(terms) > 1 and (name in SUMS or "add" in name)
    for other in terms[1:]:
        text = f"they meet what stays in {watcher.place()}"
        watcher.channels.join(first.numpy(), other.numpy(), text, is_sum=is_sum)
    if is_sum:
        watcher.add([watcher.shadows[x] for x in known])
    channels = first if first.shape == shape else compress(first.expand(shape))
    unknown = [x for x in given if watcher.shadows.get(x) is None and x.numel() > 1]
    for tensor in unknown:
        sizes = [1] * (output.dim() - tensor.dim()) + list(tensor.shape)
        if any(x > 1 and y > 1 for x, y in zip(sizes, channels.shape, strict=True)):
            watcher.channels.fix(
                channels.numpy(), f"they meet a tensor with a value for each in {watcher.place()}"
            )
    signs: list[Any] = [watcher.shadows[x] for x in known] + [None] * len(unknown)
    watcher.shadows[output] = Shadow(channels, _is_signed(name, func, args, signs))
    return True


def _broadcast(shadows: Sequence[Shadow]) -> torch.Size | None:
    """Return the shape of the channels of several tensors; None if they do not fit."""
    try:
        return torch.broadcast_shapes(*(shadow.channels.shape for shadow in shadows))
    except RuntimeError:
        return None


def _is_spread(tensor: Tensor, output: Tensor, shadow: Shadow, shape: torch.Size) -> bool:
    """Whether one value of a tensor meets many channels of another one."""
    sizes = [1] * (output.dim() - tensor.dim()) + list(tensor.shape)
    return any(
        size == 1 and own == 1 and number > 1
        for size, own, number in zip(sizes, shadow.channels.shape, shape, strict=True)
    )


def _aligned(shadow: Shadow, dims: int) -> Shadow:
    missing = dims - shadow.channels.dim()
    if missing <= 0:
        return shadow
    return Shadow(
        shadow.channels.reshape((*[1] * missing, *shadow.channels.shape)), shadow.is_signed
    )


def _move(
    watcher: Watcher, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Any
) -> bool:
    def as_channels(tensor: Tensor) -> Tensor:
        shadow = watcher.shadows.get(tensor)
        if shadow is not None:
            return shadow.expanded(tensor.shape)
        if tensor.dtype in (torch.int64, torch.int32, torch.bool, torch.uint8):
            return tensor  # what is to be taken
        return torch.full((1,), FIXED).expand(tensor.shape)

    moved_args, moved_kwargs = tree_map_only(Tensor, as_channels, (tuple(args), dict(kwargs)))
    name = func.overloadpacket.__name__
    if name in ("view", "_unsafe_view", "_reshape_alias"):
        moved = [moved_args[0].reshape(args[1])]
    else:
        moved = [x for x in tree_iter(func(*moved_args, **moved_kwargs)) if isinstance(x, Tensor)]
    given = [watcher.shadows.get(x) for x in tree_iter(args) if isinstance(x, Tensor)]
    is_signed = any(shadow is None or shadow.is_signed for shadow in given[:1])
    results = [x for x in tree_iter(outputs) if isinstance(x, Tensor)]
    for tensor, channels in zip(results, moved, strict=True):
        watcher.shadows[tensor] = Shadow(compress(channels), is_signed)
    return True


def _cat(
    watcher: Watcher, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Any
) -> bool:
    parts = [x for x in args[0] if x.numel()]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % outputs.dim()
    shadows = [watcher.shadows.get(x) or Shadow.fixed(x.dim(), dim, x.shape[dim]) for x in parts]
    pieces = []
    for tensor, shadow in zip(parts, shadows, strict=True):
        sizes = list(shadow.channels.shape)
        sizes[dim] = tensor.shape[dim]
        pieces.append(shadow.channels.expand(sizes))
    sizes = [max(piece.shape[d] for piece in pieces) for d in range(outputs.dim())]
    for index, piece in enumerate(pieces):
        wanted = list(sizes)
        wanted[dim] = piece.shape[dim]
        pieces[index] = piece.expand(wanted)
    is_signed = any(shadow.is_signed for shadow in shadows)
    watcher.shadows[outputs] = Shadow(compress(torch.cat(pieces, dim)), is_signed)
    return True


def _pad(
    watcher: Watcher, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Any
) -> bool:
    shadow = watcher.shadows.get(args[0])
    if shadow is None:
        return False
    margins = list(args[1])  # of the last dimension first
    for place in range(0, len(margins), 2):
        if not shadow.varies([-1 - place // 2]):
            margins[place : place + 2] = [0, 0]  # alike in all of it: no channel is added
    channels = torch.nn.functional.pad(shadow.channels, margins, value=FIXED)
    watcher.shadows[outputs] = Shadow(channels, shadow.is_signed)
    return True


def _window(
    watcher: Watcher, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Any
) -> bool:
    shadow = watcher.shadows.get(args[0])
    output = next(x for x in tree_iter(outputs) if isinstance(x, Tensor))
    if shadow is None or shadow.varies((-1, -2)):
        return False
    watcher.shadows[output] = shadow
    return True


def _reduce(
    watcher: Watcher, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Any
) -> bool:
    tensor = args[0]
    shadow = watcher.shadows.get(tensor)
    if shadow is None:
        return False
    results = [x for x in tree_iter(outputs) if isinstance(x, Tensor)]
    dims = _reduced_dims(func, args, kwargs, tensor.dim())
    if shadow.varies(dims):
        # A mean of channels, say: it is there whatever their number, and has none itself.
        return not shadow.varies([d for d in range(tensor.dim()) if d not in dims])
    keeps = results[0].dim() == tensor.dim()
    channels = shadow.channels
    if not keeps:
        channels = channels.reshape([s for d, s in enumerate(channels.shape) if d not in dims])
    name = func.overloadpacket.__name__
    for result in results:
        if result.is_floating_point():
            watcher.shadows[result] = Shadow(channels, _is_signed(name, func, args, [shadow]))
    return True


def _reduced_dims(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], number: int
) -> list[int]:
    """Return the dimensions that a reduction goes over, counted from 0."""
    names = [argument.name for argument in func._schema.arguments]
    named = {**dict(zip(names, args, strict=False)), **kwargs}
    dims = named.get("dim")
    if dims is None or (isinstance(dims, list | tuple) and not dims):
        return list(range(number))
    return [d % number for d in (dims if isinstance(dims, list | tuple) else [dims])]


def _along(
    watcher: Watcher, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Any
) -> bool:
    shadow = watcher.shadows.get(args[0])
    dim = args[1] if len(args) > 1 else kwargs.get("dim", -1)
    if shadow is None or not isinstance(dim, int) or shadow.varies([dim]):
        return False
    for result in tree_iter(outputs):
        if isinstance(result, Tensor) and result.is_floating_point():
            watcher.shadows[result] = Shadow(
                shadow.channels, func.overloadpacket.__name__[1:] != "softmax"
            )
    return True


def _copy(
    watcher: Watcher, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Any
) -> bool:
    shadow = watcher.shadows.get(args[0])
    if shadow is None:
        return False
    name = func.overloadpacket.__name__
    output = next(x for x in tree_iter(outputs) if isinstance(x, Tensor))
    watcher.shadows[output] = Shadow(shadow.channels, _is_signed(name, func, args, [shadow]))
    return True


def _into(
    watcher: Watcher, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Any
) -> bool:
    """Follow ``copy_``: what is written into belongs to what is written."""
    target, source = (watcher.shadows.get(x) for x in args[:2])
    if target is None or source is None:
        return False
    return _pointwise(watcher, func, args[:2], {}, outputs)


def _lay_out(
    watcher: Watcher, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Any
) -> bool:
    """Follow ``as_strided_``, by which PyTorch gives images of one pixel channels_last's strides.

    Anything else that it is used for is not followed.
    """
    shadow = watcher.shadows.get(args[0])
    if shadow is None or any(size != 1 for size in outputs.shape[2:]):
        return False
    if shadow.channels.dim() != outputs.dim() or not outputs.is_contiguous():
        return False
    watcher.shadows[outputs] = shadow
    return True


def _forget(*_: Any) -> bool:
    return True


RULES: tuple[tuple[frozenset[str], Callable[..., bool]], ...] = (
    (MOVES, _move),
    (frozenset(["cat"]), _cat),
    (frozenset(["constant_pad_nd"]), _pad),
    (WINDOWS, _window),
    (REDUCTIONS, _reduce),
    (ALONG, _along),
    (COPIES, _copy),
    (frozenset(["copy_"]), _into),
    (frozenset(["as_strided_"]), _lay_out),
    (CREATE, _forget),
)
