"""Every image file of a folder is found once, in the order of torchvision, and in one split."""

import os

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from nni_spos.cli import main
from nni_spos.data import folders, open_data
from nni_spos.data.folders import find_images
from nni_spos.data.stores import ImageFiles
from nni_spos.errors import DataError
from nni_spos.recipe.data_settings import DataSettings

CLASSES = ["cat", "dog"]


def draw(file, seed=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    seed = abs(hash(str(file))) % 2**32 if seed is None else seed
    pixels = np.random.default_rng(seed).integers(256, size=(8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture
def root(tmp_path):
    for part in ("train", "val"):
        for name in CLASSES:
            for i in range(4):
                draw(tmp_path / part / name / f"{i}.png")
    return tmp_path


def names_in(folder):
    return find_images(str(folder), CLASSES)[0]


def test_the_order_is_that_of_torchvision(root):
    for name in ("cat/b/1.JPG", "cat/a/2.png", "cat/a/deep/3.png", "cat/a.png", "dog/Z.png"):
        draw(root / "train" / name)
    (root / "train" / "cat" / "note.txt").write_text("no image")
    (root / "train" / "cat" / "empty").mkdir()
    places = {name: label for label, name in enumerate(CLASSES)}
    expected = make_dataset(str(root / "train"), places, extensions=IMG_EXTENSIONS)
    names, labels, _ = find_images(str(root / "train"), CLASSES)
    assert [(str(root / "train" / n), x) for n, x in zip(names, labels, strict=True)] == expected


def test_links_out_of_the_folder_are_followed(root, tmp_path_factory):
    away = tmp_path_factory.mktemp("away")
    draw(away / "one.png")
    draw(away / "more" / "two.png")
    (root / "train" / "cat" / "link.png").symlink_to(away / "one.png")
    (root / "train" / "cat" / "more").symlink_to(away / "more")
    assert {"cat/link.png", "cat/more/two.png"} <= set(names_in(root / "train"))


def link_to_a_file(folder):
    (folder / "again.png").symlink_to(folder / "0.png")


def hard_link(folder):
    os.link(folder / "0.png", folder / "again.png")


def link_to_the_folder_itself(folder):
    (folder / "again").symlink_to(folder)


def link_to_the_folder_above(folder):
    (folder / "again").symlink_to("..")


def two_links_to_a_folder(folder):
    draw(folder / "sub" / "9.png")
    (folder / "a").symlink_to(folder / "sub")
    (folder / "z").symlink_to(folder / "sub")


@pytest.mark.parametrize(
    ("link", "number"),
    [
        (link_to_a_file, 4),
        (hard_link, 4),
        (link_to_the_folder_itself, 4),
        (two_links_to_a_folder, 5),
    ],
)
def test_a_file_with_two_names_is_taken_once(root, link, number):
    link(root / "train" / "cat")
    names = [name for name in names_in(root / "train") if name.startswith("cat")]
    assert len(names) == number
    if link is two_links_to_a_folder:
        assert "cat/sub/9.png" in names  # the folder, not a link to it
    settings = DataSettings(
        "image_folder", root=str(root), image_size=8, crop_pct=1.0, num_validation=4
    )
    assert open_data(settings).num_train + 4 == number + 4


@pytest.mark.parametrize("link", ["file", "hard link", "folder", "folder above"])
def test_a_file_in_two_classes_is_refused(root, link):
    cat, dog = (root / "train" / name for name in CLASSES)
    if link == "file":
        (dog / "x.png").symlink_to(cat / "1.png")
    elif link == "hard link":
        os.link(cat / "1.png", dog / "x.png")
    elif link == "folder":
        (dog / "more").symlink_to(cat)
    else:
        link_to_the_folder_above(cat)
    with pytest.raises(DataError, match="are the same file, in two classes"):
        ImageFiles(root / "train", CLASSES)


@pytest.mark.parametrize("part", ["val", "validation", "test"])
@pytest.mark.parametrize("link", ["file", "hard link", "folder"])
def test_a_file_of_the_training_set_in_the_test_set_is_refused(root, link, part):
    (root / "val").rename(root / part)
    source, target = root / "train" / "dog", root / part / "dog"
    if link == "file":
        (target / "x.png").symlink_to(source / "1.png")
    elif link == "hard link":
        os.link(source / "1.png", target / "x.png")
    else:
        (target / "more").symlink_to(source)
    settings = DataSettings(
        "image_folder", root=str(root), image_size=8, crop_pct=1.0, num_validation=2
    )
    with pytest.raises(DataError, match=r"dog.*\.png is in .*train as well"):
        list(open_data(settings).test_batches(4))


def test_copies_are_other_files(root):
    for name in ("cat/x.png", "dog/x.png"):
        draw(root / "train" / name, seed=1)
    draw(root / "val" / "cat" / "x.png", seed=1)
    assert len(names_in(root / "train")) == 10
    ImageFiles(root / "val", CLASSES)


def test_numbers_that_say_nothing_make_no_files_the_same(root, monkeypatch):
    real = folders._entries

    def entries(*arguments):
        return ((name, (1, 1)) for name, _ in real(*arguments))

    monkeypatch.setattr(folders, "_entries", entries)
    assert len(names_in(root / "train")) == 8
    train, val = (ImageFiles(root / part, CLASSES) for part in ("train", "val"))
    assert val.find_common(train) == ""


def test_what_cannot_be_read_is_named(root):
    (root / "train" / "cat" / "lost.png").symlink_to(root / "nowhere.png")
    with pytest.raises(DataError, match=r"image_folder: .*lost\.png: No such file"):
        ImageFiles(root / "train", CLASSES)


def test_a_class_whose_images_are_all_links_of_itself_is_no_trouble(root):
    empty = root / "train" / "emu"
    empty.mkdir()
    (empty / "again").symlink_to(empty)
    with pytest.raises(DataError, match="emu has no image"):
        ImageFiles(root / "train", [*CLASSES, "emu"])


def test_the_command_line_names_both(root, tmp_path, monkeypatch, capsys):
    os.link(root / "train" / "cat" / "1.png", root / "train" / "dog" / "x.png")
    (tmp_path / "recipe.yml").write_text(
        f"output: out\nspace: {{name: shufflenet_small}}\n"
        f"data: {{name: image_folder, root: '{root}', image_size: 16, num_validation: 2}}\n"
        "supernet: {steps: 1, batch_size: 2}\nretrain: {steps: 1, batch_size: 2}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["train", "recipe.yml"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "cat/1.png" in line
    assert "dog/x.png" in line
