"""What the page on Python takes for granted: a Lightning module, and loaders of digits."""

import torch
from nni.nas.evaluator.pytorch import DataLoader, LightningModule
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.utils.data import TensorDataset


class MyModule(LightningModule):
    def forward(self, images):
        return self.model(images)

    def training_step(self, batch, index):
        images, labels = batch
        return functional.cross_entropy(self(images), labels)

    def validation_step(self, batch, index):
        images, labels = batch
        self.log("accuracy", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


_digits = load_digits()
_images = torch.tensor(_digits.images, dtype=torch.float32)[:, None].repeat_interleave(2, 2)
_data = TensorDataset(_images.repeat_interleave(2, 3) / 16, torch.tensor(_digits.target))
train_loader = DataLoader(torch.utils.data.Subset(_data, range(300)), batch_size=50, shuffle=True)
validation_loader = DataLoader(torch.utils.data.Subset(_data, range(300, 400)), batch_size=100)
