"""Copies the pictures that the shop shows out of Fluent Emoji. The demo itself needs only the files it wrote.

The source has no product images. Fluent Emoji (MIT, Microsoft) stand in for them; the npm package
`@iconify-json/fluent-emoji-flat` holds them all in one file:

    npm pack @iconify-json/fluent-emoji-flat@1.2.6 && tar xzf iconify-json-fluent-emoji-flat-1.2.6.tgz
    python examples/storefront/derive_pictures.py package/icons.json

It writes one SVG a picture into `examples/storefront/static/pictures/`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def wanted() -> set[str]:
    """Returns the names of all pictures that a product, a department or a page shows."""
    names = {"shopping-cart", "seedling", "sparkles", "admission-tickets", "house-with-garden", "locked", "snowflake"}
    for line in (HERE / "data" / "products.jsonl").read_text("utf-8").splitlines():
        names.add(json.loads(line)["picture"])
    return names


def main(source: Path) -> None:
    """Writes the pictures, and removes those that nothing shows any more."""
    icons = json.loads(source.read_text("utf-8"))["icons"]
    folder = HERE / "static" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for name in sorted(wanted()):
        body = icons[name]["body"]
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{body}</svg>\n'
        (folder / f"{name}.svg").write_text(svg, "utf-8")
    sizes = [path.stat().st_size for path in folder.glob("*.svg")]
    print(f"{len(sizes)} pictures, {sum(sizes) / 1e3:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: derive_pictures.py path/to/icons.json (see the top of this file)")
    main(Path(sys.argv[1]))
