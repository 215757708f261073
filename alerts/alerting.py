"""Alerting rules: who is told what, and when.

How they are made:

- A gauge that fell to 0 is asked for as `max_over_time(x[…]) == 0`: one failed scrape does not start the clock anew.
- A series that is not there fires nothing by itself. What is missed when a job vanishes has alerts of its own, and
  WgkexNoWorkersOnline asks for brokers first, as there may be no series of a worker at all.
- Each ratio is one of sums, with a least number of events: two of three is no trend.
- What senders get wrong is nowhere but in WgkexKeyRejectionsHigh, which pages nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from alerts.recording import ONLINE, PEERS, SHARE, Rule, failures_rate, valid_rate
from alerts.settings import Burn, Settings


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule.

    Attributes:
        name: in the runbook, there is a section of this name.
        severity: `critical` pages, `warning` opens a ticket, `none` is for machines.
        expr: fires for each series of it.
        hold: nominal duration before it fires; None for at once.
        summary: one fixed sentence.
        description: templated: where, how much, what users feel, what to do first.
        labels: further labels.
        keep: nominal duration for which it goes on firing afterwards; None for not at all.
    """

    name: str
    severity: str
    expr: str
    hold: str | None
    summary: str
    description: str
    labels: Mapping[str, str] = field(default_factory=dict)
    keep: str | None = None

    def rule(self, settings: Settings) -> Rule:
        """The rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            **({"for": settings.span(self.hold)} if self.hold else {}),
            **({"keep_firing_for": settings.span(self.keep)} if self.keep else {}),
            # Alertmanager's inhibition rules compare `service`, which all of them carry.
            "labels": {"service": "wgkex", "severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{settings.runbook}#{self.name.lower()}",
            },
        }


def alerting_groups(settings: Settings) -> list[Rule]:
    """The groups of alerting rules."""
    return [
        {"name": name, "rules": [alert.rule(settings) for alert in alerts]}
        for name, alerts in (
            ("wgkex-alerts-processes", _processes(settings)),
            ("wgkex-alerts-mqtt", _mqtt(settings)),
            ("wgkex-alerts-keys", _keys(settings)),
            ("wgkex-alerts-gateways", _gateways(settings)),
            ("wgkex-alerts-peers", _peers(settings)),
        )
    ]


def _processes(settings: Settings) -> list[Alert]:
    short, gap, crash = (settings.window(w) for w in (settings.short_gap, settings.gap, settings.crash_window))
    up = f"max_over_time(up{{{settings.broker}}}[{short}])"
    return [
        Alert(
            name="WgkexBrokerDown",
            severity="critical",
            # One that answers is enough. The value is the number of those that do not.
            expr=f"count by (job) ({up} == 0)\nunless on (job) ({up} == 1)",
            hold="2m",
            summary="No wgkex broker answers.",
            description=(
                "None of the {{ $value }} targets of job {{ $labels.job }} answers Prometheus. Routers that lose their "
                "tunnel now get no new one. Look first whether the service runs: systemctl status wgkex-broker."
            ),
        ),
        _absent("WgkexBrokerAbsent", settings.broker_job, "Prometheus no longer knows any wgkex broker."),
        _absent("WgkexWorkerAbsent", settings.worker_job, "Prometheus no longer knows any wgkex worker."),
        Alert(
            name="WgkexTargetDown",
            severity="warning",
            expr=f"max_over_time(up{{{settings.both}}}[{gap}]) == 0",
            hold="10m",
            summary="A wgkex process does not answer.",
            description=(
                "{{ $labels.instance }} of job {{ $labels.job }} does not answer Prometheus. A broker that is down "
                "leaves the work to the others; a gateway whose worker is down takes no new routers. Look first "
                "whether the host and the service are up."
            ),
        ),
        Alert(
            name="WgkexCrashlooping",
            severity="warning",
            expr=f"changes(process_start_time_seconds{{{settings.both}}}[{crash}]) > {settings.crash_starts}",
            hold="5m",
            summary="A wgkex process starts again and again.",
            description=(
                "{{ $labels.instance }} of job {{ $labels.job }} has started {{ $value }} times within "
                f"{settings.span(settings.crash_window)}. Keys that are on their way come late, and some "
                "routers wait until they ask again. Read the end of its log first: the reason is in the last lines."
            ),
        ),
        Alert(
            name="WgkexCollectorFailing",
            severity="warning",
            expr=f"max_over_time(wgkex_worker_collector_success{{{settings.worker}}}[{gap}]) == 0",
            hold="10m",
            summary="A worker cannot read the kernel, and its metrics are blind.",
            description=(
                "The collector {{ $labels.collector }} on {{ $labels.instance }} fails. Nobody sees the gateway's "
                "peers and interfaces, and brokers may send it no routers. Look first for snapshot_failed in the "
                "worker's log."
            ),
        ),
        Alert(
            name="WgkexWatchdog",
            severity="none",
            expr="vector(1)",
            hold=None,
            summary="Alerts get through.",
            description=(
                "This alert always fires. Whoever watches it from outside raises an alarm when it no longer arrives: "
                "then Prometheus, Alertmanager or the way between them is broken."
            ),
        ),
    ]


def _absent(name: str, job: str, summary: str) -> Alert:
    return Alert(
        name=name,
        severity="critical",
        expr=f'absent(up{{job="{job}"}})',
        hold="10m",
        summary=summary,
        description=(
            "No target of job {{ $labels.job }} is left in Prometheus, so no other alert can tell of it. Users may "
            "feel nothing yet. Look first at the scrape configuration and at service discovery."
        ),
    )


def _mqtt(settings: Settings) -> list[Alert]:
    short, flapping = settings.window(settings.short_gap), settings.window(settings.flapping_window)
    connected = f"max_over_time(wgkex_mqtt_connected{{{settings.both}}}[{short}])"
    losses = f"round(increase(wgkex_mqtt_disconnects_total{{{settings.both}}}[{flapping}]))"
    return [
        Alert(
            name="WgkexMQTTDown",
            severity="critical",
            # One that has a session is enough. The value is the number of those that have none.
            expr=f"count({connected} == 0)\nunless on () ({connected} == 1)",
            hold="1m",
            # What follows from it resolves when the last process is back, and is not to be told in between.
            keep=settings.mqtt_keep,
            summary="The MQTT server of wgkex is gone.",
            description=(
                "All {{ $value }} brokers and workers that answer have lost MQTT. Routers that lose their tunnel now "
                "get no new one; tunnels that are up stay up. Look first whether the MQTT server runs, and whether its "
                "certificate or password has changed."
            ),
        ),
        Alert(
            name="WgkexMQTTDisconnected",
            severity="warning",
            expr=f"{connected} == 0",
            hold="1m",
            summary="A wgkex process has no connection with the MQTT server.",
            description=(
                "{{ $labels.instance }} of job {{ $labels.job }} has no session with the MQTT server. A broker then "
                "answers routers with 503, a gateway takes no new ones. Look first for the reason of the last attempt "
                "in its log, then at the network between the two."
            ),
        ),
        Alert(
            name="WgkexMQTTFlapping",
            severity="warning",
            expr=f"{losses} > {settings.flapping_losses}",
            hold="15m",
            summary="A wgkex process loses the MQTT server again and again.",
            description=(
                "{{ $labels.instance }} of job {{ $labels.job }} has lost its session {{ $value }} times within "
                f"{settings.span(settings.flapping_window)}. Routers wait longer for their tunnel. Look first whether "
                "two processes have the same name, then at the network."
            ),
        ),
    ]


def _keys(settings: Settings) -> list[Alert]:
    return [*(_burn(settings, burn) for burn in settings.burns), _key_rate_zero(settings), _rejections(settings)]


def _burn(settings: Settings, burn: Burn) -> Alert:
    failures = f"increase(wgkex_broker_key_failures_total{{{settings.broker}}}[{settings.window(burn.long)}])"
    limit = f"({burn.factor:g} * {settings.budget:g})"
    outage = 'ALERTS{alertname="WgkexMQTTDown", alertstate="firing", service="wgkex"}'
    return Alert(
        name="WgkexKeyErrorBudgetBurn",
        severity=burn.severity,
        # In a small network one failed key is a large part of all of them, hence the least number. An outage of the
        # MQTT server has an alert of its own; the short window would page of it again as soon as that resolves.
        expr=(
            f"sum({failures_rate(burn.long)}) / sum({valid_rate(burn.long)}) > {limit}\n"
            f"and sum({failures_rate(burn.short)}) / sum({valid_rate(burn.short)}) > {limit}\n"
            f"and sum({failures}) >= {settings.burn_min_failures}\n"
            f"unless on () max_over_time({outage}[{settings.window(burn.short)}]) == 1"
        ),
        hold=burn.hold,
        summary="Too many valid keys cannot be served.",
        description=(
            f"{{{{ $value | humanizePercentage }}}} of the valid keys of the last {burn.long} failed, and it goes on; "
            f"the objective allows {settings.budget * 100:g}% over 30 days. These routers wait for a tunnel, and ask "
            "again. Look first which reason of wgkex_broker_key_failures_total grows."
        ),
        labels={"long_window": burn.long, "short_window": burn.short},
    )


def _key_rate_zero(settings: Settings) -> Alert:
    window = settings.window(settings.zero_window)
    increase = f"sum(increase(wgkex_broker_keys_published_total{{{settings.broker}}}[{window}]))"
    yesterday = f"[{settings.window(settings.zero_span)}:{window}] offset {settings.span(settings.zero_offset)}"
    return Alert(
        name="WgkexKeyRateZero",
        severity="critical",
        # Routers come in bursts when a gateway starts. Only a steady stream yesterday is expected today.
        expr=f"min_over_time({increase}{yesterday}) >= {settings.zero_min_keys}\nand {increase} == 0",
        hold="15m",
        summary="No key comes through, though there were some at this time yesterday.",
        description=(
            f"No key was accepted within {settings.span(settings.zero_window)}; at this time yesterday there were "
            '{{ $value | printf "%.0f" }} or more in each such time. Routers that boot or have lost their tunnel get '
            "none. Look first whether requests arrive (wgkex_broker_key_requests_total). If none do, look at DNS, TLS "
            "and the proxy in front of the brokers; if they do, at the reasons why they fail or are rejected."
        ),
    )


def _rejections(settings: Settings) -> Alert:
    selector = f"{{{settings.broker}}}[{settings.window(settings.rejections_window)}]"
    rejections, requests = "wgkex_broker_key_rejections_total", "wgkex_broker_key_requests_total"
    return Alert(
        name="WgkexKeyRejectionsHigh",
        severity="warning",
        expr=(
            f"sum(rate({rejections}{selector}))\n/ sum(rate({requests}{selector}))\n> {settings.rejections_ratio:g}\n"
            f"and sum(increase({requests}{selector})) >= {settings.rejections_min_requests}"
        ),
        hold="30m",
        summary="Many keys are rejected.",
        description=(
            "{{ $value | humanizePercentage }} of the submitted keys are refused through a fault of the sender. If it "
            "is a firmware or a new domain, its routers get no tunnel; if it is a flood, nobody feels it. Look first "
            "which reason of wgkex_broker_key_rejections_total grows."
        ),
    )


def _gateways(settings: Settings) -> list[Alert]:
    gap, short = settings.window(settings.gap), settings.window(settings.short_gap)
    collector = f"max_over_time(wgkex_worker_collector_success{{{settings.worker}}}[{short}]) == 1"
    return [
        Alert(
            name="WgkexNoWorkersOnline",
            severity="critical",
            # If no worker has ever been heard of, there is no series of any. The value is the number of brokers.
            expr=f"count(max_over_time(up{{{settings.broker}}}[{gap}]) == 1)\nunless on () ({ONLINE} > 0)",
            hold="5m",
            summary="No gateway is online for the brokers.",
            description=(
                "None of the {{ $value }} brokers sees a gateway that is online. Routers that lose their tunnel now "
                "get no new one. Look first whether the workers run and are connected with the MQTT server."
            ),
        ),
        Alert(
            name="WgkexInterfaceDown",
            severity="critical",
            # A worker that has stopped, or cannot read the kernel, knows nothing of interfaces: others tell of it.
            expr=(
                f"max_over_time(wgkex_worker_interface_up{{{settings.worker}}}[{gap}]) == 0\n"
                f"and on (job, instance) {collector}"
            ),
            hold="5m",
            summary="A WireGuard or VXLAN interface is missing or down.",
            description=(
                "{{ $labels.interface }} of domain {{ $labels.domain }} on {{ $labels.instance }} is missing or down. "
                "The domain's routers have no mesh through this gateway. Look first at ip link show "
                "{{ $labels.interface }}, and at what should set it up."
            ),
        ),
        Alert(
            name="WgkexGatewayImbalance",
            severity="warning",
            expr=_imbalance(settings),
            hold="1h",
            summary="A gateway is far from its share of the peers.",
            description=(
                'The peers of gateway {{ $labels.worker }} are {{ $value | printf "%.0f" }} off its share. With far '
                "fewer, routers may fail to reach it and have no tunnel for minutes; with far more, it may become "
                "slow. Look first from outside whether its WireGuard ports answer, then at the weights."
            ),
        ),
        _install_slow(settings),
        _queue_near_full(settings),
        _netlink_failing(settings),
        _journal_failing(settings),
    ]


def _imbalance(settings: Settings) -> str:
    """Far below its share a gateway is at fault by itself; far above only if others are not off as well.

    So of two gateways, of which one takes no peers, the alert names that one, and not the other.
    """
    off, bound = f"{PEERS} - {SHARE}", f"{settings.imbalance_ratio:g} * {SHARE}"
    online = f'wgkex_broker_worker_online{{{settings.broker}, worker!="unknown"}}'
    gap, settle = settings.window(settings.gap), settings.window(settings.imbalance_settle)
    ago = settings.span(settings.imbalance_settle)
    return (
        "(\n"
        f"  {off}\n"
        f"    < -{bound}\n"
        "  or\n"
        f"  {off}\n"
        f"    > {bound}\n"
        "  and on (job) count by (job) (\n"
        f"    abs({off})\n"
        f"      <= {bound}\n"
        "  ) > 0\n"
        ")\n"
        # A weight of 0 lets a gateway run empty.
        f"and {SHARE} > 0\n"
        f"and abs({off}) >= {settings.imbalance_min_peers}\n"
        # One broker has seen it all the time. A series of some minutes was never 0, either: it has to be that old.
        "and on (job, worker) max by (job, worker) (\n"
        f"  min_over_time({online}[{settle}]) == 1\n"
        f"  and max_over_time({online}[{gap}] offset {ago}) == 1\n"
        ")"
    )


def _install_slow(settings: Settings) -> Alert:
    """From POST to the gateway's word, by the broker's clock alone.

    A gateway's answer goes to the broker that took the key, so brokers are summed. Workers that send no receipts have
    no samples.
    """
    selector = f'{{{settings.broker}, worker!="unknown"}}[{settings.window(settings.slow_window)}]'
    buckets = f"sum by (job, worker, le) (rate(wgkex_broker_key_install_duration_seconds_bucket{selector}))"
    count = f"sum by (job, worker) (increase(wgkex_broker_key_install_duration_seconds_count{selector}))"
    return Alert(
        name="WgkexInstallSlow",
        severity="warning",
        expr=(
            f"histogram_quantile(0.99, {buckets}) > {settings.slow_seconds:g}\nand {count} >= {settings.slow_min_keys}"
        ),
        hold="15m",
        summary="Keys take longer to a gateway than routers bear.",
        description=(
            "One key in a hundred takes {{ $value | humanizeDuration }} or more until gateway {{ $labels.worker }} has "
            f"it installed. Routers bear {settings.slow_seconds:g} s, then they try another gateway or ask again. Look "
            "first at the worker's queue, and for peer_postponed in its log."
        ),
    )


def _queue_near_full(settings: Settings) -> Alert:
    selector = f"{{{settings.worker}}}[{settings.window(settings.gap)}]"
    return Alert(
        name="WgkexQueueNearFull",
        severity="warning",
        expr=(
            f"avg_over_time(wgkex_worker_queue_length{selector})\n"
            f"/ max_over_time(wgkex_worker_queue_capacity{selector})\n"
            f"> {settings.queue_ratio:g}"
        ),
        hold="5m",
        summary="A worker's queue is nearly full.",
        description=(
            "The queue of {{ $labels.instance }} is {{ $value | humanizePercentage }} full: keys arrive faster than "
            "the kernel takes them. Routers wait for their tunnel. Look first whether an interface is missing, then "
            "how long netlink operations take."
        ),
    )


def _netlink_failing(settings: Settings) -> Alert:
    selector = f"{{{settings.worker}}}[{settings.window(settings.netlink_window)}]"
    latest = f"{{{settings.worker}}}[{settings.window(settings.gap)}]"
    failures, operations = "wgkex_worker_netlink_operation_failures_total", "wgkex_worker_netlink_operations_total"
    # By operation: each scrape dumps, and would dilute what fails for peers.
    by = "sum by (job, instance, operation)"
    return Alert(
        name="WgkexNetlinkFailing",
        severity="warning",
        expr=(
            f"{by} (rate({failures}{selector}))\n/ {by} (rate({operations}{selector}))\n> {settings.netlink_ratio:g}\n"
            f"and {by} (increase({failures}{selector})) >= {settings.netlink_min_failures}\n"
            # It still goes on: the long window remembers a burst for longer than the alert waits.
            f"and {by} (increase({failures}{latest})) > 0"
        ),
        hold="10m",
        summary="The kernel refuses operations of a worker.",
        description=(
            "On {{ $labels.instance }} {{ $value | humanizePercentage }} of the operations {{ $labels.operation }} "
            "fail. Routers may have no tunnel, or a tunnel without a mesh. Look first at the label error of "
            "wgkex_worker_netlink_operation_failures_total."
        ),
    )


def _journal_failing(settings: Settings) -> Alert:
    return Alert(
        name="WgkexJournalFailing",
        severity="warning",
        expr=f"max_over_time(wgkex_worker_journal_up{{{settings.worker}}}[{settings.window(settings.gap)}]) == 0",
        hold="10m",
        summary="A worker cannot write its journal.",
        description=(
            "{{ $labels.instance }} cannot note which peers it has. Keys are installed all the same, but a reboot "
            "brings no peers back, and keys that have to wait stay with the MQTT server. Look first for "
            "journal_unavailable in the worker's log, then at the disk."
        ),
    )


def _peers(settings: Settings) -> list[Alert]:
    return [
        _peers_incomplete(settings),
        _handshakes_stale(settings),
        _peers_lost(settings),
        _cleanup_stalled(settings),
    ]


def _peers_incomplete(settings: Settings) -> Alert:
    return Alert(
        name="WgkexPeersIncomplete",
        severity="warning",
        expr=f"min_over_time(wgkex_worker_incomplete_peers{{{settings.worker}}}[{settings.window(settings.gap)}]) > 0",
        hold="10m",
        summary="Peers lack a part, and stay without it.",
        description=(
            "On {{ $labels.instance }} at least {{ $value }} peers of domain {{ $labels.domain }} lack their "
            "{{ $labels.missing }}. Without route or FDB entry their routers may have a tunnel, but no mesh; without a "
            "peer a route is left over, which nobody feels. The worker puts parts back within about 2 minutes, and it "
            "does not help. Look first for peers_not_put_back in its log, then whether something else changes peers, "
            "routes or FDB entries on this host."
        ),
    )


def _handshakes_stale(settings: Settings) -> Alert:
    """By domain, as a domain is an interface and a port of its own.

    Stale peers are not counted. Those of ours are removed some minutes later, so that to count them would tell of an
    outage for hardly any longer. What stays stale for ever is not ours, or protected: peers that the older wgkex has
    left on a gateway, and that nobody has taken over, would be a ticket without end.
    """
    gap = settings.window(settings.gap)

    def peers(states: str) -> str:
        return (
            "sum by (job, instance, domain) "
            f"(avg_over_time(wgkex_worker_peers{{{settings.worker}, state{states}}}[{gap}]))"
        )

    active, connected = peers('="active"'), peers('=~"active|idle"')
    return Alert(
        name="WgkexHandshakesStale",
        severity="warning",
        expr=f"{active}\n/ {connected}\n< {settings.stale_ratio:g}\nand {connected} >= {settings.stale_min_peers}",
        hold="15m",
        summary="Most peers of a gateway have stopped talking.",
        description=(
            "On {{ $labels.instance }} only {{ $value | humanizePercentage }} of the peers of domain "
            "{{ $labels.domain }} that were connected within cleanup.stale_after still are. The others' routers have "
            "lost their tunnel or moved to another gateway. Look first whether UDP reaches the domain's WireGuard port "
            "from outside."
        ),
    )


def _peers_lost(settings: Settings) -> Alert:
    """Over all domains, as an uplink has them all.

    The routers of a gateway that reboots have found another one meanwhile. There, the worker has started, and found
    hardly any peer that ever connected: the kernel has forgotten them, and the journal brings them back without a
    handshake. A worker that merely starts anew finds them in the kernel. Peers that never connected are not counted, as
    the cleanup removes many of them at once, after each reboot of another gateway.
    """
    gap, short = settings.window(settings.gap), settings.window(settings.short_gap)
    window, ago = settings.window(settings.lost_window), settings.span(settings.lost_window)
    active, connected = (
        f"wgkex_worker_peers{{{settings.worker}, state{state}}}" for state in ('="active"', '!="never"')
    )
    before, all_before = (
        f"sum by (job, instance) (avg_over_time({series}[{gap}] offset {ago}))" for series in (active, connected)
    )
    fewest = f"min_over_time(sum by (job, instance) (max_over_time({connected}[{short}]))[{window}:{short}])"
    started = f"changes(process_start_time_seconds{{{settings.worker}}}[{window}])"
    return Alert(
        name="WgkexWorkerPeersLost",
        severity="warning",
        expr=(
            f"sum by (job, instance) (avg_over_time({active}[{gap}]))\n/ {before}\n< {settings.lost_ratio:g}\n"
            f"and {before} >= {settings.lost_min_peers}\n"
            f"unless (\n  {fewest}\n  / {all_before}\n  < {settings.lost_ratio:g}\n"
            f"  and on (job, instance) {started} > 0\n)"
        ),
        hold="10m",
        summary="A gateway has lost most of its active peers.",
        description=(
            "{{ $labels.instance }} has {{ $value | humanizePercentage }} of the active peers that it had "
            f"{settings.span(settings.lost_window)} ago. Their routers are looking for another gateway, or have no "
            "mesh. Look first at the gateway's uplink and at its WireGuard ports."
        ),
    )


def _cleanup_stalled(settings: Settings) -> Alert:
    """The time of the last one is what it was that long ago. So Prometheus' clock and the gateway's are not compared.

    It is 0 before a worker's first one: then it is the start that has to be that long ago.
    """
    success = (
        f"wgkex_worker_cleanup_last_success_timestamp_seconds{{{settings.worker}}}[{settings.window(settings.gap)}]"
    )
    window, ago = settings.window(settings.cleanup_window), settings.span(settings.cleanup_window)
    return Alert(
        name="WgkexCleanupStalled",
        severity="warning",
        expr=(
            f"max_over_time({success})\n== max_over_time({success} offset {ago})\n"
            f"unless on (job, instance) changes(process_start_time_seconds{{{settings.worker}}}[{window}]) > 0"
        ),
        hold="10m",
        summary="A worker does not finish its cleanup any more.",
        description=(
            f"{{{{ $labels.instance }}}} has finished no cleanup for {ago}: peers whose routers have gone stay in its "
            "kernel. Users feel nothing, but everything that reads the kernel gets slower. Look first for "
            "peers_not_removed and snapshot_failed in the worker's log."
        ),
    )
