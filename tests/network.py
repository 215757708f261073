"""A network of any size, minute by minute, as the series that Prometheus scrapes from its brokers and workers.

It has what decides about alerts: nodes that lose their tunnel and ask for another one, gateways that are chosen by
their number of peers, peers that stay active for some minutes after their node has left. What is broken is set at a
minute.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

Labels = tuple[tuple[str, str], ...]

DOMAINS: Final = ("ffmuc_nord", "ffmuc_ost", "ffmuc_welt")
BROKERS: Final = ("b1", "b2")
# Minutes in which a node notices that its tunnel is dead, and in which its peer is active and idle afterwards.
_NOTICES: Final = 3
_IDLE: Final = 180
# Minutes after which a node that asks counts as a new one.
_FORGOTTEN: Final = 5
_STATES: Final = ("active", "idle", "stale", "never")
_OPERATIONS: Final = ("peer_add", "peer_remove", "route_add", "route_remove", "fdb_add", "fdb_remove", "dump")


@dataclass
class Gateway:
    """One gateway.

    Attributes:
        name: as the brokers know it.
        started: the minute of its worker's start.
        answers: whether the worker runs, and is scraped.
        draining: whether brokers send no nodes there.
        closed: domains whose nodes have no handshakes here.
        active, idle: peers of each domain.
        sessions: that have begun, since the start.
        installs: keys, since the start.
    """

    name: str
    started: int = -600
    answers: bool = True
    draining: bool = False
    closed: set[str] = field(default_factory=set)
    active: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    idle: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    sessions: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    installs: int = 0

    @property
    def instance(self) -> str:
        """As Prometheus knows it."""
        return f"{self.name}:9691"


class Network:
    """Brokers, gateways and nodes.

    Args:
        nodes: how many there are.
        gateways: on how many gateways they are.
        cluster: the label of the site; empty for none.
        churn: part of the nodes that reboot or lose their line in an hour.
    """

    def __init__(self, nodes: int, gateways: int, cluster: str = "", churn: float = 0.1) -> None:
        self.gateways = [Gateway(f"gw{number + 1:02}") for number in range(gateways)]
        self.firmware_broken = False
        self.brokers_answer = True
        self.discovered = {"wgkex-broker", "wgkex-worker"}
        self.mqtt = True
        self.series: dict[tuple[str, Labels], list[float | None]] = {}
        self._cluster = cluster
        self._random = random.Random(nodes)
        self.churn = churn
        self._domain = [DOMAINS[number % len(DOMAINS)] for number in range(nodes)]
        self._where: list[Gateway | None] = [
            self.gateways[number // len(DOMAINS) % gateways] for number in range(nodes)
        ]
        self._asked = [-1000] * nodes
        self._sent_to: list[Gateway | None] = [None] * nodes
        self._later: dict[int, list[Callable[[], None]]] = defaultdict(list)
        self._counts: dict[tuple[str, Labels], int] = defaultdict(int)
        self._minute = 0
        for number, gateway in enumerate(self._where):
            assert gateway is not None
            gateway.active[self._domain[number]] += 1

    def at(self, minute: int, action: Callable[[], None]) -> None:
        """Break or repair something at the beginning of a minute."""
        self._later[minute].append(action)

    def run(self, minutes: int) -> None:
        """Let time pass, and write down what a scrape each minute finds."""
        for self._minute in range(minutes):
            for action in self._later.pop(self._minute, ()):
                action()
            leaving = self._random.random() + self.churn / 60 * len(self._domain)
            for node in self._random.sample(range(len(self._domain)), int(leaving)):
                if self._where[node] is not None:
                    self._leave(node)
                    self._soon(1, self._ask, node)
            found = self._scrape()
            for key in self.series.keys() | found.keys():
                self.series.setdefault(key, [None] * self._minute).append(found.get(key))

    # --- what can be broken

    def close_port(self, gateway: Gateway, *domains: str) -> None:
        """A firewall drops the packets of some domains, or of all: their sessions end, and none begins."""
        gateway.closed.update(domains or DOMAINS)
        for node, where in enumerate(self._where):
            if where is gateway and self._domain[node] in gateway.closed:
                self._leave(node)
                self._soon(_NOTICES, self._ask, node)

    def reboot(self, gateway: Gateway, minutes: int = 3, *, closed: bool = False) -> None:
        """The kernel forgets its peers; afterwards nobody gets through if its ports are closed."""
        gateway.answers = False
        gateway.active.clear()
        gateway.idle.clear()
        gateway.sessions.clear()
        gateway.installs = 0
        for node, where in enumerate(self._where):
            if where is gateway:
                self._where[node] = None
                self._soon(self._random.randint(1, _NOTICES), self._ask, node)

        def boot() -> None:
            gateway.answers, gateway.started = True, self._minute
            if closed:
                gateway.closed.update(DOMAINS)

        self.at(self._minute + minutes, boot)

    def cut_off_worker(self, gateway: Gateway) -> None:
        """Its worker does not answer; the tunnels stay, and no node is sent there."""
        gateway.answers = False

    def break_firmware(self, minutes: int) -> None:
        """Nodes install a firmware, one after the other, with which they send garbage in place of their key."""
        self.firmware_broken = True
        for node in range(len(self._domain)):
            self._soon(self._random.randrange(minutes), self._update, node)

    # --- nodes

    def _soon(self, minutes: int, action: Callable[[int], None], node: int) -> None:
        self._later[self._minute + max(1, minutes)].append(lambda: action(node))

    def _update(self, node: int) -> None:
        if self._where[node] is not None:
            self._leave(node)
        self._send_garbage(node)

    def _send_garbage(self, node: int) -> None:
        self._count("wgkex_broker_key_requests_total", "broker", api_version="v2", domain="unknown")
        self._count("wgkex_broker_key_rejections_total", "broker", reason="invalid_public_key")
        self._soon(1, self._send_garbage, node)

    def _leave(self, node: int) -> None:
        """The node's session ends. Its last handshake was up to two minutes ago."""
        gateway, domain = self._where[node], self._domain[node]
        assert gateway is not None
        started = gateway.started

        def silent() -> None:
            if gateway.started == started and gateway.active[domain]:
                gateway.active[domain] -= 1
                gateway.idle[domain] += 1

        def stale() -> None:
            if gateway.started == started and gateway.idle[domain]:
                gateway.idle[domain] -= 1

        silent_at = self._minute + self._random.randint(1, _NOTICES)
        self.at(silent_at, silent)
        self.at(silent_at + _IDLE, stale)
        self._where[node] = None

    def _ask(self, node: int) -> None:
        if not (self.brokers_answer and self.mqtt):
            if self.brokers_answer:
                self._count("wgkex_broker_key_requests_total", "broker", api_version="v2", domain=self._domain[node])
                self._count("wgkex_broker_key_failures_total", "broker", reason="mqtt_disconnected")
            self._soon(1, self._ask, node)
            return
        domain, last = self._domain[node], self._sent_to[node]
        again = self._minute - self._asked[node] <= _FORGOTTEN
        self._asked[node] = self._minute
        self._count("wgkex_broker_key_requests_total", "broker", api_version="v2", domain=domain)
        online = [gateway for gateway in self.gateways if gateway.answers]
        if not online:
            self._count("wgkex_broker_key_failures_total", "broker", reason="no_worker")
            self._soon(1, self._ask, node)
            return
        self._count("wgkex_broker_keys_published_total", "broker", domain=domain)
        if not again:
            self._count("wgkex_broker_key_first_requests_total", "broker", domain=domain)
        for gateway in online:
            gateway.installs += 1
            self._count("installed", "broker", worker=gateway.name)
        if again and last is not None:
            self._count("wgkex_broker_keys_returned_total", "broker", worker=last.name)
        takers = [gateway for gateway in online if not gateway.draining]
        others = [gateway for gateway in takers if not (again and gateway is last)] or takers
        chosen = min(others, key=lambda gateway: (sum(gateway.active.values()), self._random.random()))
        self._sent_to[node] = chosen
        self._count("wgkex_broker_worker_assigned_nodes_total", "broker", worker=chosen.name)
        if domain in chosen.closed:
            self._soon(1, self._ask, node)
        else:
            chosen.active[domain] += 1
            chosen.sessions[domain] += 1
            self._where[node] = chosen

    def _count(self, name: str, job: str, **labels: str) -> None:
        # Brokers share the nodes.
        instance = f"{BROKERS[self._random.randrange(len(BROKERS))]}:9690"
        self._counts[name, self._labels(job, instance, **labels)] += 1

    # --- series

    def _labels(self, job: str, instance: str, **labels: str) -> Labels:
        site = {"cluster": self._cluster} if self._cluster else {}
        return tuple({"job": f"wgkex-{job}", "instance": instance, **site, **labels}.items())

    def _scrape(self) -> dict[tuple[str, Labels], float]:
        found: dict[tuple[str, Labels], float] = {}
        for job, instance, answers, series in (
            *((("broker"), f"{name}:9690", self.brokers_answer, self._broker(name)) for name in BROKERS),
            *(("worker", each.instance, each.answers, self._worker(each)) for each in self.gateways),
        ):
            if f"wgkex-{job}" not in self.discovered:
                continue
            found["up", self._labels(job, instance)] = float(answers)
            if answers:
                found |= {(name, self._labels(job, instance, **labels)): value for name, labels, value in series}
        return found

    def _process(self, started: int) -> Iterator[tuple[str, dict[str, str], float]]:
        yield "wgkex_mqtt_connected", {}, self.mqtt
        yield "wgkex_mqtt_disconnects_total", {}, 0
        yield "wgkex_time_seconds", {}, 60 * self._minute
        yield "wgkex_key_list_last_reload_successful", {}, 1
        yield "wgkex_mqtt_certificate_expiry_timestamp_seconds", {}, 60 * 86_400
        yield "process_start_time_seconds", {}, 60 * started
        yield "process_open_fds", {}, 40
        yield "process_max_fds", {}, 1024
        yield "process_resident_memory_bytes", {}, 80e6

    def _broker(self, name: str) -> Iterator[tuple[str, dict[str, str], float]]:
        instance = f"{name}:9690"

        def count(metric: str, **labels: str) -> tuple[str, dict[str, str], float]:
            return metric, labels, self._counts[metric, self._labels("broker", instance, **labels)]

        yield from self._process(-600)
        yield "wgkex_broker_info", {"broker": name}, 1
        for reason in ("mqtt_disconnected", "no_worker"):
            yield count("wgkex_broker_key_failures_total", reason=reason)
        yield count("wgkex_broker_key_rejections_total", reason="invalid_public_key")
        yield count("wgkex_broker_rate_limited_total", limit="network")
        yield count("wgkex_broker_key_requests_total", api_version="v2", domain="unknown")
        for domain in DOMAINS:
            yield count("wgkex_broker_key_requests_total", api_version="v2", domain=domain)
            yield count("wgkex_broker_key_first_requests_total", domain=domain)
            yield count("wgkex_broker_keys_published_total", domain=domain)
            yield "wgkex_broker_keys_confirmed_nowhere_total", {"domain": domain}, 0
        total = sum(sum(gateway.active.values()) for gateway in self.gateways)
        takers = sum(not gateway.draining for gateway in self.gateways)
        for gateway in self.gateways:
            worker = {"worker": gateway.name}
            installed = self._counts["installed", self._labels("broker", instance, worker=gateway.name)]
            for bound in ("1.0", "10.0", "30.0", "+Inf"):
                yield "wgkex_broker_key_install_duration_seconds_bucket", {**worker, "le": bound}, installed
            yield "wgkex_broker_key_install_duration_seconds_count", worker, installed
            yield "wgkex_broker_key_install_failures_total", worker, 0
            yield "wgkex_broker_keys_unconfirmed_total", worker, 0
            yield count("wgkex_broker_keys_returned_total", worker=gateway.name)
            yield count("wgkex_broker_worker_assigned_nodes_total", worker=gateway.name)
            yield "wgkex_broker_worker_confirming", worker, 1
            yield "wgkex_broker_worker_online", worker, gateway.answers
            yield "wgkex_broker_worker_target_peers", worker, 0 if gateway.draining else total / takers
            for domain in DOMAINS:
                yield "wgkex_broker_worker_peers", {**worker, "domain": domain}, gateway.active[domain]

    def _worker(self, gateway: Gateway) -> Iterator[tuple[str, dict[str, str], float]]:
        yield from self._process(gateway.started)
        yield "wgkex_worker_info", {"worker": gateway.name}, 1
        yield "wgkex_worker_collector_success", {"collector": "wireguard"}, 1
        yield "wgkex_worker_draining", {}, gateway.draining
        yield "wgkex_worker_journal_up", {}, 1
        yield "wgkex_worker_message_rejections_total", {"reason": "table_full"}, 0
        yield "wgkex_worker_queue_length", {}, 0
        yield "wgkex_worker_queue_capacity", {}, 20_000
        yield "wgkex_worker_cleanup_last_success_timestamp_seconds", {}, 600 * (self._minute // 10)
        for operation in _OPERATIONS:
            yield "wgkex_worker_netlink_operations_total", {"operation": operation}, gateway.installs
            labels = {"operation": operation, "error": "EPERM"}
            yield "wgkex_worker_netlink_operation_failures_total", labels, 0
        for domain in DOMAINS:
            counts = {"active": gateway.active[domain], "idle": gateway.idle[domain]}
            for state in _STATES:
                yield "wgkex_worker_peers", {"domain": domain, "state": state}, counts.get(state, 0)
            yield "wgkex_worker_peers_evicted_total", {"domain": domain}, 0
            yield "wgkex_worker_peer_sessions_started_total", {"domain": domain}, gateway.sessions[domain]
            for part in ("route", "fdb", "peer"):
                yield "wgkex_worker_incomplete_peers", {"domain": domain, "missing": part}, 0
            for interface in (domain.replace("ffmuc_", "wg-"), domain.replace("ffmuc_", "vx-")):
                labels = {"domain": domain, "interface": interface}
                yield "wgkex_worker_interface_up", labels, 1
                for direction in ("receive", "transmit"):
                    name = f"wgkex_worker_interface_{direction}_bytes_total"
                    yield name, labels, 60_000 * (self._minute - gateway.started)

    def input_series(self) -> list[dict[str, str]]:
        """As promtool takes them."""
        return [
            {
                "series": name + "{" + ", ".join(f'{label}="{value}"' for label, value in labels) + "}",
                "values": _notation(values),
            }
            for (name, labels), values in self.series.items()
        ]


def _notation(values: list[float | None]) -> str:
    """`5x3` is 5 four times. A series ends with a mark, as when a scrape finds it no more."""
    texts = []
    known: float | None = None
    for value, run in groupby(values):
        length = len(list(run)) - 1
        if value is None:
            texts += ["stale"] if known is not None else ["_"]
            texts += [f"_x{length}"] if length else []
        else:
            texts.append(f"{value:.12g}x{length}")
        known = value
    return " ".join(texts)
