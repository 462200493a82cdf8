"""Sphinx: ``sphinx-build -W docs build/docs``. Needs the extra ``docs``, and no network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
from docutils import nodes
from sphinx.application import Sphinx

from mitsuba_gdpt import __version__

ROOT = Path(__file__).parents[1]

project = "mitsuba_gdpt"
author = "The mitsuba_gdpt authors"
copyright = author
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["tutorials/*.py"]

html_theme = "furo"
html_title = f"mitsuba_gdpt {version}"
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False

# Notebooks are committed with what they printed; tests run them.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

#: Documents at the root of the repository, which are pages here too.
_ROOT_PAGES = ("ARCHITECTURE", "CONTRIBUTING", "CHANGELOG")


def _gather(app: Sphinx) -> None:
    """Copy what lives elsewhere in the repository to where Sphinx wants its sources."""
    pages = Path(app.srcdir) / "project"
    pages.mkdir(exist_ok=True)
    for name in _ROOT_PAGES:
        text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
        text = re.sub(r"```mermaid\n.*?```\n", "", text, flags=re.DOTALL)  # GitHub draws it
        text = text.replace("](docs/", "](../")
        (pages / f"{name.lower()}.md").write_text(text, encoding="utf-8")
    notebooks = Path(app.srcdir) / "tutorials"
    for source in sorted((ROOT / "examples").glob("*.ipynb")):
        text = source.read_text(encoding="utf-8").replace("](../docs/", "](../")
        (notebooks / source.name).write_text(text, encoding="utf-8")


def _literal_blocks(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Show what is indented behind a colon as code, as it is read in the source."""
    for i in range(len(lines) - 2):
        if lines[i].endswith(":") and not lines[i + 1] and lines[i + 2].startswith("    "):
            lines[i] += ":" * (not lines[i].endswith("::"))


def _math(translator: Any, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers show without a script from the network."""
    block = isinstance(node, nodes.math_block)
    display = "block" if block else "inline"
    translator.body.append(latex2mathml.converter.convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _literal_blocks, priority=100)  # before napoleon
    app.connect("builder-inited", _gather)
    app.add_html_math_renderer("mathml", (_math, None), (_math, None))
