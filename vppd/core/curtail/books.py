"""The throughput accounts of a cluster whose jobs come and go, charged by what was found in force at each look. Pure.

Between two looks the worse of what was found at both counts. A job that is missed is charged as it was last seen for a whole
window, so that neither a bad answer of the cluster nor a requeue forgives anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.core.curtail.accounts import Accounts, allowed_s, opened
from vppd.snapshot import Bools, Floats, Ints

STEPS_PER_WINDOW = 60
"""Looks closer together than this are booked as one step."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What was found in force, (n,) each."""

    ids: tuple[str, ...]
    tier: Ints
    lost_frac: Floats
    """By the level in force; 1 while paused. [0-1]"""
    paused: Bools
    restart_s: Floats
    checkpoint_s: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Books:
    """The jobs of the last look first, in its order, then those that are missed and had lost something."""

    ids: tuple[str, ...]
    present: int
    """How many of them were there."""
    accounts: Accounts
    at_s: float
    """When the last look was. [s]"""
    lost_frac: Floats
    """(n,) found then. [0-1]"""
    paused: Bools
    since_s: Floats
    """(n,) when it was found to have been paused or resumed; -inf for never. [s]"""
    owed_s: Floats
    """(n,) restart time still to be lost, of paused jobs the whole. [s]"""
    seen_s: Floats
    """(n,) when it was last there. [s]"""

    def present_accounts(self) -> Accounts:
        """Return the accounts of the jobs that are there."""
        if self.present == len(self.ids):
            return self.accounts
        lost_s = tuple(lost_s[: self.present] for lost_s in self.accounts.lost_s)
        return Accounts(self.accounts.window_s, self.accounts.ends_s, lost_s)

    @property
    def is_clear(self) -> bool:
        """Say whether nobody has lost anything and nobody is held."""
        moved = self.accounts.lost_s[-1] > self.accounts.lost_s[0]
        return not (moved.any() or self.paused.any() or (self.lost_frac > 0.0).any())


def blank(window_s: float, now_s: float) -> Books:
    """Return books of a cluster of which nothing is known: who is found held counts as held for a whole window."""
    none = np.zeros(0)
    accounts = opened(0, window_s, now_s - window_s)
    return Books((), 0, accounts, now_s - window_s, none, none > 0.0, none, none, none)


def looked(books: Books, look: Look, now_s: float) -> Books:
    """Return the books after a look at ``now_s``; what was lost since the last one is booked."""
    same = books.ids == look.ids
    known = np.ones(len(look.ids), dtype=np.bool_) if same else _known(books, look.ids)
    before = books if same else _turned(books, look.ids, now_s)
    n, dt_s = len(look.ids), max(now_s - before.at_s, 0.0)
    lost_s = np.where(before.paused, 1.0, before.lost_frac) * dt_s
    lost_s[:n] = _lost_s(before, look, known, min(dt_s, books.accounts.window_s))
    found_s = np.where(known, np.inf, allowed_s(look.tier, books.accounts.window_s))
    lost_s[:n] = np.minimum(lost_s[:n], found_s)  # a job that is new can have lost no more than its tier let it
    least_step_s = books.accounts.window_s / STEPS_PER_WINDOW
    accounts = before.accounts
    if dt_s > 0.0 or lost_s.any():
        accounts = accounts.booked(max(now_s, accounts.ends_s[-1]), lost_s, least_step_s)
    return _found(before, look, accounts, now_s, dt_s)


def _known(books: Books, ids: tuple[str, ...]) -> Bools:
    """Say which jobs were seen before, (n,)."""
    seen = set(books.ids)
    return np.fromiter((job_id in seen for job_id in ids), np.bool_, len(ids))


def _turned(books: Books, ids: tuple[str, ...], now_s: float) -> Books:
    """Return the books in the order of a new look, behind it those missed for less than a window that had lost something."""
    index = {job_id: i for i, job_id in enumerate(books.ids)}
    there = set(ids)
    lost = (books.accounts.lost_s[-1] > books.accounts.lost_s[0]) | books.paused
    lost &= now_s - books.seen_s < books.accounts.window_s
    gone = [i for i, job_id in enumerate(books.ids) if lost[i] and job_id not in there]
    taken = np.fromiter((*(index.get(job_id, -1) for job_id in ids), *gone), np.int64, len(ids) + len(gone))
    new = taken < 0
    if not books.ids:
        n, nothing = len(ids), np.zeros(len(ids))
        lost_s = tuple(np.zeros(n) for _ in books.accounts.lost_s)
        accounts = Accounts(books.accounts.window_s, books.accounts.ends_s, lost_s)
        return Books(ids, n, accounts, books.at_s, nothing, nothing > 0.0, np.full(n, -np.inf), nothing, nothing)
    return Books(
        ids=(*ids, *(books.ids[i] for i in gone)),
        present=len(ids),
        accounts=books.accounts.taken(taken),
        at_s=books.at_s,
        lost_frac=np.where(new, 0.0, books.lost_frac[taken]),
        paused=np.where(new, False, books.paused[taken]),
        since_s=np.where(new, -np.inf, books.since_s[taken]),
        owed_s=np.where(new, 0.0, books.owed_s[taken]),
        seen_s=np.where(new, now_s, books.seen_s[taken]),
    )


def _lost_s(before: Books, look: Look, known: Bools, dt_s: float) -> Floats:
    """Return what each job lost since the last look, (n,). [s]"""
    n = len(look.ids)
    rate = np.where(known, np.maximum(before.lost_frac[:n], look.lost_frac), look.lost_frac)
    was_paused = before.paused[:n]
    owed_s = np.minimum(before.owed_s[:n], dt_s)
    lost_s = np.where(was_paused | look.paused, dt_s, owed_s + (dt_s - owed_s) * rate)
    return lost_s + np.where(look.paused & ~was_paused, look.checkpoint_s, 0.0)


def _found(before: Books, look: Look, accounts: Accounts, now_s: float, dt_s: float) -> Books:
    """Return the books with what was found now."""
    n, gone = len(look.ids), slice(len(look.ids), None)
    was_paused, owed_s = before.paused[:n], before.owed_s[:n]
    owed_s = np.where(look.paused, look.restart_s, np.where(was_paused, owed_s, np.maximum(owed_s - dt_s, 0.0)))
    moved = look.paused != was_paused
    return Books(
        ids=before.ids,
        present=n,
        accounts=accounts,
        at_s=max(now_s, before.at_s),
        lost_frac=np.concatenate((look.lost_frac, before.lost_frac[gone])),
        paused=np.concatenate((look.paused, before.paused[gone])),
        since_s=np.concatenate((np.where(moved, now_s, before.since_s[:n]), before.since_s[gone])),
        owed_s=np.concatenate((owed_s, before.owed_s[gone])),
        seen_s=np.concatenate((np.full(n, now_s), before.seen_s[gone])),
    )
