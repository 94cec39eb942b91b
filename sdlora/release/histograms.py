"""Histograms as inline SVG: columns for a distribution, bars for named counts, colours from the style sheet."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

_WIDTH, _HEIGHT, _FLOOR, _TOP = 320, 170, 132, 18
_BAR_ROW, _BAR_WIDTH, _NAME_WIDTH, _NUMBER_WIDTH = 28, 1024, 220, 70


def binned(counts: Mapping[float, int], edges: Sequence[float]) -> list[int]:
    """Count the values in each bin; the first bin is below `edges[0]`, the last from `edges[-1]` on."""
    bins = [0] * (len(edges) + 1)
    for value, count in counts.items():
        bins[bisect_right(edges, value)] += count
    return bins


def column_chart(title: str, labels: Sequence[str], counts: Sequence[int]) -> Markup:
    """Draw one column per label, with labels below and counts above; `title` is for screen readers."""
    slot = _WIDTH / max(len(counts), 1)
    highest = max([*counts, 1])
    parts = [f'<svg class="columns-chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    parts.append(f'<line class="rule" x1="0" x2="{_WIDTH}" y1="{_FLOOR}" y2="{_FLOOR}"/>')
    for index, (label, count) in enumerate(zip(labels, counts, strict=True)):
        middle = (index + 0.5) * slot
        height = max(count / highest * (_FLOOR - _TOP), 1.5 if count else 0)
        if count:
            tooltip = f"{escape(label)}: {count:,}"
            parts.append(
                f'<rect class="column" x="{middle - 0.36 * slot:.1f}" y="{_FLOOR - height:.1f}" '
                f'width="{0.72 * slot:.1f}" height="{height:.1f}" rx="2"><title>{tooltip}</title></rect>'
            )
            parts.append(_text(middle, _FLOOR - height - 5, "count", short(count)))
        parts.append(_text(middle, _FLOOR + 17, "tick", label))
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 -- labels are escaped, all else is numbers


def bar_chart(title: str, counts: Mapping[str, int]) -> Markup:
    """Draw one bar per name, followed by its number."""
    height = _BAR_ROW * len(counts)
    highest = max([*counts.values(), 1])
    bar_room = _BAR_WIDTH - _NAME_WIDTH - _NUMBER_WIDTH
    parts = [f'<svg class="bars" viewBox="0 0 {_BAR_WIDTH} {height}" role="img" aria-label="{escape(title)}">']
    for index, (name, count) in enumerate(counts.items()):
        y = index * _BAR_ROW
        width = max(count / highest * bar_room, 2)
        parts.append(f'<text class="name" x="0" y="{y + 18}">{escape(name)}</text>')
        parts.append(
            f'<rect class="bar {"kept" if name == "accepted" else ""}" x="{_NAME_WIDTH}" y="{y + 5}" '
            f'width="{width:.1f}" height="18" rx="3"/>'
        )
        parts.append(f'<text class="number" x="{_NAME_WIDTH + width + 9:.1f}" y="{y + 18}">{count:,}</text>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 -- names are escaped, all else is numbers


def short(count: int) -> str:
    """Shorten a count to at most four characters: 12,345,678 -> "12M"."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            value = count / size
            return f"{value:.1f}{letter}" if value < 10 else f"{value:.0f}{letter}"
    return str(count)


def _text(x: float, y: float, css_class: str, words: str) -> str:
    return f'<text class="{css_class}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(words)}</text>'
