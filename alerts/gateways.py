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
        _drain_forgotten(settings),
        _install_slow(settings),
        _queue_near_full(settings),
        _netlink_failing(settings),
        _journal_failing(settings),
    ]


def _drain_forgotten(settings: Settings) -> Alert:
    """Draining since the beginning of the window, also where scrapes in it are missing."""
    draining = f"wgkex_worker_draining{{{settings.worker}}}"
    window, ago = settings.window(settings.drain_window), settings.span(settings.drain_window)
    return Alert(
        name="WgkexDrainForgotten",
        severity="warning",
        expr=(
            f"min_over_time({draining}[{window}]) == 1\n"
            f"and {settings.on('job', 'instance')} "
            f"max_over_time({draining}[{settings.window(settings.gap)}] offset {ago}) == 1"
        ),
        hold="1h",
        summary="A gateway has been out of service for long.",
        description=(
            f"{{{{ $labels.instance }}}} has drained for over {ago}: brokers send no new nodes there, and the other "
            "gateways carry its share. Nobody has lost a tunnel. First check whether somebody still works on it; if "
            "not, run wgkex-ops undrain there."
        ),
    )


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
        f"and abs({off}) >= {settings.imbalance_deviations:g} * sqrt({SHARE})\n"
        # One broker saw it online all the time. A series of some minutes was never 0 either, so it must be that old.
        f"and {settings.on('job', 'worker')} max {settings.by('job', 'worker')} (\n"
        f"  min_over_time({online}[{settle}]) == 1\n"
        f"  and max_over_time({online}[{gap}] offset {ago}) == 1\n"
        ")"
    )


def _install_slow(settings: Settings) -> Alert:
    """From the POST to the gateway's receipt, by the broker's clock alone.

    A receipt goes to the broker that took the key, so brokers are summed. Workers that send no receipts have no
    samples. A small gateway gets a key every some minutes, so minutes with late keys are counted over a long window.
    """
    window, recent = settings.window(settings.slow_window), settings.window(settings.slow_recent)
    by = settings.by("job", "worker")

    def latest_of_hundred(over: str) -> str:
        selector = f"wgkex_broker_key_install_duration_seconds_bucket{{{settings.broker}}}[{over}]"
        return f"histogram_quantile(0.99, sum {settings.by('job', 'worker', 'le')} (rate({selector})))"

    def keys(sample: str, *matchers: str) -> str:
        selector = ", ".join((settings.broker, *matchers))
        name = f"wgkex_broker_key_install_duration_seconds_{sample}"
        return f"sum {by} (max_over_time({name}{{{selector}}}[{settings.window(settings.gap)}]))"

    in_time = keys("bucket", f'le="{float(settings.slow_seconds)}"')
    return Alert(
        name="WgkexInstallSlow",
        severity="warning",
        expr=(
            f"{latest_of_hundred(window)} > {settings.slow_seconds:g}\n"
            f"and changes((\n  {keys('count')}\n  - {in_time}\n)[{window}:{settings.window('1m')}])"
            f" >= {settings.slow_min_minutes}\n"
            # Without keys there is no number, which is not below any.
            f"unless {latest_of_hundred(recent)} <= {settings.slow_seconds:g}"
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
    """Keys without an interface do not fill it: they have half of it at most (`wgkex_ops/consumer/installer.py`)."""
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
            "than the kernel takes them. Nodes wait for their tunnel. First check how long netlink operations and "
            "the journal take, then whether far more keys arrive than brokers publish."
        ),
    )


def _netlink_failing(settings: Settings) -> Alert:
    """By operation: each scrape makes a dump, which would dilute the failures of peers.

    The window contains a burst for longer than the alert waits, so failures must go on. Where many keys come, there are
    some of the last minutes; where few do, some in both halves of an hour.
    """
    failures, operations = "wgkex_worker_netlink_operation_failures_total", "wgkex_worker_netlink_operations_total"
    by = f"sum {settings.by('job', 'instance', 'operation')}"

    def growth(name: str, window: str, shift: str = "") -> str:
        return f"{by} (increase({name}{{{settings.worker}}}[{settings.window(window)}]{shift}))"

    window, half = settings.netlink_window, settings.netlink_half
    ratio = f"{growth(failures, window)}\n/ {growth(operations, window)}\n> {settings.netlink_ratio:g}"
    before = growth(failures, half, f" offset {settings.span(half)}")
    return Alert(
        name="WgkexNetlinkFailing",
        severity="warning",
        expr=(
            f"{ratio}\n"
            f"and {growth(failures, window)} >= {settings.netlink_min_failures}\n"
            f"and (\n  {growth(failures, settings.gap)} > 0\n"
            f"  or\n  {growth(failures, half)} > 0\n  and {before} > 0\n)"
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
