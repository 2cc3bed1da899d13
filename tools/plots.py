"""The plot of docs/tuning.md. `python -m tools.plots` draws it anew."""

from __future__ import annotations

import math
from pathlib import Path

FILE = Path(__file__).parent.parent / "docs" / "images" / "visits-that-wait-for-nothing.svg"

WIDTH, HEIGHT = 860, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 250, 28, 56
SHORTEST, LONGEST = 1.0, 86_400.0
TICKS = [(1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3_600, "1 h"), (14_400, "4 h"), (86_400, "1 day")]
CURVES = [
    (60.0, 0.0, "#b45309", "ttl 60, nothing stale"),
    (60.0, 600.0, "#1d4ed8", "ttl 60, stale_ttl 600 (default)"),
    (3600.0, 3600.0, "#15803d", "ttl 3600, stale_ttl 3600"),
]
FONT = "font-family='system-ui, sans-serif'"


def at_once(between: float, ttl: float, stale_ttl: float) -> float:
    """The share of visits that wait for nothing, of a person who comes every `between` seconds on average."""
    rate = 1 / between
    return 1 - math.exp(-rate * stale_ttl) / (1 + rate * ttl)


def _x(between: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * math.log(between / SHORTEST) / math.log(LONGEST / SHORTEST)


def _y(share: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)


def draw() -> str:
    """The picture, as SVG."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' role='img'>",
        "<title>The share of visits that wait for nothing, by the time between two visits</title>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='#ffffff'/>",
    ]
    for percent in range(0, 101, 20):
        y = _y(percent / 100)
        parts += [
            f"<line x1='{LEFT}' y1='{y:.1f}' x2='{right}' y2='{y:.1f}' stroke='#e5e7eb'/>",
            f"<text x='{LEFT - 10}' y='{y + 5:.1f}' {FONT} font-size='14' fill='#374151' text-anchor='end'>"
            f"{percent} %</text>",
        ]
    for between, label in TICKS:
        x = _x(between)
        parts += [
            f"<line x1='{x:.1f}' y1='{TOP}' x2='{x:.1f}' y2='{bottom}' stroke='#e5e7eb'/>",
            f"<text x='{x:.1f}' y='{bottom + 22}' {FONT} font-size='14' fill='#374151' text-anchor='middle'>"
            f"{label}</text>",
        ]
    parts.append(
        f"<text x='{(LEFT + right) / 2:.1f}' y='{HEIGHT - 10}' {FONT} font-size='14' fill='#111827'"
        " text-anchor='middle'>time between two visits of a person, on average</text>"
    )
    for number, (ttl, stale_ttl, colour, label) in enumerate(CURVES):
        points: list[str] = []
        for step in range(201):
            between = SHORTEST * (LONGEST / SHORTEST) ** (step / 200)
            points.append(f"{_x(between):.1f},{_y(at_once(between, ttl, stale_ttl)):.1f}")
        y = TOP + 20 + 28 * number
        parts += [
            f"<polyline points='{' '.join(points)}' fill='none' stroke='{colour}' stroke-width='2.5'/>",
            f"<line x1='{right + 16}' y1='{y - 5}' x2='{right + 40}' y2='{y - 5}' stroke='{colour}' stroke-width='3'/>",
            f"<text x='{right + 48}' y='{y}' {FONT} font-size='13' fill='#111827'>{label}</text>",
        ]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    FILE.write_text(draw(), encoding="utf-8")
