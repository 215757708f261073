"""The broker's page: gateways, domains, and what became of the keys."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from wgkex_ops.http.clients import LIKELY_CAUSE, ForwardingWatch
from wgkex_ops.http.gateways.registry import Gateway, Gateways
from wgkex_ops.http.gateways.silence import LIKELY_CAUSES, Silences
from wgkex_ops.http.operator.page.common import MqttView, Recent, about, by_wall_clock, notices_of_lists, reasons
from wgkex_ops.http.operator.page.history import History
from wgkex_ops.http.operator.page.parts import Notice, Page, Table, Tile, Tone
from wgkex_ops.http.operator.page.rendering import ago, bar, lines, name, names, quiet, state
from wgkex_ops.metrics.broker import GatewayMetrics, KeyMetrics, NodeMetrics, ReceiptMetrics
from wgkex_ops.model.names import UNKNOWN
from wgkex_ops.model.words import count, things

# Seconds. A receipt comes within one; a key that waits for so long has been sent a second time in vain.
_UNCONFIRMED_AFTER: Final = 15.0


@dataclass(kw_only=True, eq=False)
class BrokerView:
    """Makes the page. Cheap enough for the event loop, on which the gateways' state may be read.

    Attributes:
        domains: names of the configured domains.
        listed: names of the configured workers; empty if any worker is accepted.
        searchable: whether gateways can be asked (MQTT 5).
        lists_problem: why the file of the key lists cannot be read; empty if it can.
        problems: why this process is not ready, a sentence each.
        clock: of the history; seconds, never set back.
        history: of the counters; its task is for the owner to run.
    """

    name: str
    domains: Sequence[str]
    listed: Collection[str]
    gateways: Gateways
    silences: Silences
    keys: KeyMetrics
    gateway_metrics: GatewayMetrics
    receipt_metrics: ReceiptMetrics
    node_metrics: NodeMetrics
    forwarding: ForwardingWatch
    mqtt: MqttView
    searchable: bool
    lists_problem: Callable[[], str]
    problems: Callable[[], Sequence[str]]
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        keys, gateways, receipts = self.keys, self.gateway_metrics, self.receipt_metrics
        counters = (
            *(
                keys.published,
                keys.rejections,
                keys.rate_limited,
                keys.failures,
                gateways.assignments,
                gateways.messages_rejected,
            ),
            *(receipts.unconfirmed, receipts.confirmed_nowhere, self.node_metrics.returned),
        )
        self.history = History([*counters, *self.mqtt.counters], self.clock)

    async def page(self) -> Page:
        """Make the page of this moment."""
        now, recent = time.time(), Recent.of(self.history)
        return Page(
            component="broker",
            name=self.name,
            now=now,
            problems=self.problems(),
            notices=[
                *self._notices_of_gateways(),
                *self._notices_of_receipts(recent),
                *self._notices_of_keys(recent),
                *self._notices_of_clients(recent),
                *notices_of_lists(self.lists_problem()),
                *self.mqtt.notices(recent),
            ],
            tiles=[
                recent.tile("Keys accepted", self.keys.published),
                self._tile_of_failures(recent),
                self._tile_of_gateways(),
                self.mqtt.tile(),
            ],
            tables=[self._gateways_table(recent, now), self._domains_table(recent), self._keys_table(recent)],
            facts={
                "MQTT": self.mqtt.facts(recent, now),
                "This broker": {
                    **about(self.history, now),
                    "Other brokers online": count(self.gateways.brokers_online - 1),
                },
            },
            search="" if self.searchable else None,
        )

    # --- gateways

    def _gateways_table(self, recent: Recent, now: float) -> Table:
        workers = sorted(self.gateways.workers.items())
        targets = self.gateways.targets()
        scale = max([*targets.values(), *(gateway.peers for _, gateway in workers)], default=0)
        note = "" if workers else "No gateway has been heard of yet, and none is listed under workers."
        if any(map(self._is_unlisted, self.gateways.workers)):
            counts = zip(recent.counts(self.gateway_metrics.assignments, UNKNOWN), recent.shown, strict=True)
            assigned = ", ".join(f"{number} {window.words}" for number, window in counts)
            note = (
                f"Gateways that are not listed under workers are counted together; nodes assigned to them: {assigned}."
            )
        return Table(
            "Gateways",
            "The bar shows a gateway's connected peers, the mark in it how many its weight asks for",
            {
                "Gateway": "",
                "State": "",
                "Peers": "wide",
                "Last heard": "",
                **recent.columns("Assigned"),
                f"Nodes that came back, {recent.latest.heading}": "count",
            },
            [
                [
                    name(worker)
                    + (" " + quiet("not listed") if self._is_unlisted(worker) else "")
                    + (" " + quiet(gateway.version) if gateway.version else ""),
                    self._state(worker, gateway),
                    _peers(gateway, targets[worker], scale),
                    quiet("never") if gateway.last_seen is None else ago(by_wall_clock(gateway.last_seen, now), now),
                    *self._sent_here(worker, recent),
                ]
                for worker, gateway in workers
            ],
            note,
        )

    def _is_unlisted(self, worker: str) -> bool:
        return bool(self.listed) and worker not in self.listed

    def _state(self, worker: str, gateway: Gateway) -> str:
        if gateway.last_seen is None:
            return state(Tone.WARN, "not heard of")
        if not gateway.online:
            return state(Tone.BAD, "offline")
        if worker in self.silences.silent:
            return state(Tone.BAD, "confirms nothing")
        # Old workers do not promise it; of one that has announced nothing yet, nobody knows.
        confirms = "confirms keys" if gateway.confirming else "confirms no keys: an older worker, or MQTT 3.1.1"
        pieces = [quiet(confirms)] if gateway.endpoints else []
        if gateway.draining:
            return lines(state(Tone.WARN, "draining"), *pieces)
        if not self.gateways.wants_nodes(worker):
            pieces.append(quiet("weight 0: no new nodes"))
        if refused := self._refused(gateway):
            pieces.append(quiet("not ready for nodes of " + names(refused)))
        online = state(Tone.GOOD, "online")
        return lines(online, *pieces) if pieces else online

    def _refused(self, gateway: Gateway) -> list[str]:
        """The domains whose nodes are not sent to a gateway."""
        return [domain for domain in self.domains if not gateway.takes_nodes_of(domain)]

    def _sent_here(self, worker: str, recent: Recent) -> list[str]:
        """Assignments by window, and the nodes that came back lately."""
        if self._is_unlisted(worker):
            return [quiet("see below")] * (len(recent.shown) + 1)
        returned = recent.latest.increases[self.node_metrics.returned].get(worker, 0)
        return [*recent.counts(self.gateway_metrics.assignments, worker), count(returned)]

    def _tile_of_gateways(self) -> Tile:
        gateways = self.gateways.workers.values()
        online = sum(gateway.online for gateway in gateways)
        tone = Tone.BAD if not online else Tone.WARN if online < len(gateways) else Tone.GOOD
        peers = things(sum(gateway.peers for gateway in gateways), "connected peer")
        return Tile("Gateways online", f"{count(online)} of {count(len(gateways))}", peers, tone)

    def _notices_of_gateways(self) -> Iterator[Notice]:
        workers = dict(sorted(self.gateways.workers.items()))
        online = {worker: gateway for worker, gateway in workers.items() if gateway.online}
        silent = [worker for worker, gateway in workers.items() if gateway.last_seen is None]
        if not self.mqtt.connection.connected:
            yield Notice(Tone.WARN, "Without a connection to MQTT, what is shown of the gateways may be out of date")
        if not online:
            yield Notice(Tone.BAD, "No gateway is online: nodes cannot be sent to any")
        yield from Notice.about(Tone.WARN, "Offline", [w for w in workers if w not in online and w not in silent])
        yield from Notice.about(Tone.WARN, "Not heard of", silent)
        unlisted = [worker for worker in workers if self._is_unlisted(worker)]
        yield from Notice.about(Tone.WARN, "Not listed under workers, so they weigh 1", unlisted)
        draining = [worker for worker, gateway in online.items() if gateway.draining]
        yield from Notice.about(Tone.WARN, "Draining: no new nodes are sent there", draining)
        partly = [worker for worker, gateway in online.items() if self._refused(gateway) and not gateway.draining]
        yield from Notice.about(Tone.WARN, "Online, but not ready for nodes of all domains", partly)
        abandoned = [domain for domain in self.domains if not self._takers(domain)]
        # That there is no gateway for any domain is shown above.
        if len(abandoned) < len(self.domains):
            yield from Notice.about(Tone.BAD, "Domains without a gateway", abandoned)

    def _notices_of_receipts(self, recent: Recent) -> Iterator[Notice]:
        latest, metrics = recent.latest, self.receipt_metrics
        if lost := latest.total(metrics.confirmed_nowhere):
            text = f"{things(lost, 'key')} confirmed by no gateway {latest.words}: their nodes have no tunnel"
            yield Notice(Tone.BAD, text)
        waiting = sorted({silence.worker for silence in self.silences.waiting(_UNCONFIRMED_AFTER)})
        tone = Tone.BAD if self.silences.silent else Tone.WARN
        yield from Notice.about(tone, f"No receipt for the latest keys; {LIKELY_CAUSES}", waiting)
        if unconfirmed := latest.total(metrics.unconfirmed):
            gateways = [f"{worker} ({number})" for worker, number in latest.increases[metrics.unconfirmed].items()]
            yield Notice(Tone.WARN, f"{things(unconfirmed, 'key')} never confirmed {latest.words}, by", gateways)

    # --- domains and keys

    def _domains_table(self, recent: Recent) -> Table:
        return Table(
            "Domains",
            "Gateways that take a domain's nodes, their connected peers, and keys that were accepted",
            {"Domain": "", "Gateways": "", "Peers": "", **recent.columns("Keys")},
            [
                [
                    name(domain),
                    count(self._takers(domain)) if self._takers(domain) else state(Tone.BAD, "none"),
                    count(sum(gateway.peers_in(domain) for gateway in self.gateways.workers.values())),
                    *recent.counts(self.keys.published, domain),
                ]
                for domain in self.domains
            ],
        )

    def _takers(self, domain: str) -> int:
        """How many gateways take nodes of a domain."""
        return sum(gateway.takes_nodes_of(domain) for gateway in self.gateways.workers.values())

    def _keys_table(self, recent: Recent) -> Table:
        return Table(
            "Keys",
            "A node whose key is rejected or fails gets no tunnel, and asks again within a minute",
            {"Outcome": "", **recent.columns()},
            [
                recent.row("Accepted", self.keys.published),
                *recent.rows_by_reason("Rejected: the sender's fault", self.keys.rejections),
                *recent.rows_by_reason("Failed: our fault", self.keys.failures, Tone.BAD),
            ],
            cards=False,
        )

    def _tile_of_failures(self, recent: Recent) -> Tile:
        failed = recent.latest.total(self.keys.failures)
        return Tile("Keys failed", count(failed), recent.latest.words, Tone.BAD if failed else Tone.GOOD)

    def _notices_of_keys(self, recent: Recent) -> Iterator[Notice]:
        latest = recent.latest
        if failed := latest.total(self.keys.failures):
            text = f"{things(failed, 'key')} failed {latest.words}: {reasons(latest, self.keys.failures)}"
            yield Notice(Tone.BAD, text)
        if refused := latest.total(self.gateway_metrics.messages_rejected):
            text = f"{things(refused, 'message')} of workers or brokers refused {latest.words}; the log has the reasons"
            yield Notice(Tone.WARN, text)

    def _notices_of_clients(self, recent: Recent) -> Iterator[Notice]:
        if suspect := self.forwarding.suspect:
            text = f"All requests come from {suspect}: {LIKELY_CAUSE} Its nodes share one client's limits"
            yield Notice(Tone.WARN, text)
        if limited := recent.latest.total(self.keys.rate_limited):
            text = f"{things(limited, 'key')} refused {recent.latest.words}, because there were too many"
            yield Notice(Tone.WARN, f"{text}: {reasons(recent.latest, self.keys.rate_limited)}")


def _peers(gateway: Gateway, target: float, scale: float) -> str:
    if all(peers is None for peers in gateway.reported.values()):
        return quiet("unknown") + f", target {count(target)}"
    return f"{count(gateway.peers)}, target {count(target)}" + bar({"active": gateway.peers}, scale, target)
