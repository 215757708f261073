"""Alerting rules: who is told what, and when.

How they are made:

- A gauge that fell to 0 is asked for as `max_over_time(x[…]) == 0`: one failed scrape does not start the clock anew.
- A series that is not there fires nothing by itself. What is missed when a job vanishes has alerts of its own, and
  WgkexNoWorkersOnline asks for brokers first, as there may be no series of a worker at all.
- Each ratio is one of sums, with a least number of events: two of three is no trend.
- What senders get wrong is nowhere but in WgkexKeyRejectionsHigh, which pages nobody.
"""

from alerts.gateways import gateways
from alerts.keys import keys
from alerts.mqtt import mqtt
from alerts.peers import peers
from alerts.processes import processes
from alerts.recording import Rule
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
        )
    ]
