"""The attacks that are short enough for each run of the tests; `make attack` runs all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .attack.connections import smuggling, streams
from .attack.files import full_disk
from .attack.running import Skipped

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc, as Linux has it")


@pytest.mark.long
@pytest.mark.parametrize("attack", [smuggling, streams, full_disk])
def test_P8_it_withstands(attack: Callable[[Path], tuple[bool, str]], tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,email\n" + "".join(f"u{n},u{n}@x.example\n" for n in range(100_000)))
    try:
        fine, figures = attack(tmp_path)
    except Skipped as missing:
        pytest.skip(str(missing))
    assert fine, figures
