"""A user's function or class gives PyTorch's data sets: what is taken from them, and refused."""

from __future__ import annotations

import ast
import random
import sys
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image

from nni_spos.cli import main
from nni_spos.data import dataset_spec, open_data
from nni_spos.errors import DataError, ImagesWarning, RecipeError
from nni_spos.process import user_modules
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.identity import DATA_CODE, Result, describe
from nni_spos.recipe.recipe import load_recipe

PHOTOS = """
import csv
from pathlib import Path
from PIL import Image
from torch.utils.data import Dataset

class Photos(Dataset):
    def __init__(self, file: Path, split: str = "train"):
        self.rows = [x for x in csv.DictReader(file.open()) if x["split"] == split]
        self.folder = file.parent

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return Image.open(self.folder / self.rows[i]["name"]), int(self.rows[i]["label"])
"""

SAMPLES = '''
import numpy as np, random, torch
from PIL import Image

class Samples:
    """Samples by a function of their number."""

    def __init__(self, number, make):
        self.number, self.make = number, make

    def __len__(self):
        return self.number

    def __getitem__(self, i):
        if i >= self.number:
            raise IndexError(i)
        return self.make(i)

def grey(i, size=8, channels=1):
    rng = np.random.default_rng(i)
    return torch.from_numpy(rng.integers(0, 256, (channels, size, size), np.uint8))

'''


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """No module that a test finds stays."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(user_modules, "_folders", {})
    yield
    sys.modules.pop("my_data", None)


@pytest.fixture
def named(tmp_path):
    """Write a module, and return the settings that name something of it."""

    def named(code, name="load", **keys):
        (tmp_path / "my_data.py").write_text(SAMPLES + textwrap.dedent(code))
        sys.modules.pop("my_data", None)  # as in a new process
        common = {x: keys.pop(x) for x in list(keys) if x in DataSettings.__dataclass_fields__}
        return DataSettings(f"my_data:{name}", **common, arguments=keys, folder=tmp_path)

    return named


@pytest.fixture
def opened(named):
    def opened(code, name="load", **keys):
        with pytest.warns(ImagesWarning, match="does not say when its images change"):
            return open_data(named(code, name, **keys))

    return opened


def load(body):
    return f"def load():\n    return {body}\n"


def only(batches):
    (batch,) = batches
    return batch


def write_photos(folder):
    rows = ["name,label,split"]
    for i in range(24):
        pixels = np.full((10, 10, 3), 10 * i, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{i % 3},{'train' if i < 15 else 'val' if i < 18 else 'test'}")
    (folder / "photos.csv").write_text("\n".join(rows))


def test_a_csv_takes_at_most_15_lines(opened, tmp_path):
    lines = [x for x in PHOTOS.splitlines() if x.strip() and "import" not in x]
    assert len(lines) <= 15
    write_photos(tmp_path)
    data = opened(PHOTOS, "Photos", file="photos.csv", validation_split="val")
    spec = data.spec
    assert (spec.num_classes, spec.channels, spec.image_size, spec.target) == (3, 3, 10, "class")
    assert (data.num_train, data.num_validation) == (15, 3)
    images, labels = only(data.validation_batches(8))
    expected = (torch.tensor([150, 160, 170]) / 255 - spec.mean[0]) / spec.std[0]
    torch.testing.assert_close(images[:, 0, 5, 5], expected)
    assert labels.tolist() == [0, 1, 2]
    assert only(data.test_batches(8))[1].tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"fil": "photos.csv"}, "unknown key 'fil'; did you mean 'file'? Keys: name, root,"),
        ({}, "the key 'file' is missing."),
        ({"file": 3}, ".file: got 3; must be the name of a file or folder."),
        ({"file": "photos.csv", "split": 1}, ".split: got 1; must be text, or null."),
    ],
)
def test_its_parameters_are_the_keys(named, keys, message):
    with pytest.raises(RecipeError) as caught:
        dataset_spec(named(PHOTOS, "Photos", **keys))
    assert str(caught.value).startswith("data set my_data:Photos")
    assert message in str(caught.value)


def test_type_hints_are_rules(named):
    code = "def load(number: int, noise: float = 0.5, more=None):\n    raise ValueError(number)\n"
    with pytest.raises(RecipeError, match=r"\.number: got '7'; must be a whole number\."):
        dataset_spec(named(code, number="7"))
    with pytest.raises(RecipeError, match=r"\.noise: got 'x'; must be a number\."):
        dataset_spec(named(code, number=7, noise="x"))
    with pytest.raises(DataError, match=r"^data set my_data:load: 7 \(my_data.py, line 24\)$"):
        dataset_spec(named(code, number=7, noise=1.0, more=[1]))


def test_keys_of_the_section_reach_the_function(opened, named):
    code = """
    def load(root, num_classes=5, sizes=[1, 2]):
        assert sizes == [1, 2] and root.endswith("images")
        return Samples(20, lambda i: (grey(i), i % num_classes))
    """
    assert opened(code, root="images", num_classes=2).spec.num_classes == 2
    assert opened(code, root="images").spec.num_classes == 5
    with pytest.raises(RecipeError, match="its parameter 'workers' is a key of the section data"):
        dataset_spec(named(code.replace("sizes", "workers"), root="images"))


THREE = "Samples(20, lambda i: (grey(i), i % 2)), Samples(6, lambda i: (grey(50 + i), i % 2)), "
TEST = "Samples(4, lambda i: (grey(90 + i), 1))"


@pytest.mark.parametrize(
    ("body", "sizes"),
    [
        ("Samples(20, lambda i: (grey(i), i % 2))", (18, 2, None)),
        (f"({THREE}{TEST})", (20, 6, 4)),
        (f"({THREE}None)", (20, 6, None)),
        (f"dict(zip(('train', 'val', 'test'), ({THREE}{TEST})))", (20, 6, 4)),
        (f"dict(train=Samples(20, lambda i: (grey(i), i % 2)), test={TEST})", (18, 2, 4)),
    ],
)
def test_what_a_function_returns(opened, body, sizes):
    data = opened(load(body))
    assert (data.num_train, data.num_validation) == sizes[:2]
    if sizes[2] is None:
        with pytest.raises(DataError, match=r"my_data:load: has no test set\. Set 'num_test' in"):
            data.test_batches(4)
    else:
        assert data.test_batches(4).num_images == sizes[2]


def test_a_validation_set_is_not_held_out_of_the_training_set(opened):
    data = opened(load(f"({THREE}{TEST})"), num_validation=2)
    images, _ = only(data.validation_batches(9))
    held = {x.item() for x in images[:, 0, 0, 0]}
    whole, _ = only(opened(load(f"({THREE}{TEST})")).validation_batches(9))
    assert held <= {x.item() for x in whole[:, 0, 0, 0]}
    assert (data.num_train, data.num_validation) == (20, 2)


@pytest.mark.parametrize(
    ("sample", "form"),
    [
        ("(grey(i), i % 2)", (1, 8, "class", 2)),
        ("(grey(i, channels=3), torch.tensor(i % 2))", (3, 8, "class", 2)),
        ("{'image': grey(i), 'label': i % 2}", (1, 8, "class", 2)),
        ("(Image.fromarray(grey(i)[0].numpy()), np.int64(i % 2))", (1, 8, "class", 2)),
        ("(Image.fromarray(grey(i)[0].numpy()).convert('RGB'), i % 2)", (3, 8, "class", 2)),
        ("(Image.new('RGB', (20 + i, 30)), i % 2)", (3, 224, "class", 2)),
        ("(Image.new('RGB' if i == 19 else 'L', (8, 8)), i % 2)", (3, 8, "class", 2)),
        ("(grey(i), [i % 2, 1, 0])", (1, 8, "labels", 3)),
        ("(grey(i), torch.tensor([i % 2, 1.0]))", (1, 8, "labels", 2)),
        ("(grey(i), [i / 2, 1.0])", (1, 8, "values", 2)),
        ("(grey(i), i / 2)", (1, 8, "values", 1)),
    ],
)
def test_samples_of_any_kind(named, sample, form):
    with pytest.warns(ImagesWarning):
        spec = dataset_spec(named(load(f"Samples(20, lambda i: {sample})")))
    assert (spec.channels, spec.image_size, spec.target, spec.num_classes) == form


def test_targets_come_from_an_attribute_only_if_samples_have_the_same(opened):
    code = """
    read = []

    def load(shift=0):
        samples = Samples(200, lambda i: (read.append(i), (grey(i), i % 2))[1])
        samples.targets = [(i + shift) % 2 for i in range(200)]
        return samples
    """
    opened(code)
    assert len(sys.modules["my_data"].read) < 50
    data = opened(code, shift=1)
    assert len(sys.modules["my_data"].read) > 200
    images, labels = only(data.validation_batches(99))
    parity = {x.numpy().tobytes(): i % 2 for i, x in enumerate(data._store.read(np.arange(200)))}
    pixels = ((images * data.spec.std[0] + data.spec.mean[0]) * 255).round().to(torch.uint8)
    assert [parity[x.numpy().tobytes()] for x in pixels] == labels.tolist()


def test_the_network_gets_exactly_what_own_transforms_return(opened):
    code = load("Samples(20, lambda i: (torch.full((1, 8, 8), i - 9.5), i % 2))")
    data = opened(code, held_mb=0)
    assert data.spec.is_prepared
    for batches in (data, opened(code)):
        images, labels = next(iter(batches.train_loader(18, seed=0)))
        assert sorted(images[:, 0, 0, 0].tolist()) == sorted(images.mean((1, 2, 3)).tolist())
        assert ((images[:, 0, 3, 3] + 9.5) % 2).tolist() == labels.tolist()
        found = only(batches.validation_batches(9))[0]
        assert all(x % 1 == 0.5 for x in found.flatten().tolist())
        assert found.dtype == torch.float32
    first = only(data.validation_batches(9))[0]
    first.add_(1)  # images are the receiver's own
    assert torch.equal(only(data.validation_batches(9))[0], first - 1)
    with pytest.raises(DataError, match=r"^image_size: the images of my_data:load are float"):
        opened(code, image_size=16)
    with pytest.raises(DataError, match=r"^augmentation: the images of my_data:load are float"):
        opened(code, augmentation="shift")
    with pytest.raises(DataError, match=r"^normalisation: the images of my_data:load are float"):
        opened(code, normalisation="none")
    with pytest.raises(DataError, match=r"^channel_order: the images of my_data:load are float"):
        opened(code, channel_order="bgr")


RANDOM = load(
    "Samples(20, lambda i: (torch.full((1, 4, 4), random.random()) + torch.rand(1) + "
    "np.random.rand(), i % 2))"
)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.slow
def test_random_transforms_follow_the_seed(opened, workers):
    data = opened(RANDOM, workers=workers)

    def epoch(number, seed=0):
        batches = data.train_loader(6, seed=seed, start_epoch=number)
        return torch.cat([images for images, _ in batches])[:, 0, 0, 0]

    before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = epoch(0)
    assert len(set(first.tolist())) == 18
    assert torch.equal(first, epoch(0))
    assert not set(first.tolist()) & set(epoch(1).tolist())
    assert not set(first.tolist()) & set(epoch(0, seed=1).tolist())
    scored = [only(data.validation_batches(2))[0] for _ in range(2)]
    assert torch.equal(*scored)
    after = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()
    assert (before[0], before[2]) == (after[0], after[2])
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("groups", ["lambda: [i // 4 for i in range(24)]", "np.arange(24) // 4"])
def test_groups_stay_together(opened, groups):
    code = f"""
    def load():
        samples = Samples(24, lambda i: (torch.full((1, 4, 4), float(i)), i % 2))
        samples.groups = {groups}
        return samples
    """
    data = opened(code, num_validation=4, num_test=4)
    parts = [
        {int(x) // 4 for x in only(batches)[0][:, 0, 0, 0]}
        for batches in (
            data.recalibration_batches(99, 99, 0),
            data.validation_batches(99),
            data.test_batches(99),
        )
    ]
    assert sorted(x for part in parts for x in part) == [0, 1, 2, 3, 4, 5]
    assert [len(part) for part in parts] == [4, 1, 1]


def test_a_group_in_two_sets_is_refused(opened):
    code = """
    def load(first):
        one = Samples(8, lambda i: (grey(i), i % 2))
        other = Samples(4, lambda i: (grey(i + 9), i % 2))
        one.groups, other.groups = [f"p{i // 2}" for i in range(8)], [first, "q", "q", "q"]
        return one, other, None
    """
    assert opened(code, first="p9").num_validation == 4
    with pytest.raises(DataError, match=r"the group 'p3' is in the training set and in the valid"):
        opened(code, first="p3")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (load("[1, 2], [3]"), "returned a tuple of 2; must be a data set with __len__"),
        (load("None"), "returned nothing; must be a data set with __len__"),
        (load("{'training': 1}"), "returned a dict with the keys training; must be"),
        (load("iter([1])"), "training set: a list_iterator has no __len__. A data set needs"),
        (load("Samples(0, None)"), "training set: it has no images."),
        (load("Samples(-1, None)"), "training set: __len__: __len__() should return >= 0"),
        (load("Samples(1.5, None)"), "__len__: 'float' object cannot be interpreted as an integer"),
        (load("Samples(9, lambda i: 1 / 0)"), "image 0: ZeroDivisionError: division by zero (my_"),
        (load("Samples(9, lambda i: grey(i))"), "the sample is Tensor; must be (image, target)"),
        (load("Samples(9, lambda i: (grey(i), 1, 2))"), "the sample is 3 values; must be"),
        (load("Samples(9, lambda i: {'pixels': 1})"), "keys pixels; one must be image or img."),
        (load("Samples(9, lambda i: (np.zeros((8, 8)), 1))"), "image 0 is a ndarray of float64, "),
        (load("Samples(9, lambda i: (grey(i)[0], 1))"), "is a Tensor of torch.uint8, shape (8, 8)"),
        (load("Samples(9, lambda i: (grey(i), 'cat'))"), "target of image 0 is 'cat'; must be a n"),
        (load("Samples(9, lambda i: (grey(i), [1] * i))"), "target of image 1 has the shape (1,)"),
        (
            load("Samples(9, lambda i: (grey(i), i % 2 - 1))"),
            "the class -1 for image 0; its spec()",
        ),
        (load("Samples(9, lambda i: (grey(i), i % 2 + 1))"), "the smallest class is 1; classes c"),
        (
            load("Samples(9, lambda i: (grey(i), float('nan') if i == 7 else 0.5))"),
            "a target of image 7 that is no finite number",
        ),
        (
            load("Samples(9, lambda i: (grey(i) if i < 8 else grey(8).float(), 1))"),
            "image 8 is prepared; others are pixels.",
        ),
        (load("Samples(40, lambda i: (grey(i, 8 + (i > 30)), i % 2))"), "its images are tensors"),
        (
            load("Samples(40, lambda i: (Image.new('RGB' if i == 1 else 'L', (8, 8)), i % 2))"),
            "image 1 has the mode RGB, but others are grey. Convert all to one.",
        ),
        (
            load("Samples(9, lambda i: (torch.full((1, 2, 2), float('inf')), i % 2))"),
            "image 0 has values that are not finite.",
        ),
        (
            "class Short(Samples):\n    def __len__(self):\n        return self.number + 4\n"
            + load("Short(9, lambda i: (grey(i), i % 2))"),
            "image 9: IndexError: 9 (my_data.py, line 16). Its __len__ says 13.",
        ),
        (
            "class Grows(Samples):\n    def __len__(self):\n        self.number += 1\n"
            "        return self.number\n" + load("Grows(9, lambda i: (grey(i), i % 2))"),
            "its length changes: it was 10, and now is",
        ),
    ],
)
def test_what_is_wrong_is_one_line(named, code, message):
    with pytest.raises(DataError) as caught, pytest.warns(ImagesWarning):
        next(iter(open_data(named(code)).recalibration_batches(99, 99, 0)))
    assert str(caught.value).startswith("data set my_data:load: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class load:\n    def __getitem__(self, i): pass\n", "the class load has no __len__. A d"),
        ("class load:\n    def __len__(self): pass\n", "the class load has no __getitem__, wh"),
        ("class load:\n    def __iter__(self): pass\n", "the class load can only be iterated ov"),
        ("class load: pass\n", "is a load, not a Dataset. Derive the class from"),
        ("from shutil import rmtree as load\n", "does not say that it gives data sets. Write a fu"),
        ("load = 5\n", "is a int, not a class or function."),
        ("def load(x, /): pass\n", "its parameter 'x' cannot be given by name."),
        ("def load(spec): pass\n", "its parameter 'spec' must have another name."),
    ],
)
def test_what_gives_no_data_set_is_not_called(named, code, message):
    with pytest.raises(RecipeError) as caught:
        dataset_spec(named(code))
    assert message in str(caught.value)


def test_labels_outside_the_number_of_classes_are_named(named):
    code = load("Samples(20, lambda i: (grey(i), 5 if i == 12 else i % 2))")
    with pytest.raises(
        DataError, match=r"the class 5 for image 12; num_classes says 2 classes, 0 to 1"
    ):
        open_data(named(code, num_classes=2))
    with pytest.warns(ImagesWarning), pytest.raises(DataError, match="class 5 has a single image"):
        open_data(named(code))


def test_images_that_cannot_be_read_are_left_out_and_counted(named):
    code = load("Samples(20, lambda i: (grey(i), i % 2) if i not in (3, 8) else 1 / 0)")
    with pytest.raises(DataError, match=r"training set: image 3: ZeroDivisionError"):
        open_data(named(code))
    with pytest.warns(ImagesWarning, match="2 of 20 images cannot be read and are left out. The f"):
        data = open_data(named(code, on_error="skip"))
    assert data.num_train + data.num_validation == 18
    assert len(next(iter(data.train_loader(99, 0)))[0]) == data.num_train


@pytest.mark.parametrize("workers", [0, 1])
def test_code_that_fails_later_is_named_with_its_line(opened, workers):
    code = """
    def load():
        samples = Samples(60, lambda i: (grey(i) if i != 13 else 1 / 0, i % 2))
        samples.targets = [i % 2 for i in range(60)]
        return samples
    """
    data = opened(code, workers=workers)
    message = r"training set: image 13: ZeroDivisionError: .* \(my_data\.py, line 25\)$"
    with pytest.raises(DataError, match=message):
        [*data.train_loader(60, 0), *data.validation_batches(60)]


@pytest.mark.slow
def test_commands_end_with_one_line_and_code_2(named, tmp_path, capsys, monkeypatch):
    named(load("Samples(20, lambda i: 1 / 0)"))
    training = "{steps: 1, batch_size: 20}"
    recipe = "output: out\nspace: {name: resnet_small}\ndata: {name: 'my_data:load'}\n"
    file = tmp_path / "r.yml"
    file.write_text(f"{recipe}supernet: {training}\nretrain: {training}\n")
    assert main(["train", str(file)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("DataError: data set my_data:load: training set: image 0: ZeroDivision")
    assert not (tmp_path / "out").exists()
    named(load("Samples(20, lambda i: (grey(i), i % 2))"))
    assert main(["train", str(file)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        "DataError: my_data:load: there are 18 training images, fewer than a batch of 20. Set "
        "'batch_size' in the recipe's section supernet to at most 18."
    )
    assert not (tmp_path / "out" / "supernet.pt").exists()


def test_a_digest_says_when_images_change(named, tmp_path):
    code = """
    from pathlib import Path

    def load(file: Path):
        return Samples(20, lambda i: (grey(i), i % 2))

    load.digest = lambda file: file.read_text()
    """
    (tmp_path / "seen.txt").write_text("first")
    settings = named(code, file="seen.txt")
    open_data(settings)  # warns of nothing
    assert settings.own().digest_training_images() == "first"
    (tmp_path / "seen.txt").write_text("second")
    assert settings.own().digest_training_images() == "second"
    with pytest.raises(DataError, match="digest returned a int; must be text, or None where"):
        dataset_spec(named(code.replace("file.read_text()", "5"), file="seen.txt"))


def test_results_depend_on_its_code_which_reading_a_recipe_does_not_run(tmp_path):
    recipe = "{output: out, space: {name: resnet_small}, supernet: {steps: 1}, retrain: {steps: 1}"
    (tmp_path / "r.yml").write_text(f"{recipe}, data: {{name: 'my_data:load', size: 8}}}}")
    code = f"{SAMPLES}def load(size):\n    return Samples(20, lambda i: (grey(i, size), i % 2))\n"
    (tmp_path / "my_data.py").write_text(code)
    before = describe(Result.WORKER, load_recipe(tmp_path / "r.yml"))
    assert before["data"]["size"] == 8
    (tmp_path / "my_data.py").write_text(code.replace("i % 2", "i % 3"))
    after = describe(Result.WORKER, load_recipe(tmp_path / "r.yml"))
    assert after.pop(DATA_CODE) != before.pop(DATA_CODE)
    assert after == before
    assert "my_data" not in sys.modules
    assert ast.parse(code)
