"""Measured latencies of networks, and tables that predict those of a space."""
