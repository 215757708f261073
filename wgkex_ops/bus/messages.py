"""The messages on the MQTT bus as typed values: a part for each topic of docs/protocol.md. Pure.

Old and new processes share the bus, and any client may write to it. What breaks a rule of this file becomes an
InvalidMessageError.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from wgkex_ops.bus.payloads import decode, encode, is_name, is_worker, malformed_payload
from wgkex_ops.errors import InvalidMessageError, InvalidPublicKeyError
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.names import ALL_WORKERS

# --- wireguard/{domain}/{worker or "all"}: a key, from brokers to workers

# MQTT 5 user properties; a worker that uses 3.1.1 never sees them.
_REQUEST_ID: Final = "wgkex-request-id"
_ACCEPTED_AT: Final = "wgkex-accepted-at"
_API_VERSION: Final = "wgkex-api-version"
# Brokers write 32 hexadecimal digits. It goes to logs and into exemplars, which have 128 characters at the most.
_VALID_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_VALID_TIME: Final = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeyMessage:
    """A node's key for a worker or for ALL_WORKERS; the domain need not exist."""

    domain: str
    target: str
    key: PublicKey


class ReceiptAddress(msgspec.Struct, frozen=True):
    """Where a broker wants a receipt (`receipt_topic`), with its own mark of the key, which goes back as it came."""

    topic: str
    correlation: bytes


class Origin(msgspec.Struct, frozen=True):
    """Where a key comes from, as far as it is known.

    Attributes:
        request_id: of the submission; empty if it is not known.
        accepted_at: when its broker found it valid, in seconds since the epoch; None if that is not known.
        receipt_to: where a receipt is wanted; None if none is.
        api_version: that the node asked by, 1 or 2; 0 if it is not known.
    """

    request_id: str = ""
    accepted_at: float | None = None
    receipt_to: ReceiptAddress | None = None
    api_version: int = 0


def key_topic(domain: str, target: str = ALL_WORKERS) -> str:
    return f"wireguard/{domain}/{target}"


def key_subscription(domain: str) -> str:
    return f"wireguard/{domain}/+"


def parse_key(topic: str, payload: bytes) -> KeyMessage:
    """Read a key as a worker receives it.

    Raises:
        InvalidMessageError: reason ``malformed_topic``, ``invalid_public_key`` or ``small_order_public_key``.
    """
    match topic.split("/"):
        case ["wireguard", domain, target] if domain and target:
            pass
        case _:
            raise InvalidMessageError("malformed_topic", "a key's topic is wireguard/{domain}/{worker}")
    try:
        # A surrogate stands for each byte that is not ASCII: parse() refuses it like any other wrong character.
        return KeyMessage(domain, target, PublicKey.parse(payload.decode("ascii", errors="surrogateescape")))
    except InvalidPublicKeyError as error:
        raise InvalidMessageError(error.reason, str(error)) from None


def origin_properties(origin: Origin) -> dict[str, str]:
    """The user properties that go with a key."""
    properties = {_REQUEST_ID: origin.request_id}
    if origin.accepted_at is not None:
        properties[_ACCEPTED_AT] = f"{origin.accepted_at:.6f}"
    if origin.api_version:
        properties[_API_VERSION] = str(origin.api_version)
    return properties


def parse_origin(properties: Mapping[str, str], response_topic: str = "", correlation: bytes = b"") -> Origin:
    """Read what came with a key: user properties, response topic, correlation data.

    The key is worth installing without them, so what breaks a rule counts as unknown. A response topic outside of the
    receipts is one of them: a worker must not publish wherever another client wants it to.
    """
    request_id = properties.get(_REQUEST_ID, "")
    accepted_at = properties.get(_ACCEPTED_AT, "")
    api_version = properties.get(_API_VERSION)
    wants_receipt = (
        response_topic.startswith(_RECEIPTS)
        and is_name(response_topic.removeprefix(_RECEIPTS))
        and 0 < len(correlation) <= _CORRELATION_LIMIT
    )
    return Origin(
        request_id=request_id if _VALID_REQUEST_ID.fullmatch(request_id) else "",
        accepted_at=float(accepted_at) if _VALID_TIME.fullmatch(accepted_at) else None,
        receipt_to=ReceiptAddress(response_topic, correlation) if wants_receipt else None,
        api_version=int(api_version) if api_version in ("1", "2") else 0,
    )


# --- wgkex/receipts/{broker}/{worker}: receipts, from a worker to one broker

# New topics are below wgkex/ only: old brokers take any other one for one of theirs.
_RECEIPTS: Final = "wgkex/receipts/"
# The length of our brokers' marks. Receipts of several keys with such marks can share a message.
CORRELATION_BYTES: Final = 16
_CORRELATION_LIMIT: Final = 64
_VALID_REASON: Final = re.compile(r"[A-Za-z0-9_]{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A worker has installed a key, or given it up for a reason: a slug, or the kernel's name of an error."""

    worker: str
    reason: str = ""


class _ReceiptObject(msgspec.Struct, frozen=True, omit_defaults=True):
    worker: str
    result: Literal["installed", "failed"]
    # Of any type, since it means nothing for an installed key.
    reason: Any = ""


def receipt_topic(broker: str) -> str:
    """What a broker names as response topic."""
    return f"{_RECEIPTS}{broker}"


def receipt_topic_of(worker: str, response_topic: str) -> str:
    """Where a worker publishes its receipts: access rules can tie a topic with its name to its user."""
    return f"{response_topic}/{worker}"


def is_receipt(topic: str) -> bool:
    return topic.startswith(_RECEIPTS)


def receipt_payload(receipt: Receipt) -> bytes:
    return encode(_ReceiptObject(receipt.worker, "failed" if receipt.reason else "installed", receipt.reason))


def parse_receipt(topic: str, payload: bytes) -> Receipt:
    """Read a receipt. Workers of earlier revisions publish theirs to the response topic itself.

    Raises:
        InvalidMessageError: reason ``malformed_payload``, or ``worker_mismatch``.
    """
    found = decode(_ReceiptObject, payload, "a receipt")
    if not is_worker(found.worker):
        raise malformed_payload("a receipt names no worker")
    _broker, *publisher = topic.removeprefix(_RECEIPTS).split("/")
    if publisher not in ([], [found.worker]):
        raise InvalidMessageError("worker_mismatch", "a receipt names another worker than its topic")
    if found.result == "installed":
        return Receipt(found.worker)
    if not isinstance(found.reason, str) or _VALID_REASON.fullmatch(found.reason) is None:
        raise malformed_payload("a receipt of a key that was given up has no valid reason")
    return Receipt(found.worker, found.reason)


def split_correlation(correlation: bytes) -> list[bytes]:
    """Split a receipt's correlation data into the marks of the keys that it is for."""
    return [correlation[at : at + CORRELATION_BYTES] for at in range(0, len(correlation), CORRELATION_BYTES)]


# --- wireguard-worker/{worker}/{domain}/data: how nodes reach a gateway, from workers to brokers

# A host's name or address as nodes can use it: they read it with a shell.
_VALID_ADDRESS: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}", re.ASCII)
_PORTS: Final = range(1, 0x10000)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How nodes of one domain reach a gateway.

    Attributes:
        address: host name or IP address.
        port: UDP port, 1 to 65535.
        public_key: the gateway's key as base64.
        link_address: the gateway's address inside the tunnel, without a prefix length.
        receipts: whether the worker sends receipts; old ones do not.
        draining: whether an operator has asked for no new nodes; its `connected_peers` keep them away.
    """

    address: str
    port: int
    public_key: str
    link_address: str
    receipts: bool = False
    draining: bool = False


@dataclass(frozen=True, slots=True)
class WorkerData:
    """How a worker is reached in a domain; None if it has withdrawn that, or a member is missing."""

    worker: str
    domain: str
    endpoint: Endpoint | None


class _WorkerDataObject(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    # Of any type: a member of another one counts as missing, which is no error.
    external_address: Any = None
    port: Any = None
    public_key: Any = None
    link_address: Any = None
    receipts: Any = None
    draining: Any = None


def worker_data_topic(worker: str, domain: str) -> str:
    return f"wireguard-worker/{worker}/{domain}/data"


def data_payload(endpoint: Endpoint | None) -> bytes:
    """An endpoint as the JSON object that old brokers read, with an integer `Port`; they ignore other members.

    None withdraws it: an empty object, since old brokers cannot read an empty payload.
    """
    if endpoint is None:
        return encode(_WorkerDataObject())
    known = (endpoint.address, endpoint.port, endpoint.public_key, endpoint.link_address)
    return encode(_WorkerDataObject(*known, endpoint.receipts or None, endpoint.draining or None))


def _parse_worker_data(payload: bytes) -> Endpoint | None:
    """An endpoint that nodes can use, or None if a member is missing or empty: that makes nodes end their tunnel."""
    if not payload:
        return None
    data = decode(_WorkerDataObject, payload, "a worker's data")
    texts = (data.external_address, data.public_key, data.link_address)
    if not isinstance(data.port, int) or not all(isinstance(text, str) and text for text in texts):
        return None
    # Old workers write the address as configured on the interface, some with its prefix length; nodes want it bare.
    link_address = data.link_address.partition("/")[0]
    endpoint = Endpoint(
        data.external_address, data.port, data.public_key, link_address, data.receipts is True, data.draining is True
    )
    if not is_usable(endpoint):
        raise malformed_payload("a worker's data has a member that no node can use")
    return endpoint


def is_usable(endpoint: Endpoint) -> bool:
    """Whether nodes can use an endpoint that came from outside."""
    try:
        PublicKey.parse(endpoint.public_key)
        bare = IPv6Address(endpoint.link_address).scope_id is None
    except (InvalidPublicKeyError, ValueError):
        return False
    port = endpoint.port in _PORTS and endpoint.port is not True
    return bare and port and _VALID_ADDRESS.fullmatch(endpoint.address) is not None


# --- wireguard-worker/{worker}/status and wireguard-broker/{broker}/status: 1 or 0, to brokers


# A user property of both; old processes, and MQTT 3.1.1, have none.
_VERSION: Final = "wgkex-version"
_VALID_VERSION: Final = re.compile(r"[0-9A-Za-z.+-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """Whether a worker is online, and the version of its software; empty if it is not known."""

    worker: str
    online: bool
    version: str = ""


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """The same of a broker."""

    broker: str
    online: bool
    version: str = ""


def worker_status_topic(worker: str) -> str:
    return f"wireguard-worker/{worker}/status"


def broker_status_topic(broker: str) -> str:
    return f"wireguard-broker/{broker}/status"


def status_payload(*, online: bool) -> bytes:
    """`1` or `0`, as old brokers compare them."""
    return b"1" if online else b"0"


def status_properties(version: str) -> dict[str, str]:
    """The user properties that go with a status."""
    return {_VERSION: version}


def _parse_version(properties: Mapping[str, str]) -> str:
    version = properties.get(_VERSION, "")
    return version if _VALID_VERSION.fullmatch(version) else ""


def _parse_status(payload: bytes) -> bool:
    if payload not in (b"1", b"0", b""):
        raise malformed_payload("a status is 1 or 0")
    return payload == b"1"


# --- wireguard-metrics/{domain}/{worker}/connected_peers: an integer, from workers to brokers

# Of a worker that ends, or that cannot read its interface.
PEERS_UNKNOWN: Final = -1
_VALID_COUNT: Final = re.compile(rb"-?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class ConnectedPeers:
    """How many peers of a domain have a live session with a worker; None if it does not know, or ends."""

    worker: str
    domain: str
    peers: int | None


def connected_peers_topic(domain: str, worker: str) -> str:
    return f"wireguard-metrics/{domain}/{worker}/connected_peers"


def _parse_connected_peers(payload: bytes) -> int | None:
    if not payload:
        return None
    if _VALID_COUNT.fullmatch(payload) is None:
        raise malformed_payload("a count of peers is an integer")
    peers = int(payload)
    return peers if peers >= 0 else None


# --- what brokers receive

WORKER_EVENTS: Final = (
    "wireguard-worker/+/+/data",
    "wireguard-worker/+/status",
    "wireguard-metrics/+/+/connected_peers",
    "wireguard-broker/+/status",
)

WorkerEvent = WorkerData | WorkerStatus | ConnectedPeers | BrokerStatus


def parse_worker_event(topic: str, payload: bytes, properties: Mapping[str, str] = MappingProxyType({})) -> WorkerEvent:
    """Read a message of a worker or broker to brokers; an empty payload withdraws a retained one.

    Raises:
        InvalidMessageError: reason ``malformed_topic`` or ``malformed_payload``.
    """
    match topic.split("/"):
        case ["wireguard-worker", worker, domain, "data"] if is_worker(worker) and is_name(domain):
            return WorkerData(worker, domain, _parse_worker_data(payload))
        case ["wireguard-worker", worker, "status"] if is_worker(worker):
            return WorkerStatus(worker, _parse_status(payload), _parse_version(properties))
        case ["wireguard-metrics", domain, worker, "connected_peers"] if is_name(domain) and is_worker(worker):
            return ConnectedPeers(worker, domain, _parse_connected_peers(payload))
        case ["wireguard-broker", broker, "status"] if is_name(broker):
            return BrokerStatus(broker, _parse_status(payload), _parse_version(properties))
    raise InvalidMessageError("malformed_topic", "brokers expect no such topic, or a level of it cannot be a name")
