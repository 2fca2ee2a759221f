"""What has been measured for reports, on disk: a restart must not leave holes in what a server is told.

Fixed records, appended without waiting for the disk: a crash of the process loses none, one of the machine the last seconds. What
cannot be written or read is only missing from reports.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from vppd.snapshot import Floats

log = structlog.get_logger()

STATES = ("NORMAL", "ERROR", "RUNNING_CURTAILED", "RUNNING_OPTED_OUT")
"""Operating states; a record holds the place in here."""


class Trail:
    """A file of steps, oldest first; without a path nothing is kept."""

    def __init__(self, path: Path | None, columns: int) -> None:
        self._path, self._told = path, False
        self._record = np.dtype([("at_s", "<f8"), ("said", "<f8", (columns,)), ("state", "u1")])

    def load(self, from_s: float, until_s: float) -> list[tuple[float, Floats, str]]:
        """Return the steps that began in a time [unix s], and forget the others; what makes no sense is left out."""
        if self._path is None or not self._path.exists():
            return []
        try:
            raw = self._path.read_bytes()
            found = np.frombuffer(raw[: len(raw) - len(raw) % self._record.itemsize], dtype=self._record)
            good = found[(found["at_s"] >= from_s) & (found["at_s"] <= until_s) & (found["state"] < len(STATES))]
            rising = np.concatenate([[True], good["at_s"][1:] > np.maximum.accumulate(good["at_s"])[:-1]])[: len(good)]
            good = good[rising]
            draft = self._path.with_suffix(".new")
            draft.write_bytes(good.tobytes())
            draft.replace(self._path)
        except OSError as error:
            self._tell(error)
            return []
        return [(float(step["at_s"]), step["said"].copy(), STATES[int(step["state"])]) for step in good]

    def rewrite(self, steps: NDArray[np.void]) -> None:
        """Replace what is kept by these steps: a file that is only added to would fill the disk in the end."""
        if self._path is None:
            return
        record = np.zeros(len(steps), dtype=self._record)
        for name in ("at_s", "said", "state"):
            record[name] = steps[name]
        try:
            draft = self._path.with_suffix(".new")
            draft.write_bytes(record.tobytes())
            draft.replace(self._path)
        except OSError as error:
            self._tell(error)

    def append(self, at_s: float, said: Floats, state: str) -> None:
        """Add a step that began at a time [unix s]."""
        if self._path is None:
            return
        step: NDArray[np.void] = np.zeros(1, dtype=self._record)
        step["at_s"], step["said"], step["state"] = at_s, said, STATES.index(state)
        try:
            with self._path.open("ab") as file:
                file.write(step.tobytes())
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        if not self._told:
            log.warning("openadr_figures_not_kept", path=str(self._path), error=str(error))
        self._told = True
