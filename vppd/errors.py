"""Errors by what to do next: do not start, retry, alarm, drop."""


class VppdError(Exception):
    """Everything vppd raises on purpose; anything else is a bug."""


class ConfigError(VppdError):
    """The configuration cannot be used: do not start (or keep the old one)."""


class DeviceError(VppdError):
    """A device, cluster, broker or disk did not do what was asked."""


class Unreachable(DeviceError):
    """No answer: retry with back-off."""


class Refused(DeviceError):
    """A clear no from the other side: alarm, do not repeat blindly."""


class Garbled(DeviceError):
    """An answer that makes no sense: drop it."""
