"""A process that keeps a supernet loaded and scores the paths of trials."""
