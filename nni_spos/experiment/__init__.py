"""Everything that an nnictl experiment runs."""
