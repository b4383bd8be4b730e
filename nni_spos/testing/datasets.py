"""What every data set promises."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from torch import Tensor

from nni_spos.components import declared_keys
from nni_spos.data import DatasetSpec, ImageStore, dataset_spec, open_data
from nni_spos.data.datasets import open_test_set, open_training_set
from nni_spos.data.pixels import pixel_type
from nni_spos.data.transforms import ImageTransform
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.dataset import UNKNOWN, find_dataset

MOST = 500
"""Images of a part that are looked at."""


class DatasetCase:
    """A data set as a recipe names it.

    Parameters
    ----------
    name
        As in the section ``data`` of a recipe.
    folder
        Where a user's module is looked for: the recipe's folder.
    keys
        Other keys of that section, also those that the data set declares itself.
    """

    def __init__(self, name: str, folder: str | os.PathLike[str] | None = None, **keys: Any):
        common = {key: keys.pop(key) for key in declared_keys(DataSettings) if key in keys}
        place = None if folder is None else FilePath(folder).absolute()
        self.settings = DataSettings(name, **common, arguments=keys, folder=place)

    @property
    def spec(self) -> DatasetSpec:
        """What the data set says without its images."""
        return dataset_spec(self.settings)

    def parts(self) -> Iterator[tuple[str, ImageStore]]:
        """Open the training and the test set, and yield them with their names."""
        yield "training", open_training_set(self.settings, self.spec)
        yield "test", open_test_set(self.settings, self.spec)


def says_what_it_is(case: DatasetCase) -> None:
    """The spec is one that a network can be built for, and says the same again."""
    spec = case.spec
    assert spec == case.spec, "spec() says something else when it is asked again"
    least = 2 if spec.target in ("class", "mask") else 1
    assert spec.num_classes >= least, f"spec() says {spec.num_classes} classes; must be {least}"
    assert spec.channels >= 1, f"spec() says {spec.channels} channels; must be at least 1"
    assert all(x > 0 for x in spec.std), f"spec() says a standard deviation of 0: {spec.std}"
    ImageTransform(spec)


def describes_its_keys(case: DatasetCase) -> None:
    """Every key that it declares has a description in the section Parameters of its docstring."""
    keys = declared_keys(type(find_dataset(case.settings)))
    bare = [name for name, key in keys.items() if not key.description]
    assert not bare, f"the docstring does not describe {', '.join(bare)}"


def is_described_without_pytorch(case: DatasetCase) -> None:
    """NNI's tuner asks it what it is, and has ten seconds to start."""
    program = (
        "import pickle, sys\n"
        "from nni_spos.recipe.dataset import find_dataset, resolved_spec\n"
        "dataset = find_dataset(pickle.load(sys.stdin.buffer))\n"
        "resolved_spec(dataset), dataset.digest_training_images(), dataset.digest_test_images()\n"
        "print([name for name in ('torch', 'torchvision', 'nni') if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=pickle.dumps(case.settings), capture_output=True)
    assert not done.returncode, done.stderr.decode(errors="replace")
    found = done.stdout.decode().splitlines()[-1]
    assert found == "[]", f"saying what it is imports {found}; do that where images are opened"


def reads_what_it_says(case: DatasetCase) -> None:
    """Images have the shape and the type that the spec says, and become a network's input."""
    spec = case.spec
    transform = ImageTransform(spec)
    for name, store in case.parts():
        indices = _some(store)
        pixels = transform.evaluation(transform.promised(store.read(indices), indices))
        assert pixels.shape == (len(indices), *spec.input_shape), f"{name} set: {pixels.shape}"
        assert pixels.dtype == pixel_type(spec), f"{name} set: {pixels.dtype}"


def reads_an_image_wherever_it_stands(case: DatasetCase) -> None:
    """An image is the same alone, in any order and when it is asked for twice."""
    for name, store in case.parts():
        last = len(store.targets) - 1
        mixed = _images(store, np.array([last, 0, last]))
        alone = [_images(store, np.array([i]))[0] for i in (last, 0, last)]
        for one, other in zip(mixed, alone, strict=True):
            assert np.array_equal(one, other), f"{name} set: an image depends on those around it"


def opens_the_same_images_again(case: DatasetCase) -> None:
    """Opened twice, a part has the same images in the same order, and the same digest."""
    for (name, one), (_, other) in zip(case.parts(), case.parts(), strict=True):
        indices = _some(one)
        same = map(np.array_equal, one.targets[indices], other.targets[indices])
        assert all(same), f"{name} set: other targets"
        same = map(np.array_equal, _images(one, indices), _images(other, indices))
        assert all(same), f"{name} set: other images"
        assert one.digest(indices) == other.digest(indices), f"{name} set: another digest"
        if len(indices) > 1:
            assert one.digest(indices) != one.digest(indices[::-1].copy()), (
                f"{name} set: in any order"
            )


def has_images_of_every_class(case: DatasetCase) -> None:
    """Both parts have images of every class; of every label, or pixels of every class."""
    if case.spec.target == "values":
        return
    for name, store in case.parts():
        targets = store.targets[_some(store)] if case.spec.target == "mask" else store.targets
        if case.spec.target == "labels":
            found = np.flatnonzero(np.any(targets, axis=0))
        else:
            found = np.unique(np.concatenate([np.ravel(x) for x in targets]))
        missing = set(range(case.spec.num_classes)) - set(found.tolist())
        assert not missing, f"{name} set: no image of the classes {sorted(missing)}"


def keeps_its_test_images_apart(case: DatasetCase) -> None:
    """No image that is looked at is in both parts."""
    rows = [
        {image.tobytes() for image in _images(store, _some(store))} for _, store in case.parts()
    ]
    common = len(rows[0] & rows[1])
    assert not common, f"{common} images of the test set are in the training set too"


def is_known_by_its_images(case: DatasetCase) -> None:
    """Digests are text, or None where images never change; the same when they are asked again."""
    dataset = find_dataset(case.settings)
    for method in (dataset.digest_training_images, dataset.digest_test_images):
        found = method()
        assert found is None or isinstance(found, str), f"{method.__name__}() returned {found!r}"
        assert found == method(), f"{method.__name__}() returned something else the second time"
        assert found == UNKNOWN or found is None or found.isprintable(), f"{method.__name__}()"


def feeds_a_training(case: DatasetCase) -> None:
    """It can be split, a training gets batches of it, and another process can open it too."""
    data = open_data(case.settings)
    images, targets = next(iter(data.train_loader(batch_size=8, seed=0)))
    assert images.shape[1:] == case.spec.input_shape, f"a batch of shape {tuple(images.shape)}"
    assert images.isfinite().all(), "a batch with values that are not finite"
    assert len(images) == len(targets)
    again = pickle.loads(pickle.dumps(data))
    assert again.preprocessing == data.preprocessing, "another process prepares other images"
    assert again.num_train == data.num_train, "another process has other images"


CHECKS: tuple[Callable[[DatasetCase], None], ...] = (
    says_what_it_is,
    describes_its_keys,
    is_described_without_pytorch,
    reads_what_it_says,
    reads_an_image_wherever_it_stands,
    opens_the_same_images_again,
    has_images_of_every_class,
    keeps_its_test_images_apart,
    is_known_by_its_images,
    feeds_a_training,
)
"""The suite."""


def _some(store: ImageStore) -> np.ndarray[Any, Any]:
    """Return at most `MOST` positions, evenly spread."""
    number = len(store.targets)
    return np.unique(np.linspace(0, number - 1, min(number, MOST)).astype(np.int64))


def _images(store: ImageStore, indices: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    found = store.read(indices)
    return [x.numpy() if isinstance(x, Tensor) else np.asarray(x) for x in found]
