"""All stages of making a network smaller, one after the other, and what came of it."""
