import logging
import multiprocessing
import pickle

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from nni_spos.data import open_data
from nni_spos.data.training_batches import EpochSampler
from nni_spos.errors import DataError
from nni_spos.recipe.data_settings import DataSettings

SMALL = {"num_train": 330, "num_validation": 100}


def epoch_of(batches, epoch):
    batches.sampler.set_epoch(epoch)
    return list(batches)


def assert_same(one, other):
    assert len(one) == len(other)
    for (images, labels), (other_images, other_labels) in zip(one, other, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def images_of(batches):
    return [image.numpy().tobytes() for images, _ in batches for image in images]


def test_three_disjoint_splits(fashion_mnist_folder):
    settings = DataSettings(
        "fashion_mnist", str(fashion_mnist_folder), augmentation="none", num_validation=50
    )
    data = open_data(settings)
    assert (data.num_train, data.num_validation) == (150, 50)
    train = images_of(data.train_loader(150, seed=0))
    validation = images_of(data.validation_batches(20))
    test = images_of(data.test_batches(20))
    assert [len(train), len(validation), len(test)] == [150, 50, 50]
    assert len({*train, *validation, *test}) == 250
    assert set(images_of(data.recalibration_batches(100, 30, seed=0))) < set(train)
    labels = torch.cat([labels for _, labels in data.validation_batches(20)])
    assert torch.bincount(labels).tolist() == [5] * 10


def test_batches_have_the_promised_form():
    data = open_data(DataSettings("digits", **SMALL))
    batches = data.train_loader(100, seed=0)
    result = list(batches)
    assert len(batches) == len(result) == 3
    for images, labels in result:
        assert images.shape == (100, 1, 16, 16)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
    assert [len(labels) for _, labels in data.train_loader(1000, seed=0)] == [330]
    assert [len(labels) for _, labels in data.train_loader(330, seed=0)] == [330]
    validation = data.validation_batches(30)
    assert [len(labels) for _, labels in validation] == [30, 30, 30, 10]
    assert (len(validation), validation.num_images) == (4, 100)
    image, label = batches.dataset[5]
    assert image.shape == (1, 16, 16)
    assert label.ndim == 0


def test_order_and_augmentation_depend_on_seed_and_epoch():
    data = open_data(DataSettings("digits", **SMALL))
    first = epoch_of(data.train_loader(100, seed=1), 2)
    assert_same(first, list(data.train_loader(100, seed=1, start_epoch=2)))
    assert_same(first, epoch_of(data.train_loader(100, seed=1), 2))
    for other in (epoch_of(data.train_loader(100, 1), 3), epoch_of(data.train_loader(100, 2), 2)):
        assert not torch.equal(other[0][1], first[0][1])
        # One image in 25 is shifted as before.
        assert len(set(images_of(other)) & set(images_of(first))) < 60


def test_every_image_comes_once_an_epoch():
    data = open_data(DataSettings("digits", augmentation="none", num_train=300))
    images = images_of(epoch_of(data.train_loader(50, seed=0), 4))
    assert len(set(images)) == len(images) == 300


@pytest.mark.parametrize("augmentation", ["crop_flip", "imagenet"])
@pytest.mark.slow
def test_workers_and_global_generators_change_nothing(augmentation):
    settings = DataSettings("digits", num_train=60, augmentation=augmentation)
    alone = open_data(settings).train_loader(20, seed=0)
    expected = [epoch_of(alone, epoch) for epoch in (0, 1)]
    with_workers = open_data(DataSettings(**{**vars(settings), "workers": 2})).train_loader(20, 0)
    torch.manual_seed(99)
    state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    for epoch in (0, 1):
        assert_same(epoch_of(with_workers, epoch), expected[epoch])
    assert_same(epoch_of(alone, 1), expected[1])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.slow
def test_an_iteration_that_was_broken_off_leaves_no_trace():
    data = open_data(DataSettings("digits", num_train=60, workers=1))
    batches = data.train_loader(20, seed=0)
    expected = [epoch_of(batches, epoch) for epoch in (0, 1)]
    for epoch in (0, 1, 1):
        batches.sampler.set_epoch(epoch)
        next(iter(batches))
        assert_same(list(batches), expected[epoch])


def test_recalibration_images_are_fixed_and_not_augmented():
    data = open_data(DataSettings("digits", **SMALL))
    first = list(data.recalibration_batches(120, 50, seed=0))
    assert [len(labels) for _, labels in first] == [50, 50, 20]
    other = list(data.recalibration_batches(120, 50, seed=1))
    assert set(images_of(other)) != set(images_of(first))
    assert_same(list(data.recalibration_batches(120, 50, seed=0)), first)
    assert data.recalibration_batches(20_000, 50, seed=0).num_images == 330
    plain = open_data(DataSettings("digits", **SMALL, augmentation="none"))
    training = set(images_of(plain.train_loader(330, seed=0)))
    assert set(images_of(first)) < training


def test_ranks_share_the_batches_of_one_process(monkeypatch):
    whole = list(EpochSampler(103, 20, seed=0, epoch=1))
    assert [len(keys) for keys in whole] == [20] * 5
    assert len({key for keys in whole for key in keys} & set(range(103, 206))) == 100
    sampler = EpochSampler(103, 20, seed=0, epoch=1)  # made before the process group
    small = EpochSampler(19, 20, seed=0)  # one batch, of 16 images in four parts of one size
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    ranks, parts = [], []
    for rank in range(4):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        assert (len(sampler), len(small)) == (5, 1)
        ranks.append(list(sampler))
        parts.extend(small)
    assert [[x for keys in batch for x in keys] for batch in zip(*ranks, strict=True)] == whole
    assert {len(keys) for rank in ranks for keys in rank} == {5}
    assert [len(keys) for keys in parts] == [4] * 4
    assert len({key for keys in parts for key in keys}) == 16
    with pytest.raises(DataError, match="at least one image for each of 4 processes"):
        list(EpochSampler(3, 20, seed=0))


def test_another_process_opens_the_same_files_itself(fashion_mnist_folder, tmp_path):
    settings = DataSettings(
        "fashion_mnist", str(fashion_mnist_folder), num_validation=50, held_mb=0
    )
    data = open_data(settings, tmp_path)
    content = pickle.dumps(data)
    assert len(content) < 2000
    other = pickle.loads(content)
    assert_same(list(other.train_loader(20, seed=3)), list(data.train_loader(20, seed=3)))
    assert_same(list(other.validation_batches(20)), list(data.validation_batches(20)))


def test_nothing_but_test_batches_reads_the_test_files(
    fashion_mnist_folder, image_folder, cifar10_folder
):
    for file in fashion_mnist_folder.glob("t10k-*"):
        file.write_bytes(b"poison")
    for file in (image_folder / "val").rglob("*.jpg"):
        file.write_bytes(b"poison")
    next(cifar10_folder.rglob("test_batch")).write_bytes(b"poison")
    for name, root in (
        ("fashion_mnist", fashion_mnist_folder),
        ("image_folder", image_folder),
        ("cifar10", cifar10_folder),
    ):
        data = open_data(DataSettings(name, str(root), image_size=32))
        for batches in (
            data.train_loader(8, seed=0),
            data.recalibration_batches(20, 8, seed=0),
            data.validation_batches(8),
        ):
            assert len(list(batches)) == len(batches) > 0
        assert data.preprocessing["dataset"] == name
        with pytest.raises(DataError, match=r"t10k-images|\.jpg|test_batch"):
            list(data.test_batches(8))
    for file in (*fashion_mnist_folder.glob("t10k-*"), *cifar10_folder.rglob("test_batch")):
        file.unlink()
    for name, root in (("fashion_mnist", fashion_mnist_folder), ("cifar10", cifar10_folder)):
        data = open_data(DataSettings(name, str(root)))
        assert len(list(data.validation_batches(8))) > 0
        with pytest.raises(DataError, match=r"not in"):
            data.test_batches(8)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augmentation", ["imagenet", "crop_flip"])
@pytest.mark.slow
def test_image_folder_batches(image_folder, workers, augmentation):
    settings = DataSettings("image_folder", str(image_folder), image_size=24, workers=workers)
    data = open_data(DataSettings(**{**vars(settings), "augmentation": augmentation}))
    alone = open_data(
        DataSettings(**{**vars(settings), "augmentation": augmentation, "workers": 0})
    )
    assert_same(list(data.train_loader(8, seed=0)), list(alone.train_loader(8, seed=0)))
    test = list(data.test_batches(4))
    assert [images.shape for images, _ in test] == [(4, 3, 24, 24), (2, 3, 24, 24)]
    assert torch.cat([labels for _, labels in test]).tolist() == [0, 0, 0, 1, 1, 1]
    assert test[0][0][:3].mean() < test[1][0].mean()
    file = image_folder / "val" / "dog" / "1.jpg"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(DataError) as error:
        list(data.test_batches(4))
    assert str(error.value).startswith(f"{file}: cannot be read as an image (")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_no_worker_outlives_its_iteration(image_folder):
    settings = DataSettings("image_folder", str(image_folder), image_size=24, workers=2)
    data = open_data(settings)
    batches = data.train_loader(8, seed=0)
    counted = iter(batches)
    for _ in range(len(batches)):
        next(counted)
    assert multiprocessing.active_children() == []  # though nobody asked for one batch more
    broken_off = iter(batches)
    next(broken_off)
    assert len(multiprocessing.active_children()) == 2
    del broken_off
    assert multiprocessing.active_children() == []
    (image_folder / "val" / "cat" / "0.jpg").write_bytes(b"")
    with pytest.raises(DataError) as error:
        list(data.test_batches(2))
    assert multiprocessing.active_children() == []
    assert "0.jpg" in str(error.value)


def test_preprocessing_tells_which_images_were_held_out():
    data = open_data(DataSettings("digits", split_seed=5))
    described = data.preprocessing
    assert (described["num_validation"], described["split_seed"]) == (144, 5)


def test_too_large_splits_name_the_data_set():
    with pytest.raises(DataError, match=r"^digits: the training set has 1437 images; 144 for"):
        open_data(DataSettings("digits", num_train=1300))


class Recorder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(256, 10)
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)
        self.batches = []

    def training_step(self, batch, batch_idx):
        images, labels = batch
        self.batches.append((images.clone(), labels.clone()))
        return torch.nn.functional.cross_entropy(self.linear(images.flatten(1)), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def fit(tmp_path):
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)

    def run(workers, every_steps=None, checkpoint=None):
        save = pl.callbacks.ModelCheckpoint(
            tmp_path, "{step}", save_top_k=-1, every_n_train_steps=every_steps
        )
        trainer = pl.Trainer(
            max_epochs=3,
            accelerator="cpu",
            devices=1,
            callbacks=[save],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = Recorder()
        data = open_data(DataSettings("digits", num_train=300, workers=workers))
        trainer.fit(module, data.train_loader(100, seed=0), ckpt_path=checkpoint)
        return module

    return run


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("workers", "every_steps", "step"), [(0, None, 3), (2, None, 3), (2, None, 6), (0, 1, 4)]
)
@pytest.mark.slow
def test_lightning_resumes_with_the_same_batches(fit, tmp_path, workers, every_steps, step):
    whole = fit(workers, every_steps)
    data = open_data(DataSettings("digits", num_train=300)).train_loader(100, seed=0)
    assert_same(whole.batches, [batch for e in range(3) for batch in epoch_of(data, e)])
    resumed = fit(workers, every_steps, tmp_path / f"step={step}.ckpt")
    assert_same(resumed.batches, whole.batches[step:])
    assert torch.equal(resumed.linear.weight, whole.linear.weight)
