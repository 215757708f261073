"""Recording rules about nodes: which keys gateways confirm, and which nodes come back.

The broker counts a node that keeps asking once in 15 minutes for each gateway that it is sent to. So over WINDOW the
counts are numbers of different nodes.
"""

from typing import Final

from alerts.recording import PEERS, Rule
from alerts.settings import Settings

# Part of the names of the recorded series, and the time in which a broker counts a node once.
WINDOW: Final = "15m"

AWAITED: Final = f"worker:wgkex_broker_keys_awaited:increase{WINDOW}"
UNCONFIRMED: Final = f"worker:wgkex_broker_keys_unconfirmed:increase{WINDOW}"
UNCONFIRMED_RATIO: Final = f"worker:wgkex_broker_keys_unconfirmed:ratio{WINDOW}"
UNCONFIRMED_RATIO_IN_ALL: Final = f"job:wgkex_broker_keys_unconfirmed:ratio{WINDOW}"
NOWHERE: Final = f"domain:wgkex_broker_keys_confirmed_nowhere:increase{WINDOW}"
NOWHERE_RATIO: Final = f"domain:wgkex_broker_keys_confirmed_nowhere:ratio{WINDOW}"

ASSIGNED: Final = f"worker:wgkex_broker_worker_assigned_nodes:increase{WINDOW}"
RETURNED: Final = f"worker:wgkex_broker_keys_returned:increase{WINDOW}"
RETURNED_RATIO: Final = f"worker:wgkex_broker_keys_returned:ratio{WINDOW}"
NETWORK_PEERS: Final = "job:wgkex_broker_worker_peers:sum"


def node_recording_groups(settings: Settings) -> list[Rule]:
    """The groups of recording rules."""
    return [
        {"name": "wgkex-receipts", "rules": _receipts(settings)},
        {"name": "wgkex-nodes", "rules": _nodes(settings)},
    ]


def _receipts(settings: Settings) -> list[Rule]:
    """Keys that a gateway which sends receipts has not installed: it gave them up, or has never confirmed them.

    The same key is counted for each gateway of its domain. Gateways that send no receipts are in neither sum. Keys
    refused by a rule are not either: the broker counts them nowhere.
    """
    selector = f"{{{settings.broker}}}[{settings.window(WINDOW)}]"
    confirmed, missing, given_up = (
        f'label_replace(increase({counter}{selector}), "outcome", "{outcome}", "", "")'
        for counter, outcome in (
            ("wgkex_broker_key_install_duration_seconds_count", "confirmed"),
            ("wgkex_broker_keys_unconfirmed_total", "missing"),
            ("wgkex_broker_key_install_failures_total", "given_up"),
        )
    )

    def total(*outcomes: str) -> str:
        return f"sum {settings.by('job', 'worker')} (\n  " + "\n  or\n  ".join(outcomes) + "\n)"

    def of_domain(counter: str) -> str:
        return f"sum {settings.by('job', 'domain')} (increase({counter}{selector}))"

    by = settings.by("job")
    return [
        {"record": UNCONFIRMED, "expr": total(missing, given_up)},
        {"record": AWAITED, "expr": total(confirmed, missing, given_up)},
        {"record": UNCONFIRMED_RATIO, "expr": f"{UNCONFIRMED}\n/ ({AWAITED} > 0)"},
        {"record": UNCONFIRMED_RATIO_IN_ALL, "expr": f"sum {by} ({UNCONFIRMED})\n/ (sum {by} ({AWAITED}) > 0)"},
        {"record": NOWHERE, "expr": of_domain("wgkex_broker_keys_confirmed_nowhere_total")},
        {"record": NOWHERE_RATIO, "expr": f"{NOWHERE}\n/ ({of_domain('wgkex_broker_keys_published_total')} > 0)"},
    ]


def _nodes(settings: Settings) -> list[Rule]:
    selector = f"{{{settings.broker}}}[{settings.window(WINDOW)}]"
    by = settings.by("job", "worker")
    return [
        {"record": ASSIGNED, "expr": f"sum {by} (increase(wgkex_broker_worker_assigned_nodes_total{selector}))"},
        {"record": RETURNED, "expr": f"sum {by} (increase(wgkex_broker_keys_returned_total{selector}))"},
        {"record": RETURNED_RATIO, "expr": f"{RETURNED}\n/ ({ASSIGNED} > 0)"},
        {"record": NETWORK_PEERS, "expr": f"sum {settings.by('job')} ({PEERS})"},
    ]
