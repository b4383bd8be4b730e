"""The examples: where they are, and what each is about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path as FilePath

_PACKAGE = FilePath(__file__).parents[1]


@dataclass(frozen=True)
class Example:
    """What a project can begin with.

    Parameters
    ----------
    name
        As in ``nni-spos new --example``.
    config
        NNI's configuration, relative to the folder of the examples. It names the other files.
    about
        What is searched, on which images, in a few words.
    takes
        How long training, search and retraining take, and on what.
    images
        What the user must put where before the training. Empty if there is nothing to do.
    beside
        Further files of its folder that a project gets.
    """

    name: str
    config: str
    about: str
    takes: str
    images: str = ""
    beside: tuple[str, ...] = ()

    @property
    def file(self) -> FilePath:
        """NNI's configuration."""
        return examples_folder() / self.config


_ON_FASHION_MNIST = "about an hour on two CPU cores"
_FASHION_MNIST = (
    "Fashion-MNIST (30 MB) is downloaded when the training begins. If you have its files, name "
    "their folder in recipe.yml as `data: {root: FOLDER}`."
)
_ON_IMAGENET = "days on GPUs"
_IMAGENET = (
    "Put ImageNet into `data/imagenet`: the training images as `train/CLASS/*.JPEG`, the "
    "validation images as `val/CLASS/*.JPEG`, 1000 folders each. If you have it elsewhere, change "
    "`root` in recipe.yml."
)

EXAMPLES = {
    example.name: example
    for example in (
        Example(
            "digits",
            "spos.yml",
            "the blocks of a small network, on handwritten digits (no download)",
            "a few minutes on two CPU cores",
        ),
        Example(
            "own_model",
            "own_model/spos.yml",
            "your own network (blocks, channels and bits), on handwritten digits",
            "a few minutes on two CPU cores",
        ),
        Example(
            "compress",
            "compress/spos.yml",
            "a smaller form of a trained network, on handwritten digits",
            "a few minutes on two CPU cores",
            "Run `python pretrain.py`, which trains the network and writes network.pt. Or bring a "
            "network and weights of your own, and name them in recipe.yml. "
            "`nni-spos compress recipe.yml` runs all stages without NNI.",
            beside=("pretrain.py",),
        ),
        Example(
            "image_folder",
            "image_folder.yml",
            "the blocks of a small network, on your own images in class folders",
            "minutes to hours, depending on the number of images",
            "Put your images into `data`: a folder for each class, as `train/CLASS/*.jpg` for "
            "training and search, and `val/CLASS/*.jpg` for the final test. Both need the same "
            "classes. Then set `num_classes` in recipe.yml to the number of classes.",
        ),
        Example(
            "own_data",
            "own_data/spos.yml",
            "any number of labels for each of your own images, which a CSV file lists",
            "minutes to hours, depending on the number of images",
            "Run `python make_images.py`, which draws images to try the project with. Or write "
            "`images.csv` for your own, and name its columns in recipe.yml.",
            beside=("make_images.py",),
        ),
        Example(
            "segmentation",
            "segmentation/spos.yml",
            "the class of each pixel: an encoder and a decoder, on images that are drawn",
            "a few minutes on two CPU cores",
        ),
        Example(
            "keypoints",
            "keypoints/spos.yml",
            "real numbers, such as coordinates, on images that are drawn",
            "a few minutes on two CPU cores",
        ),
        Example(
            "fashion_mnist",
            "fashion_mnist.yml",
            "the blocks of a small network, on Fashion-MNIST",
            _ON_FASHION_MNIST,
            _FASHION_MNIST,
        ),
        Example(
            "channels",
            "channels.yml",
            "the numbers of channels, on Fashion-MNIST",
            _ON_FASHION_MNIST,
            _FASHION_MNIST,
        ),
        Example(
            "joint",
            "joint.yml",
            "the blocks and the numbers of channels, on Fashion-MNIST",
            _ON_FASHION_MNIST,
            _FASHION_MNIST,
        ),
        Example(
            "bits",
            "bits.yml",
            "the bit widths and the numbers of channels, on Fashion-MNIST",
            _ON_FASHION_MNIST,
            _FASHION_MNIST,
        ),
        Example(
            "nasbench_macro",
            "nasbench_macro.yml",
            "the space of NAS-Bench-Macro, on CIFAR-10",
            "hours, fewer on a GPU",
            "Put CIFAR-10 into `data/cifar10` as image files: `train/CLASS/*.png` and "
            "`test/CLASS/*.png`, 10 folders each. To download it instead, write "
            "`data: {name: cifar10, download: true}` in recipe.yml.",
        ),
        Example(
            "imagenet",
            "imagenet.yml",
            "the blocks of the paper's network, on ImageNet",
            _ON_IMAGENET,
            _IMAGENET,
        ),
        Example(
            "proxylessnas",
            "proxylessnas.yml",
            "the space of ProxylessNAS, on ImageNet",
            _ON_IMAGENET,
            _IMAGENET,
        ),
        Example("fbnet", "fbnet.yml", "the space of FBNet, on ImageNet", _ON_IMAGENET, _IMAGENET),
        Example(
            "remote",
            "remote.yml",
            "as digits, with trials on other machines by ssh",
            "a few minutes",
        ),
    )
}
"""By name, in the order of the list: what most people begin with comes first."""


def examples_folder() -> FilePath:
    """Return the folder of the examples: in an installed package, or beside the repository's."""
    installed = _PACKAGE / "examples"
    return installed if installed.is_dir() else _PACKAGE.with_name("examples")
