"""Train the network and write network.pt, as you have done with yours; it takes half a minute."""

from pathlib import Path

import torch
from network import make
from torch.nn.functional import cross_entropy

from nni_spos import DataSettings, open_data

EPOCHS = 20

data = open_data(DataSettings("digits", augmentation="none"))
torch.manual_seed(0)
network = make()
batches = data.train_loader(64, seed=0)
optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, EPOCHS * len(batches))
for _ in range(EPOCHS):
    for images, labels in batches:
        optimizer.zero_grad()
        cross_entropy(network(images), labels).backward()
        optimizer.step()
        schedule.step()
network.eval()
with torch.no_grad():
    right = [network(x).argmax(1) == y for x, y in data.test_batches(256)]
file = Path(__file__).with_name("network.pt")
torch.save(network.state_dict(), file)
print(f"{file}: test top-1 {100 * torch.cat(right).float().mean():.2f} %")
