"""P9: signals at random moments end every long-running command with 128 + n, and no file is left."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from .signal_rounds import COMMANDS, NUMBERS, Commands

ROUNDS = int(os.environ.get("SIGNAL_ROUNDS", "1"))
"""`SIGNAL_ROUNDS=200 pytest tests/cli/test_signals.py -k export` tries more, `make attack` 200 of each."""

CASES = [
    pytest.param(command, number, marks=[] if number == NUMBERS[place % len(NUMBERS)] else [pytest.mark.long])
    for place, command in enumerate(COMMANDS)
    for number in NUMBERS
]
"""Each command with one signal; with the other two under `make test-long`."""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Generator[Commands]:
    with Commands.prepared(tmp_path_factory.mktemp("commands")) as prepared:
        yield prepared


@pytest.mark.long
@pytest.mark.parametrize("attempt", range(ROUNDS))
@pytest.mark.parametrize(("command", "number"), CASES)
def test_P9_a_signal_ends_each_command_and_nothing_stays(
    commands: Commands, command: str, number: int, attempt: int
) -> None:
    struck = commands.strike(command, number)
    assert not struck.wrong(number), struck
