"""Alerts about single gateways: interfaces, share, speed, kernel, journal."""

from alerts.alert import Alert
from alerts.recording import ONLINE, PEERS, SHARE
from alerts.settings import Settings


def gateways(settings: Settings) -> list[Alert]:
    """Gateways that do not take nodes as they should."""
    gap, short = settings.window(settings.gap), settings.window(settings.short_gap)
    collector = f"max_over_time(wgkex_worker_collector_success{{{settings.worker}}}[{short}]) == 1"
    brokers = settings.over_all("count", f"max_over_time(up{{{settings.broker}}}[{gap}]) == 1")
    return [
        Alert(
            name="WgkexNoWorkersOnline",
            severity="critical",
            # A worker that never sent a message has no series. The value is the number of brokers.
            expr=f"{brokers}\nunless {settings.on()} ({ONLINE} > 0)",
            hold="5m",
            summary="No gateway is online for the brokers.",
            description=(
                "None of the {{ $value }} brokers sees a gateway that is online. Nodes that lose their tunnel now "
                "get no new one. First check whether the workers run and are connected to the MQTT server."
            ),
        ),
        Alert(
            name="WgkexInterfaceDown",
            severity="critical",
            # A worker that has stopped or cannot read the kernel has alerts of its own.
            expr=(
                f"max_over_time(wgkex_worker_interface_up{{{settings.worker}}}[{gap}]) == 0\n"
                f"and {settings.on('job', 'instance')} {collector}"
            ),
            hold="5m",
            summary="A WireGuard or VXLAN interface is missing or down.",
            description=(
                "{{ $labels.interface }} of domain {{ $labels.domain }} on {{ $labels.instance }} is missing or "
                "down. The domain's nodes have no mesh through this gateway. First check ip link show "
                "{{ $labels.interface }}, and the configuration that creates it."
            ),
        ),
        Alert(
            name="WgkexGatewayImbalance",
            severity="warning",
            expr=_imbalance(settings),
            hold="1h",
            summary="A gateway is far from its share of the peers.",
            description=(
                'The peers of gateway {{ $labels.worker }} are {{ $value | printf "%.0f" }} off its share. With '
                "far fewer, nodes may fail to reach it and have no tunnel for minutes; with far more, it may "
                "become slow. First check from outside whether its WireGuard ports respond, then the weights."
            ),
        ),
        _install_slow(settings),
        _queue_near_full(settings),
        _netlink_failing(settings),
        _journal_failing(settings),
    ]


def _imbalance(settings: Settings) -> str:
    """Far below its share, a gateway is at fault itself; far above, only if others are not off as well.

    If one of two gateways takes no peers, the alert names that one only.
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
        f"  and {settings.on('job')} count {settings.by('job')} (\n"
        f"    abs({off})\n"
        f"      <= {bound}\n"
        "  ) > 0\n"
        ")\n"
        # A gateway of weight 0 should have no peers.
        f"and {SHARE} > 0\n"
        f"and abs({off}) >= {settings.imbalance_min_peers}\n"
        # One broker saw it online all the time. A series of some minutes was never 0 either, so it must be that old.
        f"and {settings.on('job', 'worker')} max {settings.by('job', 'worker')} (\n"
        f"  min_over_time({online}[{settle}]) == 1\n"
        f"  and max_over_time({online}[{gap}] offset {ago}) == 1\n"
        ")"
    )


def _install_slow(settings: Settings) -> Alert:
    """From the POST to the gateway's receipt, by the broker's clock alone.

    A receipt goes to the broker that took the key, so brokers are summed. Workers that send no receipts have no
    samples.
    """
    selector = f'{{{settings.broker}, worker!="unknown"}}[{settings.window(settings.slow_window)}]'
    buckets = (
        f"sum {settings.by('job', 'worker', 'le')} (rate(wgkex_broker_key_install_duration_seconds_bucket{selector}))"
    )
    count = f"sum {settings.by('job', 'worker')} (increase(wgkex_broker_key_install_duration_seconds_count{selector}))"
    return Alert(
        name="WgkexInstallSlow",
        severity="warning",
        expr=(
            f"histogram_quantile(0.99, {buckets}) > {settings.slow_seconds:g}\nand {count} >= {settings.slow_min_keys}"
        ),
        hold="15m",
        summary="Keys take longer to a gateway than nodes wait.",
        description=(
            "One key in a hundred takes {{ $value | humanizeDuration }} or more until gateway "
            f"{{{{ $labels.worker }}}} has installed it. Nodes wait {settings.slow_seconds:g} s, then they try another "
            "gateway or send their key again. First check the worker's queue, and its log for peer_postponed."
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
            "The queue of {{ $labels.instance }} is {{ $value | humanizePercentage }} full: keys arrive faster "
            "than the kernel takes them. Nodes wait for their tunnel. First check whether an interface is "
            "missing, then how long netlink operations take."
        ),
    )


def _netlink_failing(settings: Settings) -> Alert:
    selector = f"{{{settings.worker}}}[{settings.window(settings.netlink_window)}]"
    latest = f"{{{settings.worker}}}[{settings.window(settings.gap)}]"
    failures, operations = "wgkex_worker_netlink_operation_failures_total", "wgkex_worker_netlink_operations_total"
    # By operation: each scrape makes a dump, which would dilute the failures of peers.
    by = f"sum {settings.by('job', 'instance', 'operation')}"
    return Alert(
        name="WgkexNetlinkFailing",
        severity="warning",
        expr=(
            f"{by} (rate({failures}{selector}))\n/ {by} (rate({operations}{selector}))\n> {settings.netlink_ratio:g}\n"
            f"and {by} (increase({failures}{selector})) >= {settings.netlink_min_failures}\n"
            # And some lately: the long window contains a burst for longer than the alert waits.
            f"and {by} (increase({failures}{latest})) > 0"
        ),
        hold="10m",
        summary="The kernel refuses operations of a worker.",
        description=(
            "On {{ $labels.instance }} {{ $value | humanizePercentage }} of the operations "
            "{{ $labels.operation }} fail. Nodes may have no tunnel, or a tunnel without a mesh. First check the "
            "label error of wgkex_worker_netlink_operation_failures_total."
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
            "{{ $labels.instance }} cannot write down which peers it has. Keys are installed all the same, but "
            "after a reboot the gateway does not restore its peers. First check the worker's log for "
            "journal_unavailable, then the disk."
        ),
    )
