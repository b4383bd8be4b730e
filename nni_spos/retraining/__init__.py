"""Training of one path's network from scratch, and the file that it is kept in."""
