"""Weights that others trained, as files of ours: supernets to search in, and networks."""

from nni_spos.importing.reading import Imported, import_weights

__all__ = ["Imported", "import_weights"]
