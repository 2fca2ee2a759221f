"""Published messages against their AsyncAPI files, envelope and signed data, with formats checked."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.support import ROOT, shared
from vppd.model import Outbound

DSX = {
    "grid.loadtarget.set.v1": ("LoadTargetSetEvent", "SetLoadTargetData"),
    "grid.powerstate.status.v1": ("PowerStateStatusEvent", "PowerStateStatusData"),
    "grid.powerbreach.alert.v1": ("PowerBreachAlertEvent", "PowerBreachAlertData"),
    "grid.powerbreach.enforcement.v1": ("PowerBreachEnforcementEvent", "PowerBreachEnforcementData"),
}
VPP = {
    "vpp.order.set.v1": ("OrderSetEvent", "OrderSetData"),
    "vpp.regulation.v1": ("RegulationEvent", "RegulationData"),
    "vpp.bid.offer.v1": ("BidOfferEvent", "BidOfferData"),
    "vpp.bid.award.v1": ("BidAwardEvent", "BidAwardData"),
    "vpp.receipt.v1": ("ReceiptEvent", "ReceiptData"),
    "vpp.order.status.v1": ("OrderStatusEvent", "OrderStatusData"),
    "vpp.flexibility.v1": ("FlexibilityEvent", "FlexibilityData"),
    "vpp.telemetry.v1": ("TelemetryEvent", "TelemetryData"),
    "vpp.statement.v1": ("StatementEvent", "StatementData"),
}


def check(message: Outbound) -> dict[str, Any]:
    """Return the signed data of a message, after both it and its envelope have passed their schemas."""
    event = json.loads(message.payload)
    data = unsigned(event["data"])
    file = _dsx_file() if event["type"] in DSX else ROOT / "docs" / "asyncapi-vpp-v1.yaml"
    envelope_schema, data_schema = {**DSX, **VPP}[event["type"]]
    validate(file, envelope_schema, event)
    validate(file, data_schema, data)
    return data


def unsigned(jws: str) -> dict[str, Any]:
    """Return the payload of a JWS without looking at its signature."""
    part = jws.split(".")[1]
    data: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return data


def validate(file: Path, schema: str, value: Any) -> None:
    """Raise ValidationError unless ``value`` fits the named schema."""
    _validator(file, schema).validate(value)


def _dsx_file() -> Path:
    return shared("specs", "dsx-flex-1.7.0.yaml")


@cache
def _validator(file: Path, schema: str) -> jsonschema.Draft202012Validator:
    components = yaml.safe_load(file.read_text(encoding="utf-8"))["components"]
    root = {"$ref": f"#/components/schemas/{schema}", "components": components}
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    assert {"date-time", "uuid"} <= set(checker.checkers), "the formats would not be checked"
    return jsonschema.Draft202012Validator(root, format_checker=checker)
