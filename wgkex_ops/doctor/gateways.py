"""What a running broker knows of gateways and load balancers."""

import re
from typing import Final

from wgkex_ops.doctor.findings import Finding, critical, ok, warning
from wgkex_ops.doctor.process import Presence, Process
from wgkex_ops.http.clients import LIKELY_CAUSE

# So many keys that a gateway has left without any receipt since the broker's start are no accident.
_MANY_KEYS: Final = 5


def check_gateways(process: Process) -> list[Finding]:
    """Whether nodes can be sent to the gateways, and these confirm what they install."""
    if process.presence is not Presence.OURS:
        return []
    metrics = process.metrics
    online = metrics.by("wgkex_broker_worker_online", "worker")
    # A sum over all that are not listed, which may be none.
    online.pop("unknown", None) if not online.get("unknown") else None
    if not any(online.values()):
        text = "no gateway is online: nodes get no tunnel"
        remedy = "run wgkex-ops doctor worker on a gateway; mqtt_read above, if it is not green, may be the cause"
        return [critical("gateways", text, remedy)]
    found = []
    if offline := sorted(worker for worker, value in online.items() if not value):
        remedy = "run wgkex-ops doctor worker there; one that is retired: take it out of workers (docs/drain.md)"
        found.append(warning("gateways", f"offline: {', '.join(offline)}", remedy))
    confirming = metrics.by("wgkex_broker_worker_confirming", "worker")
    if silent := sorted(worker for worker, value in confirming.items() if not value and online.get(worker)):
        text = f"no receipts for the latest keys from {', '.join(silent)}: version 2 sends nobody there"
        remedy = "run wgkex-ops doctor worker there; wgkex.acl: it must read wireguard/+/all and write wgkex/receipts/+"
        found.append(critical("gateways", text, remedy))
    published = metrics.total("wgkex_broker_keys_published_total")
    confirmed = metrics.by("wgkex_broker_key_install_duration_seconds_count", "worker")
    failed = metrics.by("wgkex_broker_key_install_failures_total", "worker")
    old = sorted(
        worker
        for worker, value in online.items()
        if value and worker not in silent and not confirmed.get(worker) and not failed.get(worker)
    )
    if old and published >= _MANY_KEYS:
        text = f"{', '.join(old)} has confirmed none of {published:.0f} keys: an old worker, or one with MQTT 3.1.1"
        remedy = 'upgrade its worker, or set mqtt.version to "5" there; until then lost keys are not sent again'
        found.append(warning("gateways", text, remedy))
    return found or [ok("gateways", f"online: {', '.join(sorted(online))}")]


def check_proxies(process: Process) -> list[Finding]:
    """Whether a load balancer names the clients that it forwards for."""
    if process.presence is not Presence.OURS:
        return []
    if LIKELY_CAUSE not in process.page:
        return [ok("proxies", "requests do not all come from one client")]
    match = re.search(r"All requests come from ([0-9a-fA-F.:]+): ", process.page)
    text = f"all nodes seem to come from {match[1] if match else 'one address'}, and share one client's limits"
    remedy = "let the load balancer set X-Forwarded-For; if it is none, take its network out of broker.trusted_proxies"
    return [critical("proxies", text, remedy)]
