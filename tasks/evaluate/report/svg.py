"""Charts as inline SVG: small, sharp in print, light or dark with the page, and without a library.

Every function returns one ``<svg>`` that takes its colours from CSS variables (``--ink``,
``--line``, ``--c-federated``, ...); ``standalone`` adds them for a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

Point = tuple[float, float]

COLOURS = {
    "federated": ("#0b7a75", "#3fc4bd"),
    "central": ("#3553a8", "#8ea8f5"),
    "local_only": ("#c2571a", "#f0955a"),
    "reference": ("#7d7d86", "#a3a3ad"),
    "published": ("#7b4ea3", "#bd95e3"),
    "champion": ("#a67c00", "#e0b93a"),
}
"""A model's colour on a light and on a dark page."""
_STYLE = (
    "svg{--ink:#1d2230;--soft:#667085;--line:#d9dde5;--paper:#fff;background:#fff;"
    + "".join(f"--c-{key}:{light};" for key, (light, _) in COLOURS.items())
    + "font-family:system-ui,sans-serif}"
)


def colour(key: str) -> str:
    """A model's colour as CSS; a single local model has that of all local models."""
    name = "local_only" if key.startswith("local") else key
    return f"var(--c-{name})" if name in COLOURS else "var(--soft)"


def standalone(svg: str) -> str:
    """An SVG file that needs no page around it."""
    head, rest = svg.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{_STYLE}</style>{rest}'


@dataclass(frozen=True)
class Series:
    """A line, or points, in one colour.

    Attributes:
        name: For the tooltip.
        points: x and y.
        colour: CSS.
        dots: Whether the points are drawn too.
        dashed: Whether the line is dashed.
        tips: A tooltip a point.
    """

    name: str
    points: Sequence[Point]
    colour: str
    dots: bool = False
    dashed: bool = False
    tips: Sequence[str] = ()


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: Below or beside it.
        low: Its start.
        high: Its end.
        ticks: Where it is labelled.
        form: How a label is written.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[float] = field(default_factory=tuple)
    form: str = "{:g}"


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers between two bounds.

    Args:
        low: The lower bound.
        high: The upper bound.
        wanted: About how many.
    """
    span = max(high - low, 1e-12)
    step = 10.0 ** math.floor(math.log10(span / wanted))
    for factor in (1, 2, 2.5, 5, 10):
        if span / (step * factor) <= wanted:
            step *= factor
            break
    first = -(-low // step)
    found, place = [], first
    while place * step <= high + step * 1e-9:
        found.append(round(place * step, 10) + 0.0)  # never -0
        place += 1
    return found


def chart(
    series: Sequence[Series], x: Axis, y: Axis, label: str, size: tuple[int, int] = (360, 300)
) -> str:
    """A line chart.

    Args:
        series: What is drawn, the last on top.
        x: The horizontal axis.
        y: The vertical axis.
        label: What the picture shows, for those who cannot see it.
        size: Width and height in pixels.
    """
    width, height = size
    left, right, top, bottom = 52, 12, 10, 42
    inner_w, inner_h = width - left - right, height - top - bottom

    def at_x(value: float) -> float:
        return left + inner_w * (value - x.low) / (x.high - x.low)

    def at_y(value: float) -> float:
        return top + inner_h * (1 - (value - y.low) / (y.high - y.low))

    out = [_open(width, height, label)]
    for tick in x.ticks or ticks(x.low, x.high):
        place = at_x(tick)
        out.append(_line(place, top, place, top + inner_h, "var(--line)"))
        out.append(_text(place, top + inner_h + 16, x.form.format(tick), "middle"))
    for tick in y.ticks or ticks(y.low, y.high):
        place = at_y(tick)
        out.append(_line(left, place, left + inner_w, place, "var(--line)"))
        out.append(_text(left - 6, place + 4, y.form.format(tick), "end"))
    out.append(_text(left + inner_w / 2, height - 6, x.title, "middle"))
    out.append(
        f'<text transform="translate(13 {top + inner_h / 2:.1f}) rotate(-90)" '
        f'text-anchor="middle" font-size="12" fill="var(--soft)">{escape(y.title)}</text>'
    )
    for one in series:
        placed = [(at_x(a), at_y(b)) for a, b in one.points]
        if len(placed) > 1:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in placed)
            dash = ' stroke-dasharray="4 4"' if one.dashed else ""
            out.append(
                f'<polyline points="{path}" fill="none" stroke="{one.colour}" stroke-width="2" '
                f'stroke-linejoin="round"{dash}><title>{escape(one.name)}</title></polyline>'
            )
        if one.dots:
            for number, (a, b) in enumerate(placed):
                tip = one.tips[number] if number < len(one.tips) else one.name
                out.append(_dot(a, b, one.colour, tip))
    return "".join([*out, "</svg>"])


@dataclass(frozen=True)
class Estimate:
    """One row of a forest plot: a value with its interval."""

    name: str
    value: float
    ci: Point | None
    colour: str


def forest(rows: Sequence[Estimate], title: str, label: str, width: int = 520) -> str:
    """Values with intervals, one below the other.

    Args:
        rows: From top to bottom.
        title: Of the axis.
        label: What the picture shows, for those who cannot see it.
        width: In pixels.
    """
    ends = [end for row in rows for end in (row.ci or (row.value, row.value))]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    pad = max((high - low) * 0.06, 0.005)
    low, high = low - pad, high + pad
    left, right, step = 190, 62, 26
    inner, height = width - left - right, step * len(rows) + 44

    def at(value: float) -> float:
        return left + inner * (value - low) / (high - low)

    out = [_open(width, height, label)]
    for tick in ticks(low, high):
        out.append(_line(at(tick), 6, at(tick), height - 36, "var(--line)"))
        out.append(_text(at(tick), height - 22, f"{tick:g}", "middle"))
    for number, row in enumerate(rows):
        y = 18 + step * number
        out.append(_text(left - 10, y + 4, row.name, "end", "var(--ink)"))
        if row.ci:
            a, b = at(row.ci[0]), at(row.ci[1])
            out.append(
                f'<line x1="{a:.1f}" y1="{y}" x2="{b:.1f}" y2="{y}" stroke="{row.colour}" '
                'stroke-width="3" stroke-linecap="round" opacity=".55"/>'
            )
        interval = f" ({row.ci[0]:.3f} to {row.ci[1]:.3f})" if row.ci else ""
        out.append(_dot(at(row.value), y, row.colour, f"{row.name}: {row.value:.3f}{interval}", 5))
        out.append(_text(width - right + 12, y + 4, f"{row.value:.3f}", "start", "var(--ink)"))
    out.append(_text(left + inner / 2, height - 5, title, "middle"))
    return "".join([*out, "</svg>"])


def bars(
    rows: Sequence[tuple[str, float, str]], label: str, form: str = "{:.3f}", width: int = 520
) -> str:
    """Horizontal bars from zero, negative ones to the left.

    Args:
        rows: Name, value and CSS colour, from top to bottom.
        label: What the picture shows, for those who cannot see it.
        form: How a value is written.
        width: In pixels.
    """
    low = min([0.0, *(value for _, value, _ in rows)])
    high = max([0.0, *(value for _, value, _ in rows)]) or 1.0
    left, right, step = 220, 64, 22
    inner = width - left - right
    out = [_open(width, step * len(rows) + 8, label)]
    zero = left + inner * (0 - low) / (high - low)
    for number, (name, value, fill) in enumerate(rows):
        y = 4 + step * number
        end = left + inner * (value - low) / (high - low)
        out.append(_text(left - 10, y + 14, name, "end", "var(--ink)"))
        out.append(
            f'<rect x="{min(zero, end):.1f}" y="{y + 3}" width="{max(abs(end - zero), 1):.1f}" '
            f'height="{step - 8}" rx="2" fill="{fill}"><title>{escape(name)}: '
            f"{form.format(value)}</title></rect>"
        )
        out.append(_text(width - right + 8, y + 14, form.format(value), "start"))
    return "".join([*out, "</svg>"])


def participation(
    hospitals: Sequence[str], rounds: Sequence[tuple[int, Sequence[str], dict[str, str]]]
) -> str:
    """Who took part in which round.

    Args:
        hospitals: One row each.
        rounds: The round, the hospitals that replied, and why others were lost.
    """
    left, cell = 130, 22
    width, height = left + cell * max(len(rounds), 1) + 8, 24 + cell * len(hospitals)
    out = [_open(width, height, "Participation: one row a hospital, one column a round")]
    for column, (number, replied, lost) in enumerate(rounds):
        x = left + cell * column
        if number == 1 or number % 5 == 0 or len(rounds) <= 12:
            out.append(_text(x + cell / 2, 14, str(number), "middle"))
        for row, name in enumerate(hospitals):
            y = 20 + cell * row
            if name in replied:
                fill, edge, tip = "var(--c-federated)", "var(--c-federated)", "took part"
            elif name in lost:
                fill, edge = "var(--c-local_only)", "var(--c-local_only)"
                tip = f"lost: {lost[name]}"
            else:
                fill, edge, tip = "none", "var(--line)", "not asked"
            out.append(
                f'<rect x="{x + 2}" y="{y + 2}" width="{cell - 4}" height="{cell - 4}" rx="4" '
                f'fill="{fill}" stroke="{edge}"><title>Round {number}, {escape(name)}: '
                f"{escape(tip)}</title></rect>"
            )
    for row, name in enumerate(hospitals):
        out.append(_text(left - 10, 20 + cell * row + 15, name, "end", "var(--ink)"))
    return "".join([*out, "</svg>"])


def _open(width: float, height: float, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{escape(label, quote=True)}" font-size="12">'
    )


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"/>'


def _text(x: float, y: float, text: str, anchor: str, fill: str = "var(--soft)") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" fill="{fill}">'
        f"{escape(text)}</text>"
    )


def _dot(x: float, y: float, fill: str, tip: str, radius: float = 3.5) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}" stroke="var(--paper)">'
        f"<title>{escape(tip)}</title></circle>"
    )
