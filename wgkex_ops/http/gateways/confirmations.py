"""Keys that not all gateways have confirmed: which they are, and which of them are to be sent again. No I/O."""

import asyncio
import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Final

import msgspec
import structlog

from wgkex_ops.bus.messages import CORRELATION_BYTES, Origin, Receipt, ReceiptAddress
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.http.gateways.silence import Silences
from wgkex_ops.metrics.broker import ReceiptMetrics
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.names import KEY_REFUSALS

_log = structlog.get_logger(__name__)

# A key takes about 1 KB here. More than the nodes of a large gateway send at once when they come back.
LIMIT: Final = 20_000
# Seconds. A node without a tunnel asks again long before.
KEPT_FOR: Final = 120.0
# A gateway that has not confirmed an accepted key gets it again after so many seconds.
RESENT_AFTER: Final = (5.0, 15.0, 35.0, 75.0)

_NEVER: Final = float("inf")


def next_due(accepted_at: float, sent_at: float, online_since: float, *, confirms: bool) -> float:
    """When a gateway that has not confirmed a key is to get it again; infinity for never.

    All times are seconds of one clock, that of the event loop.

    Args:
        accepted_at: when the MQTT server acknowledged the key.
        sent_at: when it was last sent to this gateway.
        online_since: when the gateway came online, as far as the present connection with the MQTT server shows. What
            was sent before may be lost: the gateway was away, or the server died with the key.
        confirms: whether the gateway sends receipts. One that does not would get each key five times.
    """
    if online_since > sent_at:
        return online_since
    if confirms:
        for seconds in RESENT_AFTER:
            if accepted_at + seconds > sent_at:
                return accepted_at + seconds
    return _NEVER


class UnconfirmedKey(msgspec.Struct, eq=False):
    """A key on its way to the gateways of its domain.

    Attributes:
        domain: whose gateways get it.
        public_key: the key itself.
        origin: what is published with it.
        correlation: how receipts refer to it.
        begun_at: when its submission was found valid, by the loop's clock.
        accepted_at: when the MQTT server acknowledged it, by the same clock; None before. It is never sent again then.
        awaited: the gateways that have not sent their receipts yet.
        receipts: why each gateway gave the key up; an empty text if it has installed it.
        sent_at: when the key was last sent to one gateway alone, by the loop's clock.
    """

    domain: Domain
    public_key: PublicKey
    origin: Origin
    correlation: bytes
    begun_at: float
    accepted_at: float | None = None
    awaited: set[str] = msgspec.field(default_factory=set)
    receipts: dict[str, str] = msgspec.field(default_factory=dict)
    sent_at: dict[str, float] = msgspec.field(default_factory=dict)
    _arrival: asyncio.Future[None] | None = None

    async def receipt_of(self, worker: str) -> str:
        """Wait for a gateway's receipt, and return why it gave the key up; an empty text if it has installed it."""
        while (reason := self.receipts.get(worker)) is None:
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        return reason

    def add_receipt(self, worker: str, reason: str) -> None:
        """Keep a gateway's receipt, and wake the request that waits for one."""
        self.receipts[worker] = reason
        self.awaited.discard(worker)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


class UnconfirmedKeys:
    """All keys that not all gateways have confirmed: at most LIMIT of them, none for longer than KEPT_FOR.

    To be used on the event loop only, whose clock it goes by.

    Args:
        gateways: which of them are online, and which send receipts.
        silences: gets to know which receipts are awaited, and which have come.
        receipt_topic: where receipts arrive; empty where none can (MQTT 3.1.1).
        metrics: the instruments that are kept up to date.
    """

    def __init__(self, gateways: Gateways, silences: Silences, *, receipt_topic: str, metrics: ReceiptMetrics) -> None:
        self._gateways = gateways
        self._silences = silences
        self._receipt_topic = receipt_topic
        self._metrics = metrics
        # The oldest first; a plain dict looks for it behind all that it has deleted.
        self._keys: OrderedDict[bytes, UnconfirmedKey] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def awaiting(self) -> int:
        """Accepted keys for which the receipt of at least one gateway is awaited."""
        return sum(key.accepted_at is not None and bool(key.awaited) for key in self._keys.values())

    def add(
        self, domain: Domain, public_key: PublicKey, request_id: str, valid_at: float, api_version: int = 0
    ) -> UnconfirmedKey:
        """Add a key before it is published: a receipt may come sooner than the MQTT server's acknowledgement.

        Args:
            domain: whose gateways get the key.
            public_key: the key.
            request_id: of its submission.
            valid_at: when the submission was found valid, in seconds since the epoch.
            api_version: that the node asked by.
        """
        if len(self._keys) >= LIMIT:
            self._give_up([next(iter(self._keys.values()))])
        correlation = secrets.token_bytes(CORRELATION_BYTES)
        receipt_to = ReceiptAddress(self._receipt_topic, correlation) if self._receipt_topic else None
        origin = Origin(request_id, valid_at, receipt_to, api_version)
        key = UnconfirmedKey(domain, public_key, origin, correlation, _now())
        self._keys[correlation] = key
        return key

    def accept(self, key: UnconfirmedKey) -> None:
        """Note that the MQTT server has acknowledged a key: from now on it is sent again where that is needed."""
        key.accepted_at = _now()
        self._await_receipts(key)
        self._silences.accept(key.awaited, key.domain.name)
        self._drop_if_confirmed(key)

    def drop(self, key: UnconfirmedKey) -> None:
        """Forget a key: its node will send it again."""
        self._keys.pop(key.correlation, None)

    def find(self, correlation: bytes) -> UnconfirmedKey | None:
        """The key that a receipt refers to; None if it is confirmed, given up, or of another broker."""
        return self._keys.get(correlation)

    def confirm(self, key: UnconfirmedKey, receipt: Receipt) -> None:
        """Take in a gateway's receipt.

        What is installed remains so. A gateway that gave the key up may install it later, when it gets it again.
        """
        self._silences.end(receipt.worker, key.domain.name)
        before = key.receipts.get(receipt.worker)
        if before == "":
            return
        key.add_receipt(receipt.worker, receipt.reason)
        label = self._gateways.label(receipt.worker)
        if not receipt.reason:
            self._metrics.install_duration.labels(label).observe(
                _now() - key.begun_at, {"request_id": key.origin.request_id}
            )
        elif before is None:
            if receipt.reason not in KEY_REFUSALS:
                self._metrics.install_failures.labels(label).inc()
            _log.warning(
                "key_not_installed",
                worker=receipt.worker,
                reason=receipt.reason,
                domain=key.domain.name,
                request_id=key.origin.request_id,
            )
        self._await_receipts(key)
        self._drop_if_confirmed(key)

    def due(self, opened_at: float) -> list[tuple[UnconfirmedKey, str]]:
        """Find the keys that are to be sent again now, and the gateway for each.

        A pair stays due until it is given to `sent` or `refused`.

        Args:
            opened_at: when the connection with the MQTT server was begun. A gateway whose status has not come since
                may be gone, and gets nothing.
        """
        now = _now()
        found: list[tuple[UnconfirmedKey, str]] = []
        targets: dict[str, list[tuple[str, float, bool]]] = {}
        for key in self._keys.values():
            if key.accepted_at is None:
                continue
            domain = key.domain.name
            if domain not in targets:
                confirming = self._confirming(domain)
                online = self._gateways.online_in(domain, opened_at)
                targets[domain] = [(worker, since, worker in confirming) for worker, since in online.items()]
            for worker, since, confirms in targets[domain]:
                if worker in key.receipts:
                    continue
                sent_at = key.sent_at.get(worker, key.accepted_at)
                if next_due(key.accepted_at, sent_at, since, confirms=confirms) <= now:
                    found.append((key, worker))
        return found

    def sent(self, key: UnconfirmedKey, worker: str) -> None:
        """Note that a key was sent again to a gateway."""
        self._metrics.republished.labels(self._gateways.label(worker)).inc()
        key.sent_at[worker] = _now()
        self._await_receipts(key)

    def refused(self, key: UnconfirmedKey, worker: str) -> None:
        """Note that the MQTT server did not deliver a key to a gateway; it would not do so a second later."""
        key.sent_at[worker] = _now()

    def expire(self) -> None:
        """Give up the keys that are here for KEPT_FOR."""
        limit = _now() - KEPT_FOR
        expired = []
        for key in self._keys.values():
            if key.begun_at > limit:
                break
            expired.append(key)
        self._give_up(expired)

    def _await_receipts(self, key: UnconfirmedKey) -> None:
        """Await the receipts of all gateways that are online now, those that have just come included."""
        key.awaited |= self._confirming(key.domain.name) - key.receipts.keys()

    def _drop_if_confirmed(self, key: UnconfirmedKey) -> None:
        """Drop a key that all have confirmed. One that no gateway will confirm is kept for those that come online."""
        if key.accepted_at is not None and key.receipts and not key.awaited:
            self._conclude(key)

    def _give_up(self, keys: Iterable[UnconfirmedKey]) -> None:
        unconfirmed: Counter[str] = Counter()
        for key in keys:
            self._conclude(key)
            unconfirmed.update(key.awaited)
        for worker, count in unconfirmed.items():
            self._metrics.unconfirmed.labels(self._gateways.label(worker)).inc(count)
            _log.warning("keys_unconfirmed", worker=worker, count=count)

    def _conclude(self, key: UnconfirmedKey) -> None:
        """Drop a key, and count it if it has got nowhere, though some gateway was to confirm it.

        A key that a rule refuses, a gateway's own one for example, has no node that waits.
        """
        self.drop(key)
        promised = key.accepted_at is not None and (key.awaited or key.receipts)
        reasons = set(key.receipts.values())
        if promised and "" not in reasons and reasons.isdisjoint(KEY_REFUSALS):
            self._metrics.confirmed_nowhere.labels(key.domain.name).inc()

    def _confirming(self, domain: str) -> frozenset[str]:
        return self._gateways.confirming(domain) if self._receipt_topic else frozenset()


def _now() -> float:
    return asyncio.get_running_loop().time()
