"""A power history as a block of characters: bars below the meter, a line at the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from vppd.demo.acts import TOLERANCE_FRAC, Point

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_OK, _OVER, _FREE, _LINE = "green", "red", "cyan", "bold yellow"


def chart(points: Sequence[Point], width: int, height: int, seconds_s: float) -> list[Text]:
    """Return ``height`` rows of ``width`` columns that end now and go back by ``seconds_s``, with their scale. [kW]

    The scale begins at 0, or at half its top when all there is to see lies above that.
    """
    if not points:
        return [Text("no reading yet", style="dim")] + [Text()] * (height - 1)
    columns = bins(points, width, seconds_s)
    scale = _scale([p for p in columns if p])
    rows = []
    for row in range(height, 0, -1):
        edge_w = scale.top_w if row == height else scale.floor_w
        text = Text(f"{edge_w / 1e3:5.0f} ┤" if row in (height, 1) else "      │", style="dim")
        for point in columns:
            text.append_text(_cell(point, row, height, scale))
        rows.append(text)
    return rows


@dataclass(frozen=True, slots=True)
class Scale:
    """The powers at the lower edge of the first row and the upper edge of the last. [W]"""

    floor_w: float
    top_w: float

    def rows(self, power_w: float, height: int) -> float:
        """Return how many of ``height`` rows a power fills."""
        return max(0.0, power_w - self.floor_w) / (self.top_w - self.floor_w) * height


def _scale(points: Sequence[Point]) -> Scale:
    powers = [power_w for p in points for power_w in (p.power_w, p.target_w) if power_w is not None]
    top_w = max([*powers, 1.0]) * 1.05
    return Scale(0.5 * top_w if powers and min(powers) > 0.55 * top_w else 0.0, top_w)


def bins(points: Sequence[Point], width: int, seconds_s: float) -> list[Point | None]:
    """Return the mean point of each of ``width`` equal spans of time, None where there is none."""
    end_s, step_s = points[-1].mono_s, seconds_s / width
    sums: list[list[Point]] = [[] for _ in range(width)]
    for point in reversed(points):
        column = width - 1 - int((end_s - point.mono_s) / step_s)
        if column < 0:
            break
        sums[column].append(point)
    return [_mean(group) for group in sums]


def _mean(group: Sequence[Point]) -> Point | None:
    if not group:
        return None
    return Point(group[0].mono_s, sum(p.power_w for p in group) / len(group), group[0].target_w)


def _cell(point: Point | None, row: int, height: int, scale: Scale) -> Text:
    if point is None:
        return Text(" ")
    filled = scale.rows(point.power_w, height) - (row - 1)
    block = _EIGHTHS[max(0, min(8, round(filled * 8)))]
    on_target = point.target_w is not None and row - 1 <= scale.rows(point.target_w, height) < row
    if on_target and filled <= 0.5:
        return Text("━", style=_LINE)
    return Text(block, style=_color(point))


def _color(point: Point) -> str:
    if point.target_w is None:
        return _FREE
    return _OVER if point.power_w > point.target_w * (1.0 + TOLERANCE_FRAC) else _OK
