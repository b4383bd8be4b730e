"""How well scores of a supernet rank paths."""
