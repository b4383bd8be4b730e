"""A new project: one of the examples, copied to a folder of the user's."""
