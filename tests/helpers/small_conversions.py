"""A small network of one's own and a recipe that makes it smaller, on disk."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3)
        self.norm = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, num_classes)
    def forward(self, x):
        x = torch.relu(self.norm(self.one(x)))
        return self.fc(torch.relu(self.two(x)).mean((2, 3)))
def make(num_classes=10):
    return Net(num_classes)
"""
RECIPE = {
    "output": "output",
    "model": {"name": "own_network:make", "weights": "mine.pt"},
    "choices": {"channels": [0.5, 1.0]},
    "data": {"name": "digits", "augmentation": "none", "num_train": 200, "num_validation": 60},
    "supernet": {"epochs": 0},
    "evaluation": {"recalibration_images": 40, "batch_size": 60},
    "search": {"population_size": 2, "num_generations": 1, "constraints": ["flops <= 80%"]},
    "retrain": {"epochs": 1, "batch_size": 50},
}


def write_project(folder: Path, **sections) -> Path:
    """Write the network, its weights and the recipe, with other sections; return the recipe."""
    (folder / "own_network.py").write_text(NET)
    namespace: dict = {}
    exec(NET, namespace)  # the same text that the project has
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(namespace["make"]().state_dict(), folder / "mine.pt")
    file = folder / "recipe.yml"
    file.write_text(yaml.safe_dump({**RECIPE, **sections}))
    return file
