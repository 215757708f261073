"""Alerting rules, in groups.

What they have in common:

- A gauge at 0 is queried as `max_over_time(x[…]) == 0`: one failed scrape does not reset the alert.
- A missing series fires nothing. So a job that vanishes has alerts of its own, and WgkexNoWorkersOnline starts from the
  brokers, because there may be no series of a worker at all.
- Each ratio is one of sums, with a minimum of events: two of three is no trend.
- Mistakes of senders count in WgkexKeyRejectionsHigh only, which pages nobody.
"""

from alerts.canary import canary
from alerts.gateways import gateways
from alerts.keys import keys
from alerts.mqtt import mqtt
from alerts.nodes import nodes
from alerts.peers import peers
from alerts.processes import processes
from alerts.receipts import receipts
from alerts.recording import Rule
from alerts.resources import resources
from alerts.settings import Settings


def alerting_groups(settings: Settings) -> list[Rule]:
    """The groups of alerting rules."""
    return [
        {"name": name, "rules": [alert.rule(settings) for alert in alerts]}
        for name, alerts in (
            ("wgkex-alerts-processes", processes(settings)),
            ("wgkex-alerts-mqtt", mqtt(settings)),
            ("wgkex-alerts-keys", keys(settings)),
            ("wgkex-alerts-gateways", gateways(settings)),
            ("wgkex-alerts-peers", peers(settings)),
            ("wgkex-alerts-receipts", receipts(settings)),
            ("wgkex-alerts-nodes", nodes(settings)),
            ("wgkex-alerts-resources", resources(settings)),
            ("wgkex-alerts-canary", canary(settings)),
        )
    ]
