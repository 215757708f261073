"""What gateways and brokers know of one key: the answer to "why has this router no tunnel?". Pure.

The structs are also the JSON of answers on the bus and of `wgkex-ops peer --json`: a member that goes breaks programs.
"""

from collections.abc import Iterable, Mapping
from ipaddress import AddressValueError, IPv6Address
from typing import Final, Literal

import msgspec

from wgkex_ops.errors import InvalidPublicKeyError
from wgkex_ops.model.keys import PublicKey, link_local

# A name may be that of several keys. More are of no help; who answers gives one more, so that this can be said.
MOST_KEYS: Final = 10
LONGEST_QUERY: Final = 200
# For people, after a name that has not answered.
WHY_SILENT: Final = "it is busy or hangs, is an older version, or access rules keep wgkex/ask from its user"

# "tunnel": there is a live session. "waiting": nothing is wrong here, but no session is live. "fault": something of the
# peer is missing. "refused": a rule keeps the key out. "unknown": nothing is known of it.
Outcome = Literal["tunnel", "waiting", "fault", "refused", "unknown"]


class Verdict(msgspec.Struct, frozen=True):
    """What it means, in one sentence, with the remedy where there is one."""

    outcome: Outcome
    text: str


class PeerReport(msgspec.Struct, frozen=True, kw_only=True):
    """A peer on a gateway, in one domain.

    Attributes:
        domain: its name.
        interface: the WireGuard interface.
        port: its UDP port; 0 if it has none.
        allowed_ips: the one address with its prefix length, ``several`` or ``none``.
        route: ``ours``; ``foreign``: an operator's or another program's; ``elsewhere``: over another interface of ours;
            ``missing``; or ``several``, for a peer with other allowed IPs than one address, which is somebody else's.
        fdb: whether VXLAN sends to its address.
        endpoint: the family of the router's address outside of the tunnel: ``IPv4``, ``IPv6``, or empty as long as no
            packet has come. The address itself is personal data, and shown nowhere.
        handshake: seconds since the epoch of the last handshake; None without one.
        received, sent: bytes.
        state: by the age of the handshake: active, idle, stale or never.
    """

    domain: str
    interface: str
    port: int
    allowed_ips: str
    route: Literal["ours", "foreign", "elsewhere", "missing", "several"]
    fdb: bool
    endpoint: str
    handshake: float | None
    received: int
    sent: int
    state: str


class JournalEntry(msgspec.Struct, frozen=True):
    """What the worker's journal has: the peer should be there.

    Attributes:
        domain: its name.
        entered_at: when the key last arrived, or its peer was adopted, in seconds since the epoch.
        version_2: whether its node asked by version 2.
    """

    domain: str
    entered_at: float
    version_2: bool


class KeyOnGateway(msgspec.Struct, frozen=True, kw_only=True):
    """One key, as a gateway sees it.

    Attributes:
        key: base64.
        name: from the key lists, or the file of peer names; may be empty.
        address: what derives from the key.
        peers: where it is a peer; nearly always once or not at all.
        journal: None without an entry.
        refused: by which list, in which domains: ``denied`` or ``not_allowed`` by the domain's name.
        protected: whether a list or the configuration protects it.
        verdict: what it all means.
    """

    key: str
    name: str
    address: str
    peers: tuple[PeerReport, ...]
    journal: JournalEntry | None
    refused: Mapping[str, str]
    protected: bool
    verdict: Verdict


class KeyAtBroker(msgspec.Struct, frozen=True, kw_only=True):
    """One request for a key, as a broker sees it: only of the last minutes.

    Attributes:
        key: base64.
        name: from the key lists; may be empty.
        domain: that the node asked in; empty if it has not asked, or in one that is not served.
        asked_at: when it last asked, in seconds since the epoch; None if it has not lately.
        api_version: that it asked by.
        request_id: of that request, as in the logs.
        receipts: by gateway, why it gave the key up; an empty text if it has installed it.
        named: the gateway that version 2 has named; empty for none.
        refused: ``denied_key`` or ``not_allowed_key`` if a list keeps the key out; empty otherwise.
        failure: the reason in the response; empty for 200.
        awaited: the gateways that are online and confirm keys, and have not confirmed this one.
    """

    key: str
    name: str
    domain: str
    asked_at: float | None
    api_version: int
    request_id: str
    receipts: Mapping[str, str]
    named: str
    refused: str
    failure: str = ""
    awaited: tuple[str, ...] = ()


class GatewayAnswer(msgspec.Struct, frozen=True, tag_field="role", tag="gateway"):
    """A gateway's answer; ``problem`` says why it cannot tell."""

    name: str
    keys: tuple[KeyOnGateway, ...] = ()
    problem: str = ""


class BrokerAnswer(msgspec.Struct, frozen=True, tag_field="role", tag="broker"):
    """A broker's answer."""

    name: str
    keys: tuple[KeyAtBroker, ...] = ()


Answer = GatewayAnswer | BrokerAnswer


class Answers(msgspec.Struct, frozen=True):
    """What came of a question.

    Attributes:
        answers: those of gateways first, by their names.
        silent: the names of who should have answered, and has not.
        unable: the names of those that are online and cannot be asked: an older version, or MQTT 3.1.1.
    """

    answers: tuple[Answer, ...]
    silent: tuple[str, ...] = ()
    unable: tuple[str, ...] = ()

    @property
    def problems(self) -> dict[str, str]:
        """Why gateways cannot tell, by their names."""
        return {one.name: one.problem for one in self.answers if isinstance(one, GatewayAnswer) and one.problem}

    @property
    def unheard(self) -> str:
        """Whose knowledge is missing, for the end of a sentence; empty if it is nobody's."""
        parts = [f"no answer from {', '.join(self.silent)}"] if self.silent else []
        if self.unable:
            parts.append(f"cannot be asked: {', '.join(self.unable)}")
        if self.problems:
            parts += [f"{name} cannot tell: {problem}" for name, problem in self.problems.items()]
        return f" ({'; '.join(parts)})" if parts else ""


class KeyInFleet(msgspec.Struct, frozen=True, kw_only=True):
    """One key, as all who were asked see it.

    Attributes:
        key: base64.
        name: from a key list or a file of peer names; may be empty.
        address: what derives from the key.
        verdict: what it all means.
        gateways: by name, what those that could tell have of it.
        brokers: by name, the requests that they know of it; one for each domain that the node has asked in.
        problems: why a gateway could not tell, by name.
        silent: names of gateways and brokers that should have answered, and have not.
        unable: names of those that are online and cannot be asked: an older version, or MQTT 3.1.1.
    """

    key: str
    name: str
    address: str
    verdict: Verdict
    gateways: Mapping[str, KeyOnGateway]
    brokers: Mapping[str, tuple[KeyAtBroker, ...]] = {}
    problems: Mapping[str, str] = {}
    silent: tuple[str, ...] = ()
    unable: tuple[str, ...] = ()


class Found(msgspec.Struct, frozen=True):
    """What was found of a key, or of several that share a name.

    Attributes:
        keys: at most MOST_KEYS; none if nobody who was asked knows a key by that name or address.
        unheard: as `Answers.unheard`, of the search for the keys.
        more: whether there are more keys than these.
    """

    keys: tuple[KeyInFleet, ...]
    unheard: str = ""
    more: bool = False


class Query:
    """What an operator asks for: a key, an address, or a name.

    Args:
        text: as it was typed.

    Attributes:
        text: without the white space around it.
        key: 32 bytes if it is a key, else None.
        address: 16 bytes if it is an IPv6 address, else None.
    """

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.key: bytes | None = None
        self.address: bytes | None = None
        try:
            self.key = PublicKey.parse(self.text).raw
        except InvalidPublicKeyError:
            self.address = _address(self.text)

    @property
    def is_name(self) -> bool:
        return self.key is None and self.address is None

    def find(self, keys: Iterable[bytes], names: Mapping[bytes, str]) -> list[bytes]:
        """The keys that are meant, at most MOST_KEYS + 1.

        Args:
            keys: all that are known, of which an address may be one's own.
            names: of keys, known or not.
        """
        if self.key is not None:
            return [self.key]
        if self.address is not None:
            wanted = self.address
            return [key for key in dict.fromkeys((*keys, *names)) if link_local(key) == wanted][: MOST_KEYS + 1]
        folded = self.text.casefold()
        return [key for key, name in names.items() if name.casefold() == folded][: MOST_KEYS + 1]


def _address(text: str) -> bytes | None:
    """Read an address as people copy it: from `ip route` with a prefix length, from `ping` with an interface."""
    try:
        return IPv6Address(text.partition("/")[0].partition("%")[0]).packed
    except AddressValueError:
        return None
