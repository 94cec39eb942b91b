"""Charts as inline SVG, with colours from the page's style sheet for its light and dark theme."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from sdlora.records.duel import ContestantName
from sdlora.records.metrics import Estimate
from sdlora.release.record import Curve

_WIDTH, _HEIGHT = 1024, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, _WIDTH - 16, 14, _HEIGHT - 40
_COLOUR_COUNT = 3
_MAX_UNSMOOTHED_POINTS = 40

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class _Frame:
    """Mapping of (step, loss) to pixels, with round numbers along the axes."""

    steps: tuple[float, float]
    loss_ticks: Sequence[float]

    def to_pixels(self, step: float, loss: float) -> tuple[float, float]:
        low, high = self.loss_ticks[0], self.loss_ticks[-1]
        across = (step - self.steps[0]) / (self.steps[1] - self.steps[0])
        return _LEFT + across * (_RIGHT - _LEFT), _BOTTOM - (loss - low) / (high - low) * (_BOTTOM - _TOP)

    def path(self, points: Points) -> str:
        return "M" + " L".join("{:.1f} {:.1f}".format(*self.to_pixels(step, loss)) for step, loss in points)

    def axes(self) -> Iterator[str]:
        for loss in self.loss_ticks:
            _, y = self.to_pixels(self.steps[0], loss)
            yield f'<line class="rule" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="tick" x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{loss:.4g}</text>'
        for step in ticks(*self.steps):
            x, _ = self.to_pixels(step, self.loss_ticks[0])
            if self.steps[0] <= step <= self.steps[1]:
                yield f'<text class="tick" x="{x:.1f}" y="{_BOTTOM + 20}" text-anchor="middle">{step:g}</text>'
        middle = (_LEFT + _RIGHT) / 2
        yield f'<text class="tick" x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">optimiser steps</text>'


def loss_chart(curves: Sequence[Curve]) -> Markup | None:
    """Draw the loss over steps: the running mean, and faintly the points if there are many.

    The running means fill the frame; single points, such as the first of a run, may lie outside it.
    None if no curve has two finite points at different steps.
    """
    lines = [(index, curve.name, _finite(curve.points)) for index, curve in enumerate(curves)]
    lines = [(index, name, points) for index, name, points in lines if len({step for step, _ in points}) > 1]
    if not lines:
        return None
    steps = [step for _, _, points in lines for step, _ in points]
    means = [loss for _, _, points in lines for _, loss in smoothed(points)]
    frame = _Frame((min(steps), max(steps)), ticks(min(means), max(means)))
    width, height = _RIGHT - _LEFT, _BOTTOM - _TOP
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Loss over training steps">',
        f'<clipPath id="frame"><rect x="{_LEFT}" y="{_TOP}" width="{width}" height="{height}"/></clipPath>',
        *frame.axes(),
    ]
    for index, name, points in lines:
        drawing = f'class="line-{index % _COLOUR_COUNT}" clip-path="url(#frame)"'
        if len(points) > _MAX_UNSMOOTHED_POINTS:
            parts.append(f'<path {drawing} opacity="0.28" d="{frame.path(points)}"/>')
        parts.append(f'<path {drawing} d="{frame.path(smoothed(points))}"><title>{escape(name)}</title></path>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 -- names are escaped above, all else is numbers


def interval_plot(estimates: Mapping[ContestantName, Estimate]) -> Markup:
    """Draw one line per contestant on a shared scale: a dot for the value, a bar for its 95 % interval."""
    width, row, pad = 190, 13, 7
    low = min(estimate.low for estimate in estimates.values())
    high = max(estimate.high for estimate in estimates.values())

    def to_x(value: float) -> float:
        return pad + (value - low) / (high - low) * (width - 2 * pad) if high > low else width / 2

    height = row * len(estimates) + 2
    parts = [
        f'<svg class="intervals" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">'
    ]
    for index, (name, estimate) in enumerate(estimates.items()):
        y = row * (index + 0.5) + 1
        left, middle, right = (round(to_x(v), 1) for v in (estimate.low, estimate.value, estimate.high))
        parts.append(f'<line class="rule" x1="{pad}" x2="{width - pad}" y1="{y}" y2="{y}"/>')
        parts.append(f'<line class="span {name}" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot {name}" cx="{middle}" cy="{y}" r="4"/>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 -- names are the three contestants, all else is numbers


def smoothed(points: Points) -> list[tuple[int, float]]:
    """Compute a running mean over about a twentieth of the points, centred to avoid a lag."""
    reach = len(points) // 40
    losses = [loss for _, loss in points]
    windows = [losses[max(0, i - reach) : i + reach + 1] for i in range(len(points))]
    return [(step, sum(window) / len(window)) for (step, _), window in zip(points, windows, strict=True)]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Choose round numbers (1, 2 or 5 times a power of ten apart) that enclose [low, high]."""
    span = max(high - low, 1e-6 * abs(high), 1e-12)  # a flat curve still needs a scale
    raw = span / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw)
    lowest, highest = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(lowest, max(highest, lowest + 1) + 1)]


def _finite(points: Points) -> list[tuple[int, float]]:
    return [(step, loss) for step, loss in points if math.isfinite(loss)]
