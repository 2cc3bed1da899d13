"""The text that the demo prints once it runs. Commands can be pasted as they are printed."""

from __future__ import annotations

import shutil

from examples.storefront.featured import FEATURED

from .ports import Ports
from .process import HOST
from .terminal import wrapped


def welcome(ports: Ports, key: str, terminal: bool) -> str:
    """Return what is printed once both processes answer."""
    people = "\n".join(wrapped(f"{item.title}: {item.line}", f"    {item.number:>5}  ", " " * 11) for item in FEATURED)
    keys = "  Ctrl-C stops both."
    if terminal:
        keys = "  Keys:\n    a  stop or start the Profile API\n    s  stop or start the shop\n    q  quit"
    return f"""
  The shop          http://{HOST}:{ports.shop}
  The Profile API   http://{HOST}:{ports.api}

{wrapped("Sign in to the shop as one of these, or as any other household number up to 2500:", "  ")}
{people}

{wrapped("Ask the Profile API yourself, in another terminal:", "  ")}

{export(key)}
  curl -H "Authorization: Bearer $PROFILE_ENRICH_API_KEY" \\
    -G -d record_id={FEATURED[0].number} \\
    http://{HOST}:{ports.api}/api/v1/entities/1/record

{wrapped(STOPPING, "  ")}

{keys}
"""


STOPPING = (
    "Stop the Profile API and reload a page of the shop: it still appears. Start it again. "
    "The button at the bottom of each page stops and starts it, too."
)


def export(key: str) -> str:
    """Return the line that sets the key, continued on the next line where the terminal is too narrow for it."""
    name, width = "  export PROFILE_ENRICH_API_KEY=", shutil.get_terminal_size().columns
    # The shell joins both lines. A space before the key would end the value.
    return f"{name}{key}" if len(name) + len(key) <= width else f"{name}\\\n{key}"
