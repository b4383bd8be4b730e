"""A search space of three units, built and trained in moments."""

TINY_SPACE = {
    "name": "shufflenet",
    "stem_channels": 4,
    "stem_stride": 1,
    "stage_repeats": [1, 2],
    "stage_channels": [8, 16],
    "last_channels": 16,
}
TINY_DATA = {"name": "digits", "image_size": 8, "num_train": 100, "num_validation": 60}
