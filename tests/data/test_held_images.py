"""Images for evaluation are decoded once, and never taken for those of something else."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import threading
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image
from second_user import NOBODY, as_another_user, needs_root, shared_folder

from nni_spos.data import held, open_data
from nni_spos.data.stores import ImageFiles, ImageTensor
from nni_spos.errors import DataError, RecipeError
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.settings import read_settings

SIZE = 24


@pytest.fixture
def settings(image_folder):
    return DataSettings(
        "image_folder", str(image_folder), image_size=SIZE, num_train=16, num_validation=8
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "held"


@pytest.fixture
def decoded(monkeypatch):
    """Names of the image files that this process decodes."""
    names = []
    original = ImageFiles._decode

    def notice(self, name):
        names.append(os.fsdecode(name))
        return original(self, name)

    monkeypatch.setattr(ImageFiles, "_decode", notice)
    return names


def opened(settings, held_mb, folder=None):
    return open_data(dataclasses.replace(settings, held_mb=held_mb), folder)


def validation(settings, held_mb=0, folder=None, size=3):
    return list(opened(settings, held_mb, folder).validation_batches(size))


def digits(**settings):
    return {"name": "digits", **settings}


def trained_on(data):
    """Return the batches of two epochs."""
    batches = data.train_loader(5, seed=3)
    epochs = []
    for epoch in (0, 1):
        batches.sampler.set_epoch(epoch)
        epochs += list(batches)
    return epochs


def assert_same(one, other):
    assert len(one) == len(other) > 0
    for (images, labels), (other_images, other_labels) in zip(one, other, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def files(folder):
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock")


def test_in_memory_images_are_decoded_once(settings, decoded):
    data = open_data(settings)
    first = list(data.validation_batches(3))
    assert [images.shape for images, _ in first] == [(n, 3, SIZE, SIZE) for n in (3, 3, 2)]
    assert len(decoded) == len(set(decoded)) == 8
    assert_same(list(data.validation_batches(3)), first)
    assert torch.equal(next(iter(data.validation_batches(8)))[0][:3], first[0][0])
    assert len(decoded) == 8
    recalibration = [list(data.recalibration_batches(16, 5, seed=0)) for _ in range(2)]
    assert_same(*recalibration)
    assert len(decoded) == 8 + 16
    assert_same(validation(settings), first)  # these are decoded anew, in batches of their own


def test_a_data_set_in_memory_is_prepared_once(monkeypatch):
    settings = DataSettings("digits", num_train=330, num_validation=100)
    data = open_data(settings)
    prepared = list(data.validation_batches(30))
    monkeypatch.setattr(ImageTensor, "read", None)
    assert_same(list(data.validation_batches(30)), prepared)
    monkeypatch.undo()
    assert_same(validation(settings, size=30), prepared)


def test_without_room_or_folder_images_are_decoded_every_time(settings, decoded):
    data = opened(settings, 0)
    assert_same(list(data.validation_batches(3)), list(data.validation_batches(3)))
    assert len(decoded) == 2 * 8


def test_all_held_images_together_are_kept_in_memory_up_to_the_limit(folder):
    # 1,024 images of 32 x 32 grey pixels are 2^20 bytes.
    settings = DataSettings("digits", image_size=32, num_train=50, num_validation=1024)
    data = opened(settings, 1, folder)
    list(data.validation_batches(500))
    assert not folder.exists()
    list(data.recalibration_batches(1, 1, seed=0))
    assert files(folder) == ["recalibration.u8"]
    more = dataclasses.replace(settings, num_validation=1025)
    assert_same(validation(more, 1, folder, 500), validation(more, 2, folder, 500))
    assert files(folder) == ["recalibration.u8", "validation.u8"]


def test_images_in_a_file_leave_the_memory_to_others(folder):
    settings = DataSettings("digits", image_size=32, num_train=50, num_validation=1025)
    data = opened(settings, 1, folder)
    list(data.validation_batches(500))
    list(data.recalibration_batches(50, 50, seed=0))
    assert files(folder) == ["validation.u8"]


def test_other_recalibration_images_take_the_place_of_the_first(folder):
    settings = DataSettings("digits", image_size=32, num_train=1200, num_validation=100)
    data = opened(settings, 1, folder)
    found = [list(data.recalibration_batches(1024, 1024, seed)) for seed in (0, 1)]
    assert not folder.exists()
    for seed in (0, 1):
        alone = opened(settings, 0).recalibration_batches(1024, 1024, seed)
        assert_same(found[seed], list(alone))


def test_a_later_process_uses_the_file(settings, folder, decoded):
    first = validation(settings, 0, folder)
    assert len(decoded) == 8
    assert_same(validation(settings, 0, folder), first)
    assert_same(validation(dataclasses.replace(settings, workers=3), 0, folder), first)
    assert len(decoded) == 8
    assert_same(validation(settings, 10), first)
    with (folder / "validation.u8").open("rb") as stream:
        header = json.loads(stream.readline())
        assert stream.tell() == 4096
    assert header["shape"] == [8, SIZE, SIZE, 3]
    assert (header["split"], header["split_seed"], header["format"]) == ("validation", 0, 3)


@pytest.mark.parametrize("augmentation", ["none", "shift", "crop_flip"])
@pytest.mark.slow
def test_training_images_are_decoded_once_and_augmented_as_before(settings, decoded, augmentation):
    settings = dataclasses.replace(settings, augmentation=augmentation)
    from_files = trained_on(opened(settings, 0))
    assert len(decoded) == 2 * 15, "two epochs of three batches of 5"
    decoded.clear()
    data = open_data(settings)
    held = trained_on(data)
    assert len(decoded) == len(set(decoded)) == 16
    assert_same(held, from_files)
    assert not torch.equal(held[0][0], held[3][0])
    assert_same(trained_on(data), held)
    assert_same(trained_on(open_data(dataclasses.replace(settings, workers=2))), held)
    assert len(decoded) == 16


def test_small_images_are_enlarged_once_for_a_training():
    settings = DataSettings("digits", num_train=16, num_validation=20)
    assert_same(trained_on(open_data(settings)), trained_on(opened(settings, 0)))


def test_whole_images_are_decoded_anew_for_imagenet(settings, decoded):
    trained_on(open_data(settings))
    assert len(decoded) == 2 * 15


def test_training_images_are_never_written_to_files(settings, folder, decoded):
    data = opened(dataclasses.replace(settings, augmentation="shift"), 0, folder)
    trained_on(data)
    assert len(decoded) == 2 * 15
    assert not folder.exists()


def test_what_is_done_to_a_batch_does_not_reach_the_held_images(settings, folder):
    for held_mb in (0, 1):
        data = opened(settings, held_mb, folder)
        first = [images.clone() for images, _ in data.validation_batches(8)]
        for images, _ in data.validation_batches(8):
            images.zero_()
        for images, _ in data.validation_batches(8).to("cpu"):
            images.zero_()
        assert torch.equal(next(iter(data.validation_batches(8)))[0], first[0])


def replaced(settings, **changes):
    return dataclasses.replace(settings, **changes)


def touched(settings):
    """The files as if each had been written again, with as many bytes."""
    for name in ("cat", "dog"):
        for file in os.scandir(os.path.join(settings.root, "train", name)):
            os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    return settings


@pytest.mark.parametrize(
    ("change", "arguments"),
    [
        (replaced, {"split_seed": 1}),
        (replaced, {"num_validation": 6}),
        (replaced, {"image_size": 25}),
        (touched, {}),
    ],
)
def test_images_of_other_settings_or_files_are_decoded(
    settings, folder, decoded, change, arguments
):
    validation(settings, 0, folder)
    decoded.clear()
    changed = change(settings, **arguments)
    found = validation(changed, 0, folder)
    assert len(decoded) == changed.num_validation
    assert_same(found, validation(changed))


def test_another_seed_or_number_of_recalibration_images(settings, folder, decoded):
    for number, seed in ((10, 0), (10, 1), (9, 1)):
        decoded.clear()
        one, other = (opened(settings, 0, folder) for _ in range(2))
        first = list(one.recalibration_batches(number, 4, seed))
        assert len(decoded) == number
        assert_same(list(other.recalibration_batches(number, 4, seed)), first)
        assert len(decoded) == number
    assert files(folder) == ["recalibration.u8"]
    header = json.loads((folder / "recalibration.u8").read_bytes()[:4096])
    assert (header["split"], header["num_images"], header["seed"]) == ("recalibration", 9, 1)


def test_images_in_memory_of_other_contents_are_read_again(fashion_mnist_folder, folder):
    settings = DataSettings("fashion_mnist", str(fashion_mnist_folder), num_validation=20)
    first = validation(settings, 0, folder, 20)
    for name in ("images-idx3", "labels-idx1"):  # the test images in place of the training images
        shutil.copy(
            fashion_mnist_folder / f"t10k-{name}-ubyte.gz",
            fashion_mnist_folder / f"train-{name}-ubyte.gz",
        )
    found = validation(settings, 0, folder, 20)
    assert_same(found, validation(settings, 1, size=20))
    assert not torch.equal(found[0][0], first[0][0])


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES = {
    "short": lambda content: content[:-1],
    "long": lambda content: content + b"x",
    "empty": lambda content: b"",
    "other": lambda content: b"{}".ljust(len(content)),
    "a bit of a pixel": lambda content: flipped(content, 4096 + 5),
    "a bit of the last pixel": lambda content: flipped(content, len(content) - 33),
    "a bit of the digest": lambda content: flipped(content, len(content) - 1),
    "cut while it was written": lambda content: content[:5000].ljust(len(content), b"\0"),
    "pixels of other images": lambda content: content[:4096] + content[4097:-32] + content[-33:],
    "exchanged pixels": lambda content: b"".join(
        [content[:4096], content[5096:6096], content[4096:5096], content[6096:]]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again(settings, folder, decoded, damage):
    first = validation(settings, 0, folder)
    file = folder / "validation.u8"
    content = file.read_bytes()
    file.write_bytes(DAMAGES[damage](content))
    decoded.clear()
    assert_same(validation(settings, 0, folder), first)
    assert len(decoded) == 8
    assert file.read_bytes() == content


def test_a_file_of_other_images_is_not_used(settings, folder, image_folder, decoded, tmp_path):
    """Not even one of the same size that says it is of these."""
    first = validation(settings, 0, folder)
    other = tmp_path / "other"
    validation(dataclasses.replace(settings, split_seed=5), 0, other)
    file, theirs = folder / "validation.u8", (other / "validation.u8").read_bytes()
    content = file.read_bytes()
    assert len(theirs) == len(content)
    for wrong in (theirs, content[:4096] + theirs[4096:], theirs[:-32] + content[-32:]):
        assert wrong != content
        file.write_bytes(wrong)
        decoded.clear()
        assert_same(validation(settings, 0, folder), first)
        assert len(decoded) == 8


def test_files_that_are_exchanged_for_others_of_the_same_size_and_age(
    settings, folder, image_folder, decoded
):
    """As where all come out of one archive, without compression; labels are exchanged."""
    train = image_folder / "train"
    for number, file in enumerate(sorted(train.rglob("*.jpg"))):
        file.unlink()
        pixels = np.full((SIZE, SIZE, 3), number, np.uint8)
        Image.fromarray(pixels).save(file, format="bmp")
        os.utime(file, ns=(0, 0))
    first = validation(settings, 0, folder)
    files_of = {x: sorted(os.listdir(train / x)) for x in ("cat", "dog")}
    assert files_of["cat"] == files_of["dog"]
    for old, new in (("cat", "other"), ("dog", "cat"), ("other", "dog")):
        (train / old).rename(train / new)
    decoded.clear()
    found = validation(settings, 0, folder)
    assert_same(found, validation(settings, 1))
    assert any(not torch.equal(x, y) for (x, _), (y, _) in zip(first, found, strict=True))


@needs_root
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_of_another_user_is_neither_used_nor_written(settings, image_folder, mode):
    with shared_folder() as place:  # pytest's folders are closed to others
        shutil.copytree(image_folder, place / "images")
        settings = dataclasses.replace(settings, root=str(place / "images"))
        ours, theirs = place / "ours", place / "theirs"
        theirs.mkdir()
        theirs.chmod(0o777)
        first = validation(settings, 0, ours)
        file = ours / "validation.u8"
        before = file.read_bytes()
        file.chmod(mode)
        ours.chmod(0o777)
        with pytest.raises(DataError, match=r"belongs to another user .*another output folder"):
            as_another_user(validation, settings, 0, ours)
        assert file.read_bytes() == before
        assert as_another_user(lambda: len(validation(settings, 0, theirs))) == len(first)
        (theirs / "validation.lock").unlink()
        os.chown(theirs / "validation.u8", NOBODY, NOBODY)
        assert_same(validation(settings, 0, theirs), first)
        assert (theirs / "validation.u8").stat().st_uid == 0


def test_an_unreadable_image_leaves_no_file(settings, folder, image_folder, monkeypatch):
    monkeypatch.setattr(held, "PART", 2)
    damaged = image_folder / "train" / "dog" / "1.jpg"
    content = damaged.read_bytes()
    everything = dataclasses.replace(settings, num_train=2, num_validation=22, workers=2)
    damaged.write_bytes(content[:300])
    with pytest.raises(DataError, match=r"^.*1\.jpg: cannot be read as an image") as error:
        validation(everything, 0, folder)
    assert "\n" not in str(error.value)
    assert files(folder) == []
    with pytest.raises(DataError, match=r"1\.jpg: cannot be read"):
        validation(everything, 1, folder)
    damaged.write_bytes(content)
    assert len(validation(everything, 0, folder)) == 8
    assert multiprocessing.active_children() == []


def test_what_a_killed_process_left_is_not_used_and_is_removed(settings, folder):
    first = validation(settings, 0, folder)
    file = folder / "validation.u8"
    file.rename(folder / ".validation.u8.a1b2")
    other = folder / ".recalibration.u8.a1b2"  # another process may be writing that one
    other.write_bytes(b"")
    assert_same(validation(settings, 0, folder), first)
    assert files(folder) == [".recalibration.u8.a1b2", "validation.u8"]


def test_processes_that_start_together_decode_once(settings, folder, decoded, monkeypatch):
    both_looked = threading.Barrier(2, timeout=60)

    def late(*arguments, original=held.exclusive, **keywords):
        both_looked.wait()  # neither has found a file
        return original(*arguments, **keywords)

    monkeypatch.setattr(held, "exclusive", late)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(validation(settings, 0, folder)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same(*results)
    assert len(decoded) == 8


def test_a_full_disk_is_noticed_before_the_decoding(settings, folder, decoded, monkeypatch):
    needed = 8 * SIZE * SIZE * 3 + 4096 + 32
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(needed - 1))
    with pytest.raises(DataError, match=r"needs 1 MB, .* has 1 MB .*held_mb") as error:
        validation(settings, 0, folder)
    assert str(error.value).startswith(f"{folder / 'validation.u8'}: cannot be written")
    assert "\n" not in str(error.value)
    assert decoded == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(needed))
    assert len(validation(settings, 0, folder)) == 3


def test_a_folder_that_cannot_be_made(settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"validation\.u8: cannot be written or read \("):
        validation(settings, 0, tmp_path / "file" / "held")
    assert validation(settings, 1, tmp_path / "file" / "held")


def test_test_images_are_not_held(settings, folder, decoded):
    data = opened(settings, 0, folder)
    assert_same(list(data.test_batches(4)), list(data.test_batches(4)))
    assert len(decoded) == 2 * 6
    assert not folder.exists()


@pytest.mark.parametrize("held_mb", [0, 1])
def test_images_read_in_inference_mode_can_be_trained_with_later(settings, folder, held_mb):
    data = opened(settings, held_mb, folder)
    with torch.inference_mode():
        list(data.validation_batches(8))
    images, labels = next(iter(data.validation_batches(8)))
    weights = torch.zeros(3 * SIZE * SIZE, 2, requires_grad=True)
    torch.nn.functional.cross_entropy(images.flatten(1) @ weights, labels).backward()
    assert weights.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["image_folder", "digits"])
@pytest.mark.parametrize("held_mb", [0, 1])
def test_a_memory_format_changes_no_value(settings, name, held_mb):
    if name == "digits":
        settings = DataSettings(name, num_validation=20)
    batches = opened(settings, held_mb).validation_batches(6)
    last = batches.to("cpu")
    assert_same(list(last), list(batches))
    assert_same(list(last.to("cpu", channels_last=False)), list(batches))
    assert all(x.is_contiguous() and x.dtype == torch.float32 for x, _ in batches)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x, _ in last)
    assert (len(last), last.num_images) == (len(batches), batches.num_images)


def test_batches_come_on_the_device_that_is_asked_for(settings):
    batches = open_data(settings).validation_batches(6).to("meta")
    assert [(x.device.type, y.device.type) for x, y in batches] == [("meta", "meta")] * 2
    assert [x.shape for x, _ in batches] == [(6, 3, SIZE, SIZE), (2, 3, SIZE, SIZE)]


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("held_mb", [0, 1])
def test_a_gpu_gets_the_values_of_the_cpu(settings, held_mb, channels_last):
    batches = opened(settings, held_mb).validation_batches(3)
    sent = [(x.cpu(), y.cpu()) for x, y in batches.to("cuda", channels_last)]
    assert_same(sent, list(batches))


def test_a_bar_is_shown_only_where_decoding_takes_long(settings, monkeypatch, capsys):
    validation(settings, 1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(held, "UNWATCHED_S", 0.0)
    validation(settings, 1)
    shown = capsys.readouterr().err
    assert "decode validation images" in shown
    assert "8/8" in shown


def test_where_images_are_held_is_a_setting_that_decides_no_score():
    few, none = (read_settings(DataSettings, digits(held_mb=n), "r.yml") for n in (1, 0))
    assert (few.held_mb, none.held_mb) == (1, 0)
    assert few.deciding() == none.deciding() == DataSettings("digits").deciding()
    with pytest.raises(RecipeError, match=r"r\.yml\.held_mb: got -1; must be a whole number >= 0"):
        read_settings(DataSettings, digits(held_mb=-1), "r.yml")


def test_a_digest_tells_order_and_contents(image_folder):
    stores = [
        ImageFiles(image_folder / "train", ["cat", "dog"]),
        ImageTensor(torch.arange(24, dtype=torch.uint8).view(24, 1, 1, 1), np.zeros(24, int)),
    ]
    for store in stores:
        found = {store.digest(np.array(x)) for x in ([0, 1], [1, 0], [0, 2], [0], [0, 1])}
        assert len(found) == 4
