"""The search of a recipe without nnictl, and what it leaves."""
