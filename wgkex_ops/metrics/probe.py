"""Instruments of the canary."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from wgkex_ops.model.rounds import PHASES


class ProbeMetrics:
    """What the canary sees of the service."""

    def __init__(self, registry: CollectorRegistry, domains: Iterable[str]) -> None:
        self.success = Gauge(
            "wgkex_probe_success",
            "1 if the last round of the canary got a tunnel and a VXLAN packet of the mesh; 0 if a node would get none,"
            " and before the first round.",
            ["domain"],
            registry=registry,
        )
        self.duration = Gauge(
            "wgkex_probe_duration_seconds",
            "How long each phase of the last round took; absent for a phase that was not completed: the first of these"
            " is the one that failed.",
            ["domain", "phase"],
            registry=registry,
        )
        self.last_success = Gauge(
            "wgkex_probe_last_success_timestamp_seconds",
            "When the canary last completed a round through a gateway; 0 if it never has since it started.",
            ["domain", "gateway"],
            registry=registry,
        )
        self.rounds = Counter(
            "wgkex_probe_rounds",
            "Rounds of the canary; if it stops rising, the canary hangs, and shows nothing.",
            ["domain"],
            registry=registry,
        )
        self.failures = Counter(
            "wgkex_probe_failures",
            "Rounds that failed, by the phase: post is the broker, handshake the key on the gateway or its UDP port,"
            " vxlan the mesh behind it.",
            ["domain", "phase"],
            registry=registry,
        )
        for domain in domains:
            self.success.labels(domain)
            self.rounds.labels(domain)
            for phase in PHASES:
                self.failures.labels(domain, phase)
