"""Scores of paths with the weights of a supernet."""
