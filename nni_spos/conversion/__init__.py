"""From a network that is there to a search space: what may be narrower, shorter or coarser."""
