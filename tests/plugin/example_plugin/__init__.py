"""Components for nni_spos, found by their entry points."""
