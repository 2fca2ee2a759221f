"""Which messages are taken, and why others are not."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest

from tests.grid.dispatcher import (
    AWARD_TOPIC,
    ENFORCEMENT_TOPIC,
    LOAD_TARGET_TOPIC,
    NOW,
    ORDER_TOPIC,
    REGULATION_TOPIC,
    award_data,
    b64,
    enforcement_data,
    event,
    inbound,
    order_data,
    signal_data,
    targets,
    watts,
    when,
)
from tests.grid.plant import Memory, judge, key, with_awards
from vppd.grid.reasons import Reason
from vppd.grid.verdict import Accepted, Conditions, Duplicate, Rejected, Verdict
from vppd.model import Inbound, OrderKind

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def load_target(data: dict[str, Any] | None = None, *, jws: str = "", kid: str = "tso-1", **envelope: Any) -> Inbound:
    """Return a DSX Flex load target."""
    token = jws or key(kid).jws(data or targets())
    return inbound(LOAD_TARGET_TOPIC, event("grid.loadtarget.set.v1", token, **envelope))


def order(data: dict[str, Any] | None = None, *, issuer: str = "tso", kid: str = "tso-1", **envelope: Any) -> Inbound:
    """Return a vpp/v1 order."""
    content = event(
        "vpp.order.set.v1", key(kid).jws(data or order_data()), **{"source": f"//grid/v1/isv/{issuer}", **envelope}
    )
    return inbound(f"vpp/v1/dc1/issuer/{issuer}/order/set", content)


def signal(data: dict[str, Any], issuer: str = "tso") -> Inbound:
    """Return a regulation signal."""
    content = event("vpp.regulation.v1", key(f"{issuer}-1").jws(data), source=f"//grid/v1/isv/{issuer}")
    return inbound(REGULATION_TOPIC.replace("tso", issuer), content, qos=0)


def accepted(verdict: Verdict) -> Accepted:
    """Return the verdict, which must be an acceptance."""
    assert isinstance(verdict, Accepted), verdict
    return verdict


def rejected(verdict: Verdict, reason: Reason) -> Rejected:
    """Return the verdict, which must be a rejection for that reason."""
    assert isinstance(verdict, Rejected), verdict
    assert verdict.reason is reason, verdict
    assert verdict.sentence
    return verdict


def other_form(jws: str) -> str:
    """Return the other valid ECDSA signature that anybody can make from a given one."""
    text, _, signature = jws.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    s = P256_ORDER - int.from_bytes(raw[32:], "big")
    return f"{text}.{b64(raw[:32] + s.to_bytes(32, 'big'))}"


# --- what is taken


def test_a_load_target_becomes_one_limit_per_feed() -> None:
    """A target without tags is a limit on every feed, with the command's correlation and trace."""
    correlation = str(uuid.uuid4())
    orders = accepted(judge(load_target(correlationid=correlation))).orders
    assert [(o.resource, o.kind, o.power_w) for o in orders] == [
        ("main-a", OrderKind.LIMIT, 400e3),
        ("main-b", OrderKind.LIMIT, 400e3),
    ]
    assert {o.correlation_id for o in orders} == {correlation}
    assert len({o.order_id for o in orders}) == 2


def test_both_algorithms_are_taken() -> None:
    """An RS256 signature by a key pinned to RS256 holds."""
    assert accepted(judge(load_target(kid="tso-rsa"))).about.authenticated


def test_an_order_keeps_what_the_dispatcher_said() -> None:
    """Every field of a vpp/v1 order arrives."""
    data = order_data(kind="reduce", power=watts(0.1, "megawatt"), ramp_s=30, priority=50, product="afrr", seq=7)
    found = accepted(judge(order(data))).orders[0]
    assert (found.kind, found.power_w, found.ramp_s, found.priority) == (OrderKind.REDUCE, 100e3, 30.0, 50)
    assert (found.product, found.seq, found.order_id) == ("afrr", 7, data["order_id"])


def test_a_regulation_signal_is_no_command() -> None:
    """A signal is taken without a receipt and without memory of its bytes."""
    found = accepted(judge(signal(signal_data())))
    assert found.regulation is not None
    assert found.regulation.level_frac == 0.25
    assert not found.is_command


@pytest.mark.parametrize("left_out", [["seq"], ["sent_at"], ["seq", "sent_at"]])
def test_a_signal_may_leave_its_number_and_time_to_the_envelope(left_out: list[str]) -> None:
    """Without seq or sent_at the envelope's time takes their place, and the limits of age hold for it."""
    data = {k: v for k, v in signal_data().items() if k not in left_out}
    found = accepted(judge(signal(data))).regulation
    assert found is not None
    assert found.sent_at == NOW
    assert found.seq == (1 if "seq" not in left_out else round(NOW.timestamp() * 1000))
    assert not found.is_dated


def test_an_old_envelope_makes_an_undated_signal_expired() -> None:
    """A signal that was held back is refused by its envelope's time."""
    rejected(judge(signal({"signal": 0.5}), later_s=15.1), Reason.EXPIRED)


def test_an_undated_signal_counts_once() -> None:
    """Signed data that says no time is refused when it comes again in a fresh envelope; a new signature is a new signal."""
    memory, first = Memory(), {"signal": 0.5}
    taken = signal(first)
    again = json.loads(taken.payload) | {"id": str(uuid.uuid4()), "time": when(2)}
    accepted(judge(taken, memory))
    rejected(judge(inbound(REGULATION_TOPIC, again, qos=0), memory, later_s=2), Reason.REPLAY)
    new = event("vpp.regulation.v1", key("tso-1").jws(first), time=when(2))
    accepted(judge(inbound(REGULATION_TOPIC, new, qos=0), memory, later_s=2))


def test_an_enforcement_report_is_taken() -> None:
    """What the infrastructure agent did is read."""
    content = event(
        "grid.powerbreach.enforcement.v1", key("tso-1").jws(enforcement_data()), source="//grid/v1/infra/tso"
    )
    found = accepted(judge(inbound(ENFORCEMENT_TOPIC, content))).enforcement
    assert found is not None
    assert found.results[0].applied_w == 300.0


def test_an_award_is_taken_only_where_awards_are_enabled() -> None:
    """An award is refused by name at a site that takes none."""
    content = event("vpp.bid.award.v1", key("tso-1").jws(award_data()))
    found = rejected(judge(inbound(AWARD_TOPIC, content)), Reason.NOT_ENABLED)
    assert found.sentence == "awards are not enabled at this site"
    rejected(judge(inbound(AWARD_TOPIC, content), plant=with_awards()), Reason.UNKNOWN_BID)


def test_unknown_envelope_attributes_are_ignored() -> None:
    """CloudEvents extensions that we do not know do no harm."""
    assert accepted(judge(load_target(tracestate="x=1", custom="y")))


# --- who speaks


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(inbound("some/topic", b"{}"), Reason.UNKNOWN_TYPE, id="topic"),
        pytest.param(inbound("grid/v1/isv/evil/loadtarget/set", b"{}"), Reason.UNKNOWN_ISSUER, id="unknown issuer"),
        pytest.param(load_target(type="vpp.order.set.v1"), Reason.UNKNOWN_TYPE, id="type of another topic"),
        pytest.param(load_target(source="//grid/v1/isv/agg"), Reason.ISSUER_MISMATCH, id="source of another issuer"),
        pytest.param(load_target(source="//grid/v1/infra/tso"), Reason.ISSUER_MISMATCH, id="source of another role"),
        pytest.param(load_target(kid="agg-1"), Reason.ISSUER_MISMATCH, id="key of another issuer"),
        pytest.param(load_target(kid="stranger"), Reason.UNKNOWN_KEY, id="key not pinned"),
    ],
)
def test_topic_source_and_key_must_name_the_same_known_issuer(message: Inbound, reason: Reason) -> None:
    """Whoever speaks under another's name is refused."""
    rejected(judge(message), reason)


# --- signatures


def test_a_signature_by_another_key_under_our_kid_is_refused() -> None:
    """A forger who uses the right kid but not the key gets nowhere."""
    forged = key("stranger").jws(targets(), kid="tso-1")
    assert not rejected(judge(load_target(jws=forged)), Reason.BAD_SIGNATURE).about.authenticated


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "crit", "b64", "extra"])
def test_header_parameters_that_bring_keys_or_rules_are_refused(name: str) -> None:
    """A JWS header cannot tell us which key to trust."""
    rejected(judge(load_target(jws=key("tso-1").jws(targets(), **{name: ["x"]}))), Reason.MALFORMED)


@pytest.mark.parametrize("kid", ["tso-1", "tso-rsa"])
@pytest.mark.parametrize("alg", ["none", "HS256", "ES384", "PS256", "", None, 5])
def test_other_algorithms_are_refused(alg: object, kid: str) -> None:
    """Only ES256 and RS256 are on the list."""
    rejected(judge(load_target(jws=key(kid).jws(targets(), alg=alg))), Reason.BAD_ALGORITHM)


def test_an_algorithm_the_key_is_not_pinned_to_is_refused() -> None:
    """A key pinned to ES256 does not work with RS256."""
    rejected(judge(load_target(jws=key("tso-1").jws(targets(), alg="RS256"))), Reason.BAD_ALGORITHM)


@pytest.mark.parametrize("data", [targets(), "x.y.z", "a.b", "", "a.b.c.d", 7])
def test_unsigned_data_is_refused(data: object) -> None:
    """Plain data, or what is no JWS at all, is never taken."""
    assert isinstance(judge(inbound(LOAD_TARGET_TOPIC, event("grid.loadtarget.set.v1", data))), Rejected)


# --- time


@pytest.mark.parametrize(
    ("sent_s", "reason"),
    [(-899.0, None), (-901.0, Reason.EXPIRED), (29.0, None), (31.0, Reason.NOT_YET_VALID)],
)
def test_a_load_target_is_judged_by_its_envelope_time(sent_s: float, reason: Reason | None) -> None:
    """DSX Flex commands have no expiry, so old ones and those from the future are refused."""
    verdict = judge(load_target(time=when(sent_s)))
    assert accepted(verdict) if reason is None else rejected(verdict, reason)


@pytest.mark.parametrize(("expires_s", "reason"), [(0.0, None), (-5.0, None), (-5.1, Reason.EXPIRED)])
def test_an_order_is_judged_by_its_signed_expiry(expires_s: float, reason: Reason | None) -> None:
    """A vpp/v1 order is good until expires_at, and 5 s more for clocks that differ."""
    verdict = judge(order(order_data(expires_at=when(expires_s)), time=when(-5000)))
    assert accepted(verdict) if reason is None else rejected(verdict, reason)


def test_an_interval_that_is_over_is_expired() -> None:
    """What should have ended already is not begun."""
    past = {"start_time": when(-20), "end_time": when(-10)}
    rejected(judge(order(order_data(interval=past))), Reason.EXPIRED)
    rejected(judge(load_target(targets({"interval": past, "load_constraint": watts(1)}))), Reason.EXPIRED)


@pytest.mark.parametrize(("sent_s", "reason"), [(-14.0, None), (-16.0, Reason.EXPIRED), (31.0, Reason.NOT_YET_VALID)])
def test_a_signal_is_good_for_seconds(sent_s: float, reason: Reason | None) -> None:
    """An old regulation signal is worse than none."""
    verdict = judge(signal(signal_data(sent_at=when(sent_s))))
    assert accepted(verdict) if reason is None else rejected(verdict, reason)


def test_without_a_clock_no_command_is_taken() -> None:
    """No time can be judged while our clock is not synchronised."""
    rejected(judge(order(), conditions=Conditions(clock_ok=False)), Reason.CLOCK_UNSYNCHRONISED)


def test_a_hold_refuses_and_says_why() -> None:
    """The sentence carries the cause of the hold."""
    found = rejected(judge(order(), conditions=Conditions(hold="the ledger cannot be written")), Reason.HOLD)
    assert found.sentence.endswith("the ledger cannot be written")


# --- again


def test_the_same_bytes_again_get_the_same_receipts() -> None:
    """A duplicate has no second effect, also when its envelope has grown old meanwhile."""
    memory, message = Memory(), load_target()
    accepted(judge(message, memory))
    again = judge(message, memory, later_s=5000.0)
    assert isinstance(again, Duplicate)
    assert again.receipts == memory.commands["tso", again.about.command_id].receipts
    assert len(again.receipts) == 2


def test_a_finished_command_is_not_begun_again() -> None:
    """The very bytes of a command that is over are a replay."""
    memory, message = Memory(), load_target()
    memory_id = accepted(judge(message, memory)).about.command_id
    memory.close("tso", memory_id)
    rejected(judge(message, memory), Reason.REPLAY)


def test_one_id_with_other_bytes_is_a_replay() -> None:
    """An id stands for one content."""
    memory, name = Memory(), str(uuid.uuid4())
    accepted(judge(load_target(id=name), memory))
    rejected(judge(load_target(id=name), memory), Reason.REPLAY)


@pytest.mark.parametrize("kid", ["tso-1", "tso-rsa"])
def test_signed_data_under_another_id_is_a_replay(kid: str) -> None:
    """The envelope is not signed, so a new id and time must not make old data new."""
    memory, jws = Memory(), key(kid).jws(targets())
    accepted(judge(load_target(jws=jws), memory))
    rejected(judge(load_target(jws=jws), memory), Reason.REPLAY)


def test_the_other_form_of_a_signature_is_a_replay() -> None:
    """An ECDSA signature has a twin that anybody can make: it holds, and it is still the same command."""
    memory, jws = Memory(), key("tso-1").jws(targets())
    twin = other_form(jws)
    assert twin != jws
    accepted(judge(load_target(jws=twin)))
    accepted(judge(load_target(jws=jws), memory))
    rejected(judge(load_target(jws=twin), memory), Reason.REPLAY)


def test_the_same_target_signed_anew_is_a_new_command() -> None:
    """A dispatcher may ask for the same thing twice: restore, for example."""
    memory = Memory()
    restore = targets({"interval": {}, "load_constraint": None})
    first, second = accepted(judge(load_target(restore), memory)), accepted(judge(load_target(restore), memory))
    assert first.orders[0].kind is second.orders[0].kind is OrderKind.RELEASE


def test_a_bent_copy_does_not_spoil_the_command() -> None:
    """Somebody who sends a copy with another time or id first cannot keep the real one out."""
    memory, jws, name = Memory(), key("tso-1").jws(targets()), str(uuid.uuid4())
    rejected(judge(load_target(jws=jws, id=name, time=when(-5000)), memory), Reason.EXPIRED)
    rejected(judge(load_target(jws=key("stranger").jws(targets(), kid="tso-1"), id=name), memory), Reason.BAD_SIGNATURE)
    accepted(judge(load_target(jws=jws, id=name), memory))


def test_a_rejection_is_final_for_the_same_bytes() -> None:
    """A command refused in a hold is not begun when the broker delivers it once more."""
    memory, message = Memory(), order()
    rejected(judge(message, memory, conditions=Conditions(hold="starting")), Reason.HOLD)
    again = judge(message, memory)
    assert isinstance(again, Duplicate)
    assert len(again.receipts) == 2


def test_an_order_id_is_used_once_for_ever() -> None:
    """A new message cannot take up an old order id."""
    memory, data = Memory(), order_data()
    accepted(judge(order(data), memory))
    rejected(judge(order({**data, "seq": 2}), memory), Reason.REPLAY)


@pytest.mark.parametrize(("seq", "reason"), [(11, None), (500, None), (10, Reason.SEQUENCE), (9, Reason.SEQUENCE)])
def test_seq_rises_per_issuer(seq: int, reason: Reason | None) -> None:
    """Gaps are taken, steps back are not."""
    memory = Memory()
    accepted(judge(order(order_data(seq=10)), memory))
    verdict = judge(order(order_data(seq=seq)), memory)
    assert accepted(verdict) if reason is None else rejected(verdict, reason)


def test_signals_have_a_sequence_of_their_own() -> None:
    """An order's seq does not hinder signals; a late signal is refused."""
    memory = Memory()
    accepted(judge(order(order_data(seq=10)), memory))
    accepted(judge(signal(signal_data(seq=3)), memory))
    rejected(judge(signal(signal_data(seq=3)), memory), Reason.SEQUENCE)


def test_a_retained_command_is_refused_but_named() -> None:
    """A retained message changes nothing, and its sender learns which one it was."""
    message = load_target()
    found = rejected(judge(Inbound(message.topic, message.payload, 1, True)), Reason.RETAINED)
    assert found.about.command_id == json.loads(message.payload)["id"]


# --- what may be ordered


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        pytest.param({"resource": "main-b", "kind": "reduce"}, "no grant for resource", id="resource"),
        pytest.param({"kind": "limit"}, "no grant for limit", id="kind"),
        pytest.param({"kind": "reduce", "power": watts(51, "kilowatt")}, "outside what is granted", id="too much"),
        pytest.param({"kind": "reduce", "power": watts(999)}, "outside what is granted", id="too little"),
        pytest.param({"kind": "reduce", "power": watts(10e3), "interval": {}}, "without an end", id="endless"),
        pytest.param(
            {"kind": "reduce", "power": watts(10e3), "interval": {"end_time": when(3601)}}, "longer", id="too long"
        ),
    ],
)
def test_default_is_deny_and_the_sentence_names_what_is_missing(changes: dict[str, Any], part: str) -> None:
    """One grant must cover resource, kind, power and duration."""
    verdict = judge(order(order_data(**changes), issuer="agg", kid="agg-1"))
    assert part in rejected(verdict, Reason.UNAUTHORISED).sentence


def test_what_a_grant_covers_is_taken() -> None:
    """The small aggregator may do what it was granted."""
    accepted(judge(order(order_data(kind="reduce", power=watts(50e3)), issuer="agg", kid="agg-1")))


def test_a_known_issuer_without_grants_may_do_nothing() -> None:
    """To be known is not to be allowed, for orders and for signals."""
    rejected(judge(order(issuer="nil", kid="nil-1")), Reason.UNAUTHORISED)
    rejected(judge(signal(signal_data(), issuer="nil")), Reason.UNAUTHORISED)


def test_one_forbidden_target_refuses_the_whole_message() -> None:
    """A load target is taken whole or not at all."""
    data = targets(
        {"interval": {}, "feed_tags": ["main-a"], "load_constraint": watts(1e5)},
        {"interval": {}, "feed_tags": ["main-b"], "load_constraint": watts(2e6)},
    )
    rejected(judge(load_target(data)), Reason.UNAUTHORISED)


def test_an_order_signed_for_another_site_is_refused() -> None:
    """The same feed tag exists at many sites."""
    rejected(judge(order(order_data(audience="dc2"))), Reason.UNAUTHORISED)
    accepted(judge(order(order_data(audience="dc1"))))


# --- contents


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"resource": "main-z"}, Reason.UNKNOWN_RESOURCE),
        ({"resource": "*"}, Reason.UNKNOWN_RESOURCE),
        ({"kind": "blast"}, Reason.MALFORMED),
        ({"power": None}, Reason.BAD_POWER),
        ({"power": watts(-1)}, Reason.BAD_POWER),
        ({"power": watts(1e300, "megawatt")}, Reason.BAD_POWER),
        ({"power": watts(1, "horsepower")}, Reason.MALFORMED),
        ({"power": {"value": "1", "unit": "watt"}}, Reason.MALFORMED),
        ({"power": {"value": True, "unit": "watt"}}, Reason.MALFORMED),
        ({"kind": "reduce", "power": watts(0)}, Reason.BAD_POWER),
        ({"kind": "release"}, Reason.BAD_POWER),
        ({"interval": {"start_time": when(20), "end_time": when(10)}}, Reason.BAD_INTERVAL),
        ({"interval": {"start_time": when(367 * 86400)}}, Reason.BAD_INTERVAL),
        ({"interval": {"start_time": "2026-03-01T12:00:00"}}, Reason.MALFORMED),
        ({"interval": {"start": when()}}, Reason.MALFORMED),
        ({"interval": {"end_time": "2026-02-30T12:00:00Z"}}, Reason.MALFORMED),
        ({"ramp_s": -1}, Reason.BAD_INTERVAL),
        ({"priority": 95}, Reason.MALFORMED),
        ({"seq": -1}, Reason.MALFORMED),
        ({"seq": True}, Reason.MALFORMED),
        ({"seq": 2**60}, Reason.MALFORMED),
        ({"order_id": "5"}, Reason.MALFORMED),
        ({"surprise": 1}, Reason.MALFORMED),
        ({"expires_at": None}, Reason.MALFORMED),
    ],
)
def test_a_bad_order_is_refused_with_its_reason(changes: dict[str, Any], reason: Reason) -> None:
    """Each thing that can be wrong with an order has its own code."""
    rejected(judge(order(order_data(**changes))), reason)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"interval": {}, "load_constraint": watts(0)}, Reason.BAD_POWER),
        ({"interval": {}, "load_constraint": watts(-5)}, Reason.BAD_POWER),
        ({"interval": {}}, Reason.MALFORMED),
        ({"load_constraint": watts(5)}, Reason.MALFORMED),
        ({"interval": {}, "load_constraint": watts(5), "feed_tags": ["main-z"]}, Reason.UNKNOWN_RESOURCE),
        ({"interval": {}, "load_constraint": watts(5), "feed_tags": "main-a"}, Reason.MALFORMED),
        ({"interval": {}, "load_constraint": watts(5), "strategy": {"best": True}}, Reason.MALFORMED),
        ({"interval": {"end_time": when(-1)}, "load_constraint": watts(5)}, Reason.EXPIRED),
    ],
)
def test_a_bad_load_target_is_refused_with_its_reason(entry: dict[str, Any], reason: Reason) -> None:
    """Each thing that can be wrong with a target has its own code."""
    rejected(judge(load_target(targets(entry))), reason)


@pytest.mark.parametrize("signal_value", [1.01, -1.01, 1e308])
def test_a_signal_beyond_its_range_is_refused(signal_value: float) -> None:
    """A regulation signal lies in [-1, 1]."""
    rejected(judge(signal(signal_data(signal=signal_value))), Reason.BAD_POWER)


def test_empty_tags_mean_all_feeds_and_targets_may_differ() -> None:
    """Tags, times, strategy and restore of one message stay with their target."""
    data = targets(
        {"interval": {"start_time": when(60)}, "feed_tags": [], "load_constraint": None},
        {"interval": {}, "feed_tags": ["main-b"], "load_constraint": watts(5), "strategy": {"best_effort": True}},
    )
    orders = accepted(judge(load_target(data))).orders
    assert [(o.resource, o.kind.value, o.best_effort) for o in orders] == [
        ("main-a", "release", False),
        ("main-b", "release", False),
        ("main-b", "limit", True),
    ]


@pytest.mark.parametrize("power", [{}, {"power": None}], ids=["absent", "null"])
def test_a_release_of_everything_is_known(power: dict[str, Any]) -> None:
    """A release may name all resources at once, with no power or a null one."""
    data = order_data(kind="release", resource="*", power=None, interval=None) | power
    assert accepted(judge(order(data))).orders[0].resource == "*"


# --- size and shape


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        pytest.param(b"x" * 16_385, Reason.TOO_LARGE, id="too large"),
        pytest.param(b"", Reason.MALFORMED, id="empty"),
        pytest.param(b"\xff\xfe{}", Reason.MALFORMED, id="bad utf-8"),
        pytest.param(b"[]", Reason.MALFORMED, id="no object"),
        pytest.param(b"[" * 16_000, Reason.MALFORMED, id="depth bomb"),
        pytest.param(b'{"id":1,"id":2}', Reason.MALFORMED, id="duplicate key"),
        pytest.param(b'{"id":NaN}', Reason.MALFORMED, id="NaN"),
        pytest.param(b'{"id":-Infinity}', Reason.MALFORMED, id="infinity"),
        pytest.param(b'{"id":1e999}', Reason.MALFORMED, id="overflow"),
        pytest.param(b'{"id":' + b"9" * 5000 + b"}", Reason.MALFORMED, id="huge integer"),
        pytest.param(b'{"id":"\\ud800"}', Reason.MALFORMED, id="lone surrogate"),
    ],
)
def test_what_is_no_honest_json_is_refused(payload: bytes, reason: Reason) -> None:
    """Anything two readers could take differently is refused."""
    rejected(judge(inbound(ORDER_TOPIC, payload)), reason)


@pytest.mark.parametrize(
    "raw",
    [b'{"targets":[],"targets":[]}', b'{"a":NaN}', b"[1]", b"\xff", b'{"a":' + b"[" * 9 + b"]" * 9 + b"}"],
)
def test_signed_data_is_read_as_strictly(raw: bytes) -> None:
    """A signature does not excuse ambiguous data."""
    rejected(judge(load_target(jws=key("tso-1").jws(raw))), Reason.MALFORMED)


@pytest.mark.parametrize(
    "changes",
    [
        {"specversion": "1.0"},
        {"specversion": None},
        {"id": "not-a-uuid"},
        {"id": str(uuid.uuid1())},
        {"id": None},
        {"time": "yesterday"},
        {"datacontenttype": "text/plain"},
        {"subject": None},
        {"traceparent": None},
        {"traceparent": "00-xyz"},
        {"correlationid": "7"},
        {"source": "http://example.com"},
    ],
)
def test_an_envelope_that_breaks_its_schema_is_malformed(changes: dict[str, Any]) -> None:
    """Required attributes are required, and have their form."""
    rejected(judge(load_target(**changes)), Reason.MALFORMED)
