"""Processes, their signals, their memory and what they cost."""
