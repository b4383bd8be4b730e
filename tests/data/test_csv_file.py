"""A CSV file lists images and what is to be predicted of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nni_spos.data import dataset_spec, open_data
from nni_spos.errors import DataError, ImagesWarning, RecipeError
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import load_recipe

COLUMNS = "image,kind,a,b,x,tags,patient,part"


@pytest.fixture
def settings(tmp_path):
    """Write 24 images of two sizes with their file, change lines of it, and return settings."""
    for i in range(24):
        pixels = np.full((8 + i % 2, 12, 3), i * 10, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")

    def settings(lines=(), columns=COLUMNS, **keys):
        rows = [
            f"{i}.png,{('cat', 'dog')[i % 2]},{i % 2},1,{i / 8},{'red; big' if i % 3 else 'red'},"
            f"p{i // 4},{'train' if i < 14 else 'val' if i < 18 else 'test'}"
            for i in range(24)
        ]
        for number, line in dict(lines).items():
            rows[number] = line
        (tmp_path / "images.csv").write_text("\n".join([columns, *rows]))
        common = {x: keys.pop(x) for x in list(keys) if x in DataSettings.__dataclass_fields__}
        common = {"image_size": 8, "augmentation": "none", **common}
        keys = {"file": "images.csv", **keys}
        return DataSettings("csv", **common, arguments=keys, folder=tmp_path)

    return settings


def targets(batches):
    return [row for _, labels in batches for row in labels.tolist()]


def numbers(batches):
    """The numbers of images, which stand in their colour."""
    spec = batches.spec
    return [
        round(((x[0, 0, 0] * spec.std[0] + spec.mean[0]) * 255).item() / 10)
        for images, _ in batches
        for x in images
    ]


def everything(data):
    return data.recalibration_batches(99, 99, 0)


def test_classes_are_the_names_in_the_column(settings):
    data = open_data(settings(label="kind", num_test=4))
    assert (data.spec.target, data.spec.num_classes) == ("class", 2)
    assert (data.num_train, data.num_validation) == (18, 2)
    parts = [everything(data), data.validation_batches(9), data.test_batches(9)]
    for part in parts:
        assert targets(part) == [i % 2 for i in numbers(part)]
    assert sorted(i for part in parts for i in numbers(part)) == list(range(24))
    other = open_data(settings(label="kind", num_test=4, split_seed=5))
    assert numbers(other.test_batches(9)) == numbers(parts[2])
    assert numbers(other.validation_batches(9)) != numbers(parts[1])


def test_a_column_says_the_splits(settings):
    data = open_data(settings(label="kind", split="part"))
    assert sorted(numbers(everything(data))) == list(range(14))
    assert numbers(data.validation_batches(9)) == [14, 15, 16, 17]
    assert numbers(data.test_batches(9)) == list(range(18, 24))
    with pytest.raises(DataError, match=r"data set csv: has no test set\. Set 'num_test' in the"):
        open_data(settings(label="kind")).test_batches(9)
    with pytest.raises(DataError, match="csv: has a test set of its own; 'num_test' is only"):
        open_data(settings(label="kind", split="part", num_test=2))


@pytest.mark.parametrize(
    ("keys", "target", "expected"),
    [
        ({"labels": ["a", "b"]}, "labels", lambda i: [i % 2, 1]),
        ({"labels": "tags"}, "labels", lambda i: [float(i % 3 > 0), 1]),
        ({"values": "x"}, "values", lambda i: [i / 8]),
        ({"values": ["x", "a"]}, "values", lambda i: [i / 8, i % 2]),
    ],
)
def test_several_labels_and_values(settings, keys, target, expected):
    data = open_data(settings(**keys, num_validation=6))
    assert (data.spec.target, data.spec.num_classes) == (target, len(expected(0)))
    for part in (everything(data), data.validation_batches(9)):
        assert targets(part) == [expected(i) for i in numbers(part)]
    if target == "labels":  # the shares of combinations are kept
        found = [tuple(x) for x in targets(data.validation_batches(9))]
        assert sorted(found).count(tuple(map(float, expected(0)))) in (2, 3)


def test_no_group_is_divided(settings):
    data = open_data(settings(label="kind", groups="patient", num_validation=4, num_test=4))
    parts = [everything(data), data.validation_batches(9), data.test_batches(9)]
    found = [{i // 4 for i in numbers(part)} for part in parts]
    assert [len(x) for x in found] == [4, 1, 1]
    assert set.union(*found) == set(range(6))
    divided = open_data(settings(label="kind", num_validation=4))
    assert len({i // 4 for i in numbers(divided.validation_batches(9))}) > 1


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({}, RecipeError, "data set csv: needs one of label, labels and values, got none."),
        ({"label": "kind", "values": "x"}, RecipeError, "values, got label and values."),
        (
            {"lable": "kind"},
            RecipeError,
            "unknown key 'lable'; did you mean 'label'? Keys: name, r",
        ),
        ({"label": 5}, RecipeError, ".label: got 5; must be text, or null."),
        ({"label": "knd"}, DataError, "unknown column 'knd'; did you mean 'kind'? Columns: image"),
        ({"label": "kind", "file": "no.csv"}, DataError, "no.csv: No such file or directory. 'fil"),
        ({"values": "kind"}, DataError, "images.csv, line 2: 'kind' is 'cat'; must be a number."),
        ({"labels": ["a", "x"]}, DataError, "images.csv, line 3: 'x' is '0.125'; must be 0 or 1."),
        ({"label": "kind", "split": "a"}, DataError, "line 2: unknown split '0'. Splits: train, v"),
        (
            {"label": "kind", "split": "part", "groups": "patient"},
            DataError,
            "line 16: the group 'p3' is in validation, but in train in line 14. Images of a group",
        ),
        ({"label": "kind", "root": "no"}, DataError, "/no/"),
    ],
)
def test_what_is_wrong_is_one_line(settings, keys, error, message):
    with pytest.raises(error) as caught:
        next(iter(open_data(settings(**keys)).train_loader(99, 0)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "keys", "message"),
    [
        ("5.png,dog,0,1,,red,p1,val", {"values": "x"}, "line 7: 'x' is ''; must be a number."),
        ("5.png,dog,0,1,nan,red,p1,val", {"values": "x"}, "line 7: 'x' is 'nan'; must be a nu"),
        (",dog,0,1,1,red,p1,val", {"label": "kind"}, "line 7: 'image' is empty."),
        ("5.png,,0,1,1,red,p1,val", {"label": "kind"}, "line 7: 'kind' is empty."),
        ("3.png,dog,0,1,1,red,p1,val", {"label": "kind"}, "line 7: 3.png is in line 5 too. Kee"),
        ("./3.png,dog,0,1,1,red,p1,val", {"label": "kind"}, "line 7: ./3.png is in line 5 too."),
        ("5.png,emu,0,1,1,red,p1,val", {"label": "kind"}, "class 2 has a single image (image 5)"),
    ],
)
def test_a_line_that_is_wrong_is_named(settings, line, keys, message):
    open_data(settings(**keys))
    with pytest.raises(DataError) as caught:
        open_data(settings({5: line}, **keys))
    assert message in str(caught.value)


def test_numbers_of_classes_are_checked_where_their_number_is_given(settings):
    lines = {i: f"{i}.png,{1 + i % 2},0,1,1,red,p1,val" for i in range(24)}
    data = open_data(settings(lines, label="kind"))
    assert set(targets(everything(data))) == {0, 1}, "names, in their order"
    data = open_data(settings(lines, label="kind", num_classes=3))
    assert (data.spec.num_classes, set(targets(everything(data)))) == (3, {1, 2})
    with pytest.raises(DataError, match=r"the class 2 for image 1\.png; num_classes says 2 c"):
        open_data(settings(lines, label="kind", num_classes=2))


def test_a_damaged_image_is_named_or_left_out(settings, tmp_path):
    (tmp_path / "7.png").write_bytes(b"no image")
    everywhere = settings(label="kind", num_validation=4)
    data = open_data(everywhere)
    with pytest.raises(DataError, match=r"/7\.png: cannot be read as an image \(cannot identify"):
        [*data.train_loader(99, 0), *data.validation_batches(9)]
    with pytest.warns(ImagesWarning, match=r"1 of 24 images cannot be read and are left out\. The"):
        data = open_data(settings(label="kind", num_validation=4, on_error="skip"))
    assert sorted([*numbers(everything(data)), *numbers(data.validation_batches(9))]) == [
        i for i in range(24) if i != 7
    ]


def test_a_file_by_any_column_separator(settings, tmp_path):
    made = settings(label="kind")
    text = (tmp_path / "images.csv").read_text()
    (tmp_path / "images.csv").write_text(text.replace(",", "\t"), encoding="utf-8-sig")
    with pytest.raises(DataError, match="unknown column 'image'"):
        dataset_spec(made)
    assert dataset_spec(settings(label="kind")).num_classes == 2
    (tmp_path / "images.csv").write_text(text.replace(",", "\t"), encoding="utf-8-sig")
    keys = {**made.arguments, "delimiter": "\t"}
    assert dataset_spec(DataSettings("csv", arguments=keys, folder=tmp_path)).num_classes == 2


def test_what_results_depend_on(settings, tmp_path):
    settings(label="kind", split="part")
    recipe = "{output: out, space: {name: resnet_small}, supernet: {steps: 1}, retrain: {steps: 1}"

    def found(data="file: images.csv"):
        text = f"{recipe}, data: {{name: csv, label: kind, split: part, {data}}}}}"
        (tmp_path / "r.yml").write_text(text)
        return describe(Result.NETWORK, load_recipe(tmp_path / "r.yml"))

    before = found()
    assert found("file: images.csv, image: image, delimiter: ','") == before
    (tmp_path / "images.csv").rename(tmp_path / "moved.csv")
    assert found("file: moved.csv") == before
    (tmp_path / "images.csv").write_text((tmp_path / "moved.csv").read_text())
    settings({3: "3.png,cat,0,1,1,red,p1,train"}, label="kind")
    changed = found()
    assert [x for x in before if before[x] != changed[x]] == ["training images"]
    settings(label="kind")
    Image.new("RGB", (9, 9)).save(tmp_path / "20.png")
    changed = found()
    assert [x for x in before if before[x] != changed[x]] == ["test images"]


def test_what_is_missing_is_said_before_a_training(settings, tmp_path):
    assert settings(label="kind", split="part").own().missing() == []
    (said,) = settings(label="kind").own().missing()
    assert said.startswith("there are no test images. Before you retrain, set 'num_test', or name")
    (tmp_path / "3.png").unlink()
    (said,) = settings(label="kind").own().missing()
    assert said.startswith("1 of 24 images are not in")
    assert "such as 3.png" in said
    (said,) = settings(label="kind", file="other.csv").own().missing()
    assert said.startswith("there is no file")
