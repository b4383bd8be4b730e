"""What a network is to predict: how it is trained, and how well it does.

`nni_spos.tasks.base` says what a task is. Importing a task needs no PyTorch; its methods do.
"""
