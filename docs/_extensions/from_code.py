"""Directives whose entries come from the code and whose explanations come from the page.

``{recipe-keys} SECTION`` and ``{spaces}`` have YAML in their body, name to explanation in Markdown.
A name that neither the page nor the code explains, or one that the code does not have, is an error:
so a page cannot miss a new key, nor keep one that is gone.
"""

from __future__ import annotations

from typing import Any

import facts
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class _FromCode(SphinxDirective):
    has_content = True
    optional_arguments = 3

    def entries(self, entries: list[facts.Fact], prefix: str) -> list[nodes.Node]:
        """Return a list of names with what they take and what they mean."""
        found = nodes.definition_list(classes=["from-code"])
        for entry in entries:
            ident = nodes.make_id(f"{prefix}-{entry.name.split()[0]}")
            term = nodes.term("", "", nodes.literal(text=entry.name), ids=[ident])
            definition = nodes.definition()
            if entry.rule:
                definition += self.parsed(f"{entry.rule[0].upper()}{entry.rule[1:]}.")
            definition += self.parsed(entry.text)
            found += nodes.definition_list_item("", term, definition)
        return [found] if entries else []

    def parsed(self, text: str) -> list[nodes.Node]:
        """Return Markdown as nodes."""
        container = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), "from-code"), 0, container)
        return list(container.children)

    def explained(self, entries: list[facts.Fact], prefix: str) -> list[nodes.Node]:
        """Return entries with the explanations of the directive's body."""
        try:
            explained = facts.explanations("\n".join(self.content), entries)
        except ValueError as problem:
            raise self.error(str(problem)) from None
        return self.entries(explained, prefix)


class RecipeKeys(_FromCode):
    """Keys of a section: ``{recipe-keys} data``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        section = self.arguments[0]
        return self.explained(facts.recipe_keys(section), section)


class Command(_FromCode):
    """Usage, arguments and options of a command: ``{command} baseline fixed``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = " ".join(self.arguments)
        parser = facts.commands()[name]
        usage = parser.format_usage().removeprefix("usage: ")
        text = facts.command_help(name)
        shown: list[Any] = [nodes.paragraph("", f"{text[0].upper()}{text[1:]}.")]
        shown += self.parsed("\n".join(self.content))
        shown.append(nodes.literal_block(usage, usage, language="text"))
        return [*shown, *self.entries(facts.options(parser), name)]


class Spaces(_FromCode):
    """All spaces that recipes can name."""

    def run(self) -> list[nodes.Node]:
        return self.explained(facts.spaces(), "space")


class Errors(_FromCode):
    """All errors and warnings that a user sees."""

    def run(self) -> list[nodes.Node]:
        return self.entries(facts.error_classes(), "error")


class OutputFiles(_FromCode):
    """All files of an output folder."""

    def run(self) -> list[nodes.Node]:
        return self.entries(facts.output_files(), "output")


class Layers(_FromCode):
    """The parts of the package, row by row."""

    def run(self) -> list[nodes.Node]:
        lines = ["| row | part | what is in it |", "|---:|---|---|"]
        for number, row in enumerate(facts.layers(), start=1):
            for part in row:
                text = " ".join(part.text.split()).replace("|", "\\|")
                lines.append(f"| {number} | `{part.name}` | {text} |")
        return self.parsed("\n".join(lines))


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives; called by Sphinx."""
    app.add_directive("recipe-keys", RecipeKeys)
    app.add_directive("command", Command)
    app.add_directive("spaces", Spaces)
    app.add_directive("errors", Errors)
    app.add_directive("output-files", OutputFiles)
    app.add_directive("layers", Layers)
    return {"parallel_read_safe": True}
