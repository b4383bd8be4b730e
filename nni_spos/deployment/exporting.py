"""What ``nni-spos export`` does: a folder that runs without this package, proven or not written."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from torch import nn

from nni_spos._version import __version__
from nni_spos.components import declared_keys
from nni_spos.deployment.card import model_card
from nni_spos.deployment.program import describe_images, predict_program
from nni_spos.deployment.sources import Source, open_source
from nni_spos.deployment.verification import (
    INT8_AGREEMENT,
    NUM_IMAGES,
    Limits,
    Verification,
    verify,
)
from nni_spos.errors import ExportError, SposError, text_of, unknown
from nni_spos.export.base import Exporter, ExportForm, Model
from nni_spos.export.preparing import prepare, settled
from nni_spos.export.quantizing import is_quantized
from nni_spos.files.atomic import check_name, write_json, write_text
from nni_spos.files.digests import digest_file, digest_weights
from nni_spos.modules.copies import copy_values
from nni_spos.recipe.output import exported_figures, exported_folder
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.registries import EXPORTERS
from nni_spos.recipe.settings import check_settings
from nni_spos.tasks.lookup import describe_figures


@dataclass(frozen=True)
class Exported:
    """A folder that was written.

    Parameters
    ----------
    folder
        Where it is.
    file
        The network in it.
    num_bytes
        Of that file.
    verification
        How it compares with the network.
    task
        What it predicts: the task's name and its keys.
    """

    folder: FilePath
    file: FilePath
    num_bytes: int
    verification: Verification
    task: Mapping[str, Any]

    def describe(self, figures: Mapping[str, float]) -> str:
        """Return figures in a line, as its task calls them."""
        shown = {name: value for name, value in figures.items() if name != "num_images"}
        return describe_figures({"task": self.task}, shown)


def export_network(
    network: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    format: str = "onnx",
    recipe: str | os.PathLike[str] | Recipe | None = None,
    path: str | Mapping[str, Any] | None = None,
    static: int | None = None,
    fold: bool = True,
    uint8: bool = False,
    images: int = NUM_IMAGES,
    test: bool = False,
    tolerance: float | None = None,
    agreement: float | None = None,
    **keys: Any,
) -> Exported:
    """Write a network as a file that runs without this package, and prove what it computes.

    Parameters
    ----------
    network
        A file that ``nni-spos retrain`` wrote, or a recipe (``.yml``): its retrained network.
    output
        A new or an empty folder; by default ``exported`` beside the network.
    format
        ``onnx``, ``torch``, ``safetensors``, of a plug-in, or ``module:Class``.
    recipe
        That of a network's file: for its images, and for a space of your own.
    path
        A path, or the name of its file: with the weights of the recipe's supernet.
    static
        Images at a time; None: any number.
    fold
        Whether each BatchNorm becomes a part of the convolution before it.
    uint8
        Whether the file takes pixels, and normalises them itself.
    images
        So many search-validation images are compared.
    test
        Whether test images are compared instead.
    tolerance
        Largest difference of outputs, in parts of the largest, that the file may have.
    agreement
        Percent of the answers that must be the network's. Without either of the two it is what the
        network and the format allow: see `nni_spos.deployment.verification`.
    **keys
        Of the format, such as ``opset``.

    Returns
    -------
    Where it is, and how it compares.

    Raises
    ------
    ExportError
        The format cannot have the network, a package is missing, the folder is not empty, or the
        file does not compute what the network computes. Nothing is left then.
    SposError
        The network or its recipe cannot be opened.
    """
    form = ExportForm(static, fold, uint8)
    exporter = build_exporter(format, keys, FilePath.cwd())
    with explained(format):
        exporter.check(form)
    if images < 1:
        raise ExportError(f"--verify: must be at least 1 image, got {images}.")
    if form.batch is not None and form.batch < 1:
        raise ExportError(f"--static: must be at least 1 image, got {form.batch}.")
    if output is not None:
        check_free(FilePath(output))
    source = open_source(network, recipe=recipe, path=path)
    target = FilePath(exported_folder(source.file) if output is None else output)
    check_free(target)
    found = settled(source.trained.network, source.images)
    with new_folder(target) as folder:
        _write(exporter, format, source, found, form, folder)
        proof = verify(
            source,
            found,
            _opened(exporter, format, folder, found),
            form,
            _limits(exporter, found, tolerance, agreement),
            number=images,
            test=test,
        )
        if problem := proof.problem():
            raise ExportError(
                f"the file is not the network: {problem}. Nothing was written. Export without "
                "--quantize, or say with --tolerance or --agreement what may differ."
            )
        content = _describe(source, exporter, format, keys, form, folder, proof)
        _describe_folder(source, exporter, form, folder, content)
    file = target / exporter.file
    return Exported(target, file, content["bytes"], proof, content["task"])


def build_exporter(name: str, keys: Mapping[str, Any], folder: FilePath | None = None) -> Exporter:
    """Make a format.

    Parameters
    ----------
    name
        Of a format, or ``module:Class``.
    keys
        Its own.
    folder
        Where a user's module is looked for.

    Raises
    ------
    RecipeError
        There is no such format, it has not such a key, or a value is wrong.
    """
    cls = EXPORTERS.find(name, folder)
    known = declared_keys(cls)
    for key in keys:
        if key not in known:
            raise ExportError(f"format {name}: {unknown('key', key, known)}")
    with EXPORTERS.explained(name, folder):
        found: Exporter = cls(**check_settings(cls, keys, f"format {name}"))
    return found


def explained(name: str) -> contextlib.AbstractContextManager[None]:
    """Turn whatever the code of a user's format raises into one line. Raises ExportError."""
    return EXPORTERS.explained(name, FilePath.cwd(), ExportError, what="")


def check_free(folder: FilePath) -> None:
    """Refuse a folder with something in it, and what is no folder. Raises ExportError."""
    check_name(folder, ExportError)
    if folder.is_dir():
        if any(folder.iterdir()):
            raise ExportError(f"{folder}: the folder is not empty. Give a new or an empty folder.")
    elif os.path.lexists(folder):
        raise ExportError(f"{folder}: is not a folder. Give a new or an empty folder.")


@contextlib.contextmanager
def new_folder(target: FilePath) -> Iterator[FilePath]:
    """Yield a folder that gets its name at the end; on any error nothing of it is left.

    Raises
    ------
    OSError
        It cannot be written, e.g. since the disk is full.
    """
    target = target.absolute()
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as place:
            folder = FilePath(place) / target.name
            folder.mkdir()
            yield folder
            os.rename(folder, target)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _write(
    exporter: Exporter,
    name: str,
    source: Source,
    network: nn.Module,
    form: ExportForm,
    folder: FilePath,
) -> None:
    """Let the format write the network. Raises ExportError, or OSError for a full disk."""
    trained = source.trained
    copied = copy_values(network)
    if exporter.is_graph:
        copied = prepare(copied, source.images, folded=form.folded, pixels=form.takes_pixels)
    space = trained.space
    model = Model(
        network=copied,
        images=source.images,
        form=form,
        configuration={
            "path": dict(trained.path),
            "space": {
                "name": space.name,
                "arguments": dict(space.arguments),
                "num_classes": space.num_classes,
                "in_channels": space.in_channels,
                "input_size": space.input_size,
                "task_arguments": dict(space.task_arguments),
            },
        },
        calibration=source.calibration if source.data is not None else None,
    )
    try:
        with explained(name):
            exporter.write(model, folder)
    except (SposError, OSError):
        raise
    except Exception as problem:
        if shutil.disk_usage(folder).free < 1 << 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from problem
        raise ExportError(
            f"the network cannot be written ({type(problem).__name__}: {text_of(problem):.300})."
        ) from problem
    if not (folder / exporter.file).is_file():
        raise ExportError(f"format {name}: wrote no {exporter.file}.")


def _opened(exporter: Exporter, name: str, folder: FilePath, network: nn.Module) -> Any:
    with explained(name):
        return exporter.open(folder, network=network)


def _limits(
    exporter: Exporter, network: nn.Module, tolerance: float | None, agreement: float | None
) -> Limits:
    """Return what a file may differ by, as somebody says or as the format allows."""
    if tolerance is not None or agreement is not None:
        return Limits(tolerance, 0.0 if agreement is None else agreement)
    if not exporter.is_exact:
        return Limits(difference=None, agreement=INT8_AGREEMENT)
    return Limits(difference=None) if is_quantized(network) else Limits()


def _describe(
    source: Source,
    exporter: Exporter,
    name: str,
    keys: Mapping[str, Any],
    form: ExportForm,
    folder: FilePath,
    proof: Verification,
) -> dict[str, Any]:
    """Return what ``export.json`` says."""
    trained, file = source.trained, folder / exporter.file
    return {
        "nni_spos": __version__,
        "format": name,
        "keys": dict(keys),
        "file": exporter.file,
        "bytes": file.stat().st_size,
        "sha256": digest_file(file),
        "batch": form.batch,
        "batchnorm_folded": form.folded,
        "weights": {"kind": source.kind, "digest": digest_weights(source.file)},
        "space": trained.space.name,
        "path": dict(trained.path),
        "task": dict(trained.task or {}),
        "data": str(trained.preprocessing.get("dataset", "")),
        "costs": dict(trained.costs),
        "settings": dict(trained.settings),
        "test": None if trained.test is None else dict(trained.test),
        "verification": proof.to_json(),
    }


def _describe_folder(
    source: Source,
    exporter: Exporter,
    form: ExportForm,
    folder: FilePath,
    content: Mapping[str, Any],
) -> None:
    """Write everything that lies beside the network."""
    data, task = source.data, source.task
    preprocessing = describe_images(
        source.images,
        takes_pixels=form.takes_pixels,
        stretched=data is not None and data.spec.native_size is not None,
        threshold=float(getattr(task, "threshold", 0.5)),
    )
    write_json(folder / "preprocessing.json", preprocessing)
    write_json(folder / "classes.json", list(source.class_names))
    write_json(exported_figures(folder), dict(content))
    program = predict_program(exporter, task.targets if task else (), preprocessing)
    if program:
        write_text(folder / "predict.py", program.rstrip("\n"))
    card = model_card(content, preprocessing, task, has_program=bool(program), needs=exporter.needs)
    write_text(folder / "README.md", card.rstrip("\n"))
