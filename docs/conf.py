"""How Sphinx builds these pages: ``make docs``."""

import os
import sys
from pathlib import Path

# Usage of commands is wrapped alike on every terminal.
os.environ["COLUMNS"] = "80"

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

from nni_spos import __version__  # noqa: E402

project = "nni_spos"
author = "the authors of nni_spos"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "from_code",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
# The first is also that of the pages that autosummary writes.
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}

# Notebooks show what they printed when they were last run.
nb_execution_mode = "off"
nb_output_stderr = "remove"

# Headings can be linked to as in `page.md#words-of-the-heading`.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

# Quotes and dashes of commands stay as they are typed.
smartquotes = False

html_theme = "furo"
html_title = f"nni_spos {version}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False

# Docstrings write names in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_inherit_docstrings = False
autosummary_generate = True
autosummary_imported_members = True
numpydoc_show_class_members = False
numpydoc_show_inherited_class_members = False

nitpicky = True
nitpick_ignore_regex = [
    # Bases that other packages have; their pages cannot be reached from here.
    (r"py:.*", r"(nni|torch|pytorch_lightning|numpy|abc|collections|enum|pathlib)\..*"),
    # The keys of components, which are on the page of recipe keys.
    (r"py:class", r"nni_spos\..*Settings"),
]
