"""ONNX, which onnxruntime and most other runtimes run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, ClassVar

from nni_spos._version import __version__
from nni_spos.errors import ExportError
from nni_spos.export.base import Exporter, ExportForm, Model, Run
from nni_spos.recipe.settings import one_of, optional, setting, whole_number

if TYPE_CHECKING:
    from torch import nn

LEAST_OPSET = 18
"""Of which PyTorch's translations of operators are."""


@dataclass(frozen=True)
class OnnxExporter(Exporter):
    """ONNX, without custom operators.

    Parameters
    ----------
    opset
        Version of the operators, at least 18; by default the oldest that has all that are needed.
    quantize
        int8 makes a float network one of whole numbers of 8 bits, calibrated on training images;
        none leaves it as it was searched.
    """

    opset: int | None = setting(optional(whole_number(1)), None)
    quantize: str = setting(one_of("none", "int8"), "none")

    file: ClassVar[str] = "model.onnx"
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")
    extra: ClassVar[str] = "onnx"
    needs: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    imports: ClassVar[str] = "import onnxruntime"
    program: ClassVar[str] = (
        'session = onnxruntime.InferenceSession(HERE / "model.onnx", '
        'providers=["CPUExecutionProvider"])\n'
        "\n"
        "\n"
        "def run(images):\n"
        '    return session.run(None, {"images": images})[0]'
    )

    @property
    def is_exact(self) -> bool:
        """Whether outputs are those of the network up to rounding."""
        return self.quantize == "none"

    def check(self, form: ExportForm) -> None:
        """Refuse an opset that PyTorch does not write, and missing packages. Raises ExportError."""
        super().check(form)
        from onnx.defs import onnx_opset_version

        newest = onnx_opset_version()
        if self.opset is not None and not LEAST_OPSET <= self.opset <= newest:
            raise ExportError(
                f"opset {self.opset}: PyTorch writes operators of opset {LEAST_OPSET} and later, "
                f"and the installed onnx knows up to {newest}. Give one of these."
            )

    def write(self, model: Model, folder: FilePath) -> None:
        """Write ``model.onnx``. Raises ExportError, which names the layer that ONNX cannot have."""
        from nni_spos.export.integers import prepare_quantized
        from nni_spos.export.quantizing import is_quantized, quantize_int8

        if self.quantize == "int8" and is_quantized(model.network):
            raise ExportError(
                "--quantize int8: is for float networks; this one has the bit widths that were "
                "searched. Leave it out."
            )
        network = prepare_quantized(model.network)
        least = int(getattr(network, "minimal_opset", LEAST_OPSET))
        opset = least if self.opset is None else self.opset
        if opset < least:
            raise ExportError(
                f"opset {opset}: whole numbers of 4 bits and fewer need opset {least}. "
                f"Export with --opset {least}, or leave it out."
            )
        file = folder / self.file
        write_onnx(Model(network, model.images, model.form), file, opset)
        if self.quantize == "int8":
            if model.calibration is None:
                raise ExportError(
                    "--quantize int8: needs training images to calibrate with. Name the recipe: "
                    "--recipe FILE."
                )
            quantize_int8(file, model.calibration_batches())

    def open(
        self, folder: FilePath, threads: int | None = None, network: nn.Module | None = None
    ) -> Run:
        """Return what runs ``model.onnx`` in onnxruntime."""
        from nni_spos.export.runtimes import open_onnxruntime

        return open_onnxruntime(folder / self.file, threads)


def write_onnx(model: Model, file: FilePath, opset: int) -> None:
    """Write a network as ONNX. Raises ExportError like `as_onnx`."""
    import onnx

    proto = as_onnx(model, opset)
    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]  # where PyTorch found it, with the names of files
    onnx.checker.check_model(proto)
    onnx.save(proto, file)


def as_onnx(model: Model, opset: int) -> Any:
    """Return a network as ONNX's ``ModelProto``, whose nodes still say which layer they are of.

    Raises
    ------
    ExportError
        It cannot be traced, or has an operator that ONNX lacks.
    """
    import torch

    from nni_spos.export.integer_graph import finish_quantized
    from nni_spos.export.tracing import INPUT, OUTPUT, quiet, trace

    program = trace(model)
    try:
        with torch.no_grad(), quiet():
            written = torch.onnx.export(
                program,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                # It would fold BatchNorm too.
                optimize=model.form.folded,
                verbose=False,
            )
        assert written is not None
        proto = written.model_proto
    except Exception as problem:
        raise _refusal(program, problem, opset) from problem
    found = next(x.version for x in proto.opset_import if x.domain in ("", "ai.onnx"))
    if found != opset:
        raise ExportError(
            f"opset {opset}: the network has operators that need opset {found}. Export with "
            f"--opset {found}."
        )
    proto = finish_quantized(proto, folded=model.form.folded)
    proto.producer_name, proto.producer_version = "nni_spos", __version__
    if model.form.batch is None:
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto


_UNKNOWN = re.compile(r"No ONNX function found for .*op='([\w.]+)'")
"""What PyTorch says of an operator that it has no translation for."""
_NODE = re.compile(r"Error when translating node %(\w+)")
"""What PyTorch says of an operator that it cannot translate as it is used."""


def _refusal(program: Any, problem: BaseException, opset: int) -> ExportError:
    """Return the error about an operator that ONNX lacks, with its layer and its line."""
    from nni_spos.export.tracing import place_of

    causes = [problem]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    last = str(causes[-1]).strip().splitlines() or [type(causes[-1]).__name__]
    found = next((x for x in map(_UNKNOWN.search, map(str, reversed(causes))) if x), None)
    if found is None:
        name = next((x[1] for x in map(_NODE.search, map(str, causes)) if x), "")
        places = [place_of(node) for node in program.graph.nodes if node.name == name]
        where = f"; {places[0]}" if places and places[0] else ""
        return ExportError(
            f"the network cannot be written as ONNX ({last[0]:.300}{where}). Compute it in another "
            "way, or export to torch: --format torch."
        )
    operator = found[1]
    kind, place = operator.rpartition(".")[2], ""
    for node in program.graph.nodes:  # PyTorch may have split it before it asked ONNX for a part
        if node.op == "call_function" and kind in str(node.target):
            place = place_of(node)
            break
    return ExportError(
        f"ONNX, opset {opset}, has no operator for {operator}{f' ({place})' if place else ''}. "
        "Compute it with others, or export to torch: --format torch."
    )
