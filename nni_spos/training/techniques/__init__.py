"""Training techniques, one a file: each is off until a recipe asks for it.

None of them imports PyTorch when it is imported: their keys are checked when a recipe is read.
"""
