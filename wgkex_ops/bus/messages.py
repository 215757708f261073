"""What old and new processes say to each other over MQTT: pure functions between topics with payloads and typed events.

Everything that arrives is somebody else's text. Whatever follows no rule of this file becomes an InvalidMessageError.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, Final

from wgkex_ops.errors import InvalidMessageError, InvalidPublicKeyError
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.names import ALL_WORKERS

# MQTT 5 user properties; a worker that speaks 3.1.1 never sees them.
_REQUEST_ID: Final = "wgkex-request-id"
_ACCEPTED_AT: Final = "wgkex-accepted-at"

# New topics live under wgkex/ only: old brokers take whatever comes elsewhere for something of theirs.
_RECEIPTS: Final = "wgkex/receipts/"
# What our brokers know a key by. Receipts of several such keys can share a message.
CORRELATION_BYTES: Final = 16
_CORRELATION_LIMIT: Final = 64
_REASON: Final = re.compile(r"[A-Za-z0-9_]{1,32}", re.ASCII)

WORKER_EVENTS: Final = (
    "wireguard-worker/+/+/data",
    "wireguard-worker/+/status",
    "wireguard-metrics/+/+/connected_peers",
    "wireguard-broker/+/status",
)

# What the old worker says on its way out, and what a worker says that cannot read its interface.
PEERS_UNKNOWN: Final = -1

_MALFORMED_TOPIC: Final = "malformed_topic"
_MALFORMED_PAYLOAD: Final = "malformed_payload"

# A key is 44 characters, the JSON of a worker's data a few hundred; a retained bomb is not worth parsing.
_PAYLOAD_LIMIT: Final = 4096
# Names of hosts as they come in topics have 253 characters at the most (RFC 1035). What is not printable would reach
# logs and labels; the others are what makes a topic (MQTT 5, section 4.7.1).
_NAME_LIMIT: Final = 253
_NOT_IN_NAMES: Final = frozenset("/+#")
# A host's name or address as nodes can use it. They read it with a shell.
_ADDRESS: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}", re.ASCII)
_PORTS: Final = range(1, 0x10000)
_INTEGER: Final = re.compile(r"-?[0-9]{1,9}", re.ASCII)
# Brokers write 32 hexadecimal digits. It goes to logs and into exemplars, which have 128 characters at the most.
_A_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_A_TIME: Final = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeyMessage:
    """A node's key on its way to the workers.

    Attributes:
        domain: the name of the domain, not yet looked up.
        target: the worker that is meant, or ALL_WORKERS.
        key: the validated key.
    """

    domain: str
    target: str
    key: PublicKey


@dataclass(frozen=True, slots=True)
class ReceiptAddress:
    """Where a broker wants a receipt, and what it knows it by.

    Attributes:
        topic: one of `receipt_topic`.
        correlation: the broker's own mark, which goes back as it came.
    """

    topic: str
    correlation: bytes


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a key comes from, as far as its broker told.

    Attributes:
        request_id: of the submission; empty if it is not known.
        accepted_at: seconds since the epoch by the broker's clock, when the submission was found valid; None if that is
            not known.
        receipt_to: where a receipt is wanted; None if none is.
    """

    request_id: str = ""
    accepted_at: float | None = None
    receipt_to: ReceiptAddress | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """A worker tells what became of a key.

    Attributes:
        worker: its name.
        reason: why the key was given up, a slug or the kernel's name of an error; empty if it is installed.
    """

    worker: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How nodes of one domain reach a gateway.

    Attributes:
        address: host name or IP address.
        port: UDP port, 1 to 65535.
        public_key: the gateway's key as base64.
        link_address: the gateway's address inside the tunnel, without a prefix length.
        receipts: whether the worker tells what becomes of each key; old ones do not.
    """

    address: str
    port: int
    public_key: str
    link_address: str
    receipts: bool = False


@dataclass(frozen=True, slots=True)
class WorkerData:
    """A worker tells how it is reached in a domain; None when it has taken that back, or left out something needed."""

    worker: str
    domain: str
    endpoint: Endpoint | None


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker came or went."""

    worker: str
    online: bool


@dataclass(frozen=True, slots=True)
class ConnectedPeers:
    """A worker counted the peers of a domain with a live session; None when it does not know (or has gone)."""

    worker: str
    domain: str
    peers: int | None


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """A broker came or went."""

    broker: str
    online: bool


WorkerEvent = WorkerData | WorkerStatus | ConnectedPeers | BrokerStatus


def key_topic(domain: str, target: str = ALL_WORKERS) -> str:
    """Where a broker publishes a key of a domain."""
    return f"wireguard/{domain}/{target}"


def key_subscription(domain: str) -> str:
    """What a worker subscribes to, to get the keys of a domain."""
    return f"wireguard/{domain}/+"


def worker_data_topic(worker: str, domain: str) -> str:
    """Where a worker tells how it is reached."""
    return f"wireguard-worker/{worker}/{domain}/data"


def worker_status_topic(worker: str) -> str:
    """Where a worker tells whether it is online."""
    return f"wireguard-worker/{worker}/status"


def connected_peers_topic(domain: str, worker: str) -> str:
    """Where a worker tells how many live peers it has."""
    return f"wireguard-metrics/{domain}/{worker}/connected_peers"


def broker_status_topic(broker: str) -> str:
    """Where a broker tells whether it is online."""
    return f"wireguard-broker/{broker}/status"


def receipt_topic(broker: str) -> str:
    """Where a broker wants receipts."""
    return f"{_RECEIPTS}{broker}"


def status_payload(*, online: bool) -> bytes:
    """`1` or `0`, as old brokers compare them."""
    return b"1" if online else b"0"


def data_payload(endpoint: Endpoint) -> bytes:
    """The JSON object that old brokers read; `Port` is an integer here, though nodes get a string."""
    data: dict[str, object] = {
        "ExternalAddress": endpoint.address,
        "Port": endpoint.port,
        "PublicKey": endpoint.public_key,
        "LinkAddress": endpoint.link_address,
    }
    if endpoint.receipts:
        # Old brokers take no notice of it.
        data["Receipts"] = True
    return json.dumps(data).encode()


def receipt_payload(receipt: Receipt) -> bytes:
    """The JSON object of a receipt."""
    if not receipt.reason:
        return json.dumps({"worker": receipt.worker, "result": "installed"}).encode()
    return json.dumps({"worker": receipt.worker, "result": "failed", "reason": receipt.reason}).encode()


def split_correlation(correlation: bytes) -> list[bytes]:
    """Take a receipt's correlation data apart: that of each key that it answers, one after another."""
    return [correlation[at : at + CORRELATION_BYTES] for at in range(0, len(correlation), CORRELATION_BYTES)]


def parse_receipt(payload: bytes) -> Receipt:
    """Read a receipt.

    Raises:
        InvalidMessageError: reason ``malformed_payload``.
    """
    match _parse_object(payload, "a receipt"):
        case {"worker": str(worker), "result": "installed"} if _is_worker(worker):
            return Receipt(worker)
        case {"worker": str(worker), "result": "failed", "reason": str(reason)} if _is_worker(
            worker
        ) and _REASON.fullmatch(reason):
            return Receipt(worker, reason)
    raise InvalidMessageError(_MALFORMED_PAYLOAD, "a receipt has a worker, a result, and a reason if that is failed")


def parse_key(topic: str, payload: bytes) -> KeyMessage:
    """Read a key's message, as a worker receives it.

    Raises:
        InvalidMessageError: reason ``malformed_topic``, ``invalid_public_key`` or ``small_order_public_key``.
    """
    match topic.split("/"):
        case ["wireguard", domain, target] if domain and target:
            pass
        case _:
            raise InvalidMessageError(_MALFORMED_TOPIC, "a key's topic is wireguard/{domain}/{worker}")
    try:
        # A surrogate stands for each byte that is no ASCII: parse() then refuses it like any other wrong character.
        return KeyMessage(domain, target, PublicKey.parse(payload.decode("ascii", errors="surrogateescape")))
    except InvalidPublicKeyError as error:
        raise InvalidMessageError(error.reason, str(error)) from None


def origin_properties(origin: Origin) -> dict[str, str]:
    """The user properties that tell the workers where a key comes from."""
    properties = {_REQUEST_ID: origin.request_id}
    if origin.accepted_at is not None:
        properties[_ACCEPTED_AT] = f"{origin.accepted_at:.6f}"
    return properties


def parse_origin(properties: Mapping[str, str], response_topic: str = "", correlation: bytes = b"") -> Origin:
    """Read what came with a key: user properties, response topic, correlation data.

    Nothing of it is needed, so what follows no rule is taken for unknown. A worker that answered to any topic would
    publish wherever somebody wants it to.
    """
    request_id = properties.get(_REQUEST_ID, "")
    accepted_at = properties.get(_ACCEPTED_AT, "")
    answerable = (
        response_topic.startswith(_RECEIPTS)
        and _is_name(response_topic.removeprefix(_RECEIPTS))
        and 0 < len(correlation) <= _CORRELATION_LIMIT
    )
    return Origin(
        request_id=request_id if _A_REQUEST_ID.fullmatch(request_id) else "",
        accepted_at=float(accepted_at) if _A_TIME.fullmatch(accepted_at) else None,
        receipt_to=ReceiptAddress(response_topic, correlation) if answerable else None,
    )


def parse_worker_event(topic: str, payload: bytes) -> WorkerEvent:
    """Read what workers and brokers tell brokers.

    An empty payload is MQTT's way of taking a retained message back.

    Raises:
        InvalidMessageError: reason ``malformed_topic`` or ``malformed_payload``.
    """
    match topic.split("/"):
        case ["wireguard-worker", worker, domain, "data"]:
            return WorkerData(_worker(worker), _name(domain), _parse_endpoint(payload) if payload else None)
        case ["wireguard-worker", worker, "status"]:
            return WorkerStatus(_worker(worker), _parse_status(payload))
        case ["wireguard-metrics", domain, worker, "connected_peers"]:
            return ConnectedPeers(_worker(worker), _name(domain), _parse_peers(payload))
        case ["wireguard-broker", broker, "status"]:
            return BrokerStatus(_name(broker), _parse_status(payload))
    raise InvalidMessageError(_MALFORMED_TOPIC, "no such topic in the contract")


def _is_name(level: str) -> bool:
    return 0 < len(level) <= _NAME_LIMIT and level.isprintable() and _NOT_IN_NAMES.isdisjoint(level)


def _name(level: str) -> str:
    if not _is_name(level):
        raise InvalidMessageError(_MALFORMED_TOPIC, "a topic has a level that cannot be a name")
    return level


def _is_worker(name: str) -> bool:
    return _is_name(name) and name != ALL_WORKERS


def _worker(level: str) -> str:
    """A worker's name. One that was called like all of them would get, and answer for, everything."""
    if not _is_worker(level):
        raise InvalidMessageError(_MALFORMED_TOPIC, "a topic has a level that cannot be a worker's name")
    return level


def _parse_status(payload: bytes) -> bool:
    if payload in (b"1", b"0", b""):
        return payload == b"1"
    raise InvalidMessageError(_MALFORMED_PAYLOAD, "a status is 1 or 0")


def _parse_peers(payload: bytes) -> int | None:
    if not payload:
        return None
    text = payload.decode("ascii", errors="replace")
    if _INTEGER.fullmatch(text) is None:
        raise InvalidMessageError(_MALFORMED_PAYLOAD, "a count of peers is an integer")
    peers = int(text)
    return peers if peers >= 0 else None


def _parse_endpoint(payload: bytes) -> Endpoint | None:
    """An endpoint that nodes can use, or None if a member is absent or empty: nodes tear their tunnel down for that."""
    data = _parse_object(payload, "a worker's data")
    match data:
        case {
            "ExternalAddress": str(address),
            "Port": int(port),
            "PublicKey": str(public_key),
            "LinkAddress": str(link_address),
        } if address and public_key and link_address:
            pass
        case _:
            return None
    # Old workers write the address as configured on the interface, some with its prefix length; nodes want it bare.
    link_address = link_address.partition("/")[0]
    if isinstance(port, bool) or port not in _PORTS or not _is_usable(address, public_key, link_address):
        raise InvalidMessageError(_MALFORMED_PAYLOAD, "a worker's data has a member that no node can use")
    return Endpoint(address, port, public_key, link_address, receipts=data.get("Receipts") is True)


def _parse_object(payload: bytes, what: str) -> dict[str, Any]:
    if len(payload) > _PAYLOAD_LIMIT:
        raise InvalidMessageError(_MALFORMED_PAYLOAD, f"{what} has more than {_PAYLOAD_LIMIT} bytes")
    try:
        data = json.loads(payload)
    except (ValueError, RecursionError):
        raise InvalidMessageError(_MALFORMED_PAYLOAD, f"{what} is no JSON") from None
    if not isinstance(data, dict):
        raise InvalidMessageError(_MALFORMED_PAYLOAD, f"{what} is no JSON object")
    return data


def _is_usable(address: str, public_key: str, link_address: str) -> bool:
    try:
        PublicKey.parse(public_key)
        bare = IPv6Address(link_address).scope_id is None
    except (InvalidPublicKeyError, ValueError):
        return False
    return bare and _ADDRESS.fullmatch(address) is not None
