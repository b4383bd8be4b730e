from dataset_files import (  # noqa: F401 - fixtures of these tests
    cifar10_folder,
    csv_folder,
    fashion_mnist_folder,
    image_folder,
    segmentation_folder,
)
