"""What sites could give, quarter hour by quarter hour over fourteen weeks: made up to be demanding, and from recorded signals."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np

from vppd.snapshot import Floats

STEP_S = 900.0
DAY = 96
DAYS = 98
N = DAYS * DAY
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
HOUR = np.arange(N) * STEP_S / 3600.0
SHAPE = 1.0 + 0.3 * np.sin((HOUR - 9.0) / 24.0 * 2 * np.pi)
WEEKDAY = np.where(HOUR // 24 % 7 < 5, 1.0, 0.6)

Series = tuple[Floats, ...]
"""(N,) each: power that some tier or plant could give. [W]"""


def wander(rng: np.random.Generator, keep_frac: float, step_frac: float) -> Floats:
    """An error that lasts: each step keeps a part of the one before."""
    found = np.zeros(N)
    for i, kick in enumerate(rng.normal(0.0, step_frac, N)):
        found[i] = keep_frac * found[i - 1] + kick if i else kick
    return found


def jobs(rng: np.random.Generator, per_h: float, mean_h: float, each_w: float) -> Floats:
    """Batch jobs: Poisson arrivals by time of day and week, lognormal durations, few big ones among many small."""
    draw_w = np.zeros(N + 1)
    rate = per_h * STEP_S / 3600.0 * np.maximum(1.0 + 0.8 * np.sin((HOUR - 8.0) / 24.0 * 2 * np.pi), 0.1)
    for t, count in enumerate(rng.poisson(rate * np.where(WEEKDAY < 1.0, 0.4, 1.0))):
        for _ in range(count):
            lasts = max(1, int(rng.lognormal(np.log(mean_h), 0.8) * 3600.0 / STEP_S))
            w = each_w * rng.choice([1, 2, 4, 8, 16], p=[0.4, 0.25, 0.2, 0.1, 0.05])
            draw_w[t] += w
            draw_w[min(N, t + lasts)] -= w
    return np.maximum(np.cumsum(draw_w)[:N], 0.0)


def serving(rng: np.random.Generator, level: Floats | float = 1.0) -> Floats:
    """Inference that follows the day and the week, and is off by up to a third for hours."""
    return np.asarray(1e6 * level * WEEKDAY * SHAPE * np.clip(1.0 + wander(rng, 0.97, 0.03), 0.1, 2.0))


def office(rng: np.random.Generator) -> Series:
    """Two clusters with days and weekends."""
    return serving(rng), 0.6 * serving(rng)


def batch(rng: np.random.Generator) -> Series:
    """Two clusters of batch jobs."""
    return jobs(rng, 6.0, 4.0, 2e4), jobs(rng, 2.0, 12.0, 3e4)


def drift(rng: np.random.Generator) -> Series:
    """A site that is emptied over the weeks by more than a third."""
    level = np.linspace(1.2, 0.7, N)
    return serving(rng, level), level * jobs(rng, 4.0, 5.0, 2e4)


def regime(rng: np.random.Generator) -> Series:
    """A tenant leaves at once, two weeks into the weeks held back: two fifths are gone for good."""
    level = np.where(np.arange(N) < 56 * DAY, 1.0, 0.6)
    return serving(rng, level), 0.6 * serving(rng, level)


def outages(rng: np.random.Generator) -> Series:
    """A cluster that is down for days again and again, nobody says when: four outages in the weeks held back."""
    level = np.ones(N)
    for first, end, left in ((25, 27, 0.3), (33, 35, 0.5), (46, 48, 0.3), (58, 60, 0.5), (75, 77, 0.3), (88, 90, 0.5)):
        level[first * DAY : end * DAY] = left
    return serving(rng, level), 0.6 * serving(rng)


def restless(rng: np.random.Generator) -> Series:
    """Quiet weeks and wild ones: the size of the errors itself wanders by a factor of three."""
    size = np.exp(np.clip(wander(rng, 0.999, 0.03), -1.1, 1.1))
    return (1e6 * np.clip(SHAPE + size * wander(rng, 0.95, 0.04), 0.0, 3.0),)


def sun(rng: np.random.Generator) -> Series:
    """PV that may be curtailed, under days that are clear, mixed or dark and clouds within them."""
    clear = np.maximum(np.sin((HOUR % 24 - 6.0) / 12.0 * np.pi), 0.0)
    days = np.repeat(rng.choice([1.0, 0.7, 0.3], DAYS, p=[0.4, 0.35, 0.25]), DAY)
    clouds = np.clip(1.0 + wander(rng, 0.8, 0.12), 0.1, 1.1)
    return (2e6 * clear * days * clouds,)


SYNTHETIC: dict[str, Callable[[np.random.Generator], Series]] = {
    "office": office, "batch jobs": batch, "drift": drift, "regime change": regime, "outages": outages,
    "restless": restless, "PV": sun,
}  # fmt: skip


def inference_trace(rng: np.random.Generator) -> Series | None:
    """Two clusters that serve recorded LLM requests (Azure 2023, code and conversation, CC-BY-4.0), or None without the files.

    The traces are an hour long: tokens in bins of 5 s, each bin stretched to a quarter hour, stretches of six hours drawn at
    random, smoothed over an hour as queues and batching do, on a made-up day and week.
    """
    found = []
    for name in ("code", "conv"):
        path = DATA / f"AzureLLMInferenceTrace_{name}.csv"
        if not path.is_file():
            return None
        tokens = _tokens(path)
        starts = rng.integers(0, len(tokens) - 24, N // 24 + 1)
        drawn = np.concatenate([tokens[start : start + 24] for start in starts])[: N + 3]
        smooth = np.convolve(np.pad(drawn, (3, 0), mode="edge"), np.ones(4) / 4.0, mode="valid")[:N]
        found.append(1e6 * WEEKDAY * SHAPE * (0.3 + 0.7 * smooth / tokens.mean()))
    return tuple(found)


def _tokens(path: Path) -> Floats:
    """Return tokens per bin of 5 s; generated ones count ten times, as they take that much longer."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            (row["TIMESTAMP"][:26], int(row["ContextTokens"]), int(row["GeneratedTokens"]))
            for row in csv.DictReader(file)
        ]
    begin = datetime.fromisoformat(rows[0][0])
    found = np.zeros(int((datetime.fromisoformat(rows[-1][0]) - begin).total_seconds() / 5.0) + 1)
    for at, read, written in rows:
        found[int((datetime.fromisoformat(at) - begin).total_seconds() / 5.0)] += read + 10.0 * written
    return found


def regulation(_: np.random.Generator) -> Series | None:
    """What a battery of 300 kW has left upwards while it follows the recorded CAISO regulation signal (LBNL, SynAS), or None.

    The file has 18:00 to 22:00 of 100 days of 2016, the first 98 are taken as one day after another; in all other hours nothing is
    known. It jumps from all to nothing from one day to the next: nobody can foresee it.
    """
    path = DATA / "caiso_regulation_4s_train.csv"
    if not path.is_file():
        return None
    command_mw = np.genfromtxt(path, delimiter=",", skip_header=1)[:, 1 : DAYS + 1]
    left_w = 3e3 * (100.0 - command_mw).reshape(16, -1, DAYS).mean(axis=1)
    found = np.full((DAYS, DAY), np.nan)
    found[:, 72:88] = np.maximum(left_w.T, 0.0)
    return (found.ravel(),)


def regulation_beside(rng: np.random.Generator) -> Series | None:
    """A cluster beside that battery, in the hours of the recorded signal."""
    battery = regulation(rng)
    return None if battery is None else (serving(rng), *battery)


RECORDED: dict[str, Callable[[np.random.Generator], Series | None]] = {
    "LLM requests (Azure)": inference_trace, "cluster beside regulation (CAISO)": regulation_beside,
    "regulation alone (CAISO)": regulation,
}  # fmt: skip
UNFORESEEN = frozenset({"regulation alone (CAISO)"})
"""Profiles shown without a limit: a stress, not something one would sell."""
