"""What every format promises that a network is exported to."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from torch import nn

from nni_spos.components import declared_keys
from nni_spos.deployment.exporting import build_exporter
from nni_spos.deployment.program import describe_images, predict_program
from nni_spos.deployment.verification import TOLERANCE
from nni_spos.errors import ExportError
from nni_spos.export.base import Exporter, ExportForm, Model
from nni_spos.export.images import InputImages
from nni_spos.export.preparing import prepare, settled
from nni_spos.recipe.registries import EXPORTERS

IMAGES = InputImages(
    channels=2, height=6, width=6, bits=8, mean=(0.4, 0.5), std=(0.2, 0.3), resize=6
)
NUM_IMAGES = 3
PLAIN = ExportForm()


class ExporterCase:
    """A format as the command line names it.

    Parameters
    ----------
    name
        As after ``--format``.
    folder
        Where a user's module is looked for.
    **keys
        Those that the format declares itself.
    """

    def __init__(self, name: str, folder: str | os.PathLike[str] | None = None, **keys: Any):
        self.name = name
        self.folder = None if folder is None else FilePath(folder).absolute()
        self.keys = keys

    def make(self) -> Exporter:
        """Return the format."""
        return build_exporter(self.name, self.keys, self.folder)

    def network(self) -> nn.Module:
        """Return a small network of convolution, BatchNorm and a linear layer."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
            network = nn.Sequential(*layers, nn.Linear(64, 3)).eval()
            norm: Any = network[1]
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)
        return settled(network, IMAGES)

    def difference(self, form: ExportForm = PLAIN, number: int = NUM_IMAGES) -> float:
        """Export a small network, and return the largest difference of its outputs."""
        exporter, network = self.make(), self.network()
        copied = self.network()
        if exporter.is_graph:
            copied = prepare(copied, IMAGES, folded=form.folded, pixels=form.takes_pixels)
        model = Model(copied, IMAGES, form, calibration=lambda: iter([IMAGES.random(8)]))
        images = IMAGES.random(number)
        with tempfile.TemporaryDirectory() as place:
            folder = FilePath(place)
            exporter.write(model, folder)
            assert (folder / exporter.file).is_file(), f"there is no {exporter.file}"
            given = IMAGES.pixels_of(images) if form.takes_pixels else images
            found = exporter.open(folder, threads=1, network=network)(given)
        with torch.no_grad():
            wanted = network(torch.from_numpy(images)).numpy()
        assert found.shape == wanted.shape, f"outputs have shape {found.shape}"
        return float(np.abs(found - wanted).max())


def _check(case: ExporterCase, difference: float) -> None:
    limit = TOLERANCE if case.make().is_exact else 0.5
    assert difference <= limit, f"outputs differ by {difference:.3g}"


def it_computes_what_the_network_computes(case: ExporterCase) -> None:
    """Outputs of the file are those of the network."""
    _check(case, case.difference())


def batchnorm_may_stay_apart(case: ExporterCase) -> None:
    """So they are without BatchNorm folded."""
    if case.make().is_graph:
        _check(case, case.difference(ExportForm(folded=False)))


def it_takes_a_fixed_number_of_images(case: ExporterCase) -> None:
    """So they are of a file for so many images at a time."""
    if case.make().is_graph:
        _check(case, case.difference(ExportForm(batch=NUM_IMAGES)))


def it_takes_pixels(case: ExporterCase) -> None:
    """So they are of a file that normalises pixels itself."""
    if case.make().is_graph:
        _check(case, case.difference(ExportForm(takes_pixels=True)))


def weights_alone_have_no_form(case: ExporterCase) -> None:
    """A format of weights alone refuses what only a program can be."""
    exporter = case.make()
    if exporter.is_graph:
        return
    for form in (ExportForm(batch=1), ExportForm(folded=False), ExportForm(takes_pixels=True)):
        try:
            exporter.check(form)
        except ExportError:
            continue
        raise AssertionError(f"{form} is not refused")


def keys_have_defaults(case: ExporterCase) -> None:
    """It can be made without any key."""
    required = [key.name for key in declared_keys(type(case.make())).values() if key.is_required]
    assert not required, f"{', '.join(required)} must be given"


def what_it_needs_is_looked_for(case: ExporterCase) -> None:
    """What is not installed is refused before anything is opened."""
    exporter = case.make()
    exporter.check(ExportForm())
    if exporter.packages:
        assert exporter.extra or case.name not in EXPORTERS.ours, "no extra installs its packages"


def its_program_is_python(case: ExporterCase) -> None:
    """``predict.py`` is a program, if there is one."""
    described = describe_images(IMAGES, takes_pixels=False, stretched=True, threshold=0.5)
    text = predict_program(case.make(), ("class",), described)
    compile(text, "predict.py", "exec")
    assert not text or "def run(images)" in text, "its lines define no 'run'"


def its_module_is_light(case: ExporterCase) -> None:
    """Importing its module does not import PyTorch: the command line asks for its keys."""
    place = "" if case.folder is None else f"pathlib.Path({str(case.folder)!r})"
    program = (
        "import pathlib, sys; from nni_spos.recipe.registries import EXPORTERS; "
        f"EXPORTERS.find({case.name!r}, {place or None}); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "False", f"it imports PyTorch {done.stderr}"


CHECKS: tuple[Callable[[ExporterCase], None], ...] = (
    it_computes_what_the_network_computes,
    batchnorm_may_stay_apart,
    it_takes_a_fixed_number_of_images,
    it_takes_pixels,
    weights_alone_have_no_form,
    keys_have_defaults,
    what_it_needs_is_looked_for,
    its_program_is_python,
    its_module_is_light,
)
"""Everything that is promised, as functions of a case."""
