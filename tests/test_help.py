"""The help of every command says what it does, and what each of its options is."""

from __future__ import annotations

import argparse

import pytest

from nni_spos.cli import _parser


def commands(parser: argparse.ArgumentParser, name: str = "nni-spos"):
    """Yield every command with its name, those of commands too."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from commands(inner, f"{name} {word}")


COMMANDS = dict(commands(_parser()))


def test_commands_within_commands_are_found():
    assert {"nni-spos new", "nni-spos train", "nni-spos baseline random"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_and_each_option_is_explained(name):
    parser = COMMANDS[name]
    is_kind = len(name.split()) == 3
    assert parser.description or is_kind
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            explained = {listed.dest: listed.help for listed in action._get_subactions()}
            assert explained.keys() == action.choices.keys()
            assert all(explained.values())
            continue
        assert action.help, f"{name}: {action.dest}"
        # "of the web page" leaves open what it is.
        assert not action.help.startswith("of "), f"{name}: {action.help}"


def test_the_help_of_a_command_begins_with_what_the_list_says(capsys):
    with pytest.raises(SystemExit) as end:
        _parser().parse_args(["train", "--help"])
    assert end.value.code == 0
    assert "\n\nTrain the supernet of a recipe.\n\n" in capsys.readouterr().out
