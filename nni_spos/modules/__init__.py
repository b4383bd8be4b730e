"""Properties of PyTorch modules that training and scoring rely on."""
