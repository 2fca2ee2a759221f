"""Why a message was not taken: stable codes for machines, one sentence for people."""

from __future__ import annotations

from enum import StrEnum

from vppd.errors import Garbled


class Reason(StrEnum):
    """Codes of a refused message; part of the wire contract, so they never change their meaning."""

    RETAINED = "retained"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_ISSUER = "unknown_issuer"
    ISSUER_MISMATCH = "issuer_mismatch"
    UNKNOWN_KEY = "unknown_key"
    BAD_ALGORITHM = "bad_algorithm"
    BAD_SIGNATURE = "bad_signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    REPLAY = "replay"
    SEQUENCE = "sequence"
    UNAUTHORISED = "unauthorised"
    UNKNOWN_RESOURCE = "unknown_resource"
    BAD_INTERVAL = "bad_interval"
    BAD_POWER = "bad_power"
    CLOCK_UNSYNCHRONISED = "clock_unsynchronised"
    HOLD = "hold"
    NOT_ENABLED = "not_enabled"
    UNKNOWN_BID = "unknown_bid"
    LATE = "late"
    MISMATCH = "mismatch"


class Defect(Garbled):
    """A message that is not taken, with the code and the sentence for its sender."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        self.reason, self.sentence = reason, sentence
        super().__init__(f"{reason.value}: {sentence}")
