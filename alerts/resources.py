"""Alerts about what breaks slowly: clocks, certificates, file descriptors, memory, restarts."""

from itertools import pairwise

from alerts.alert import Alert
from alerts.recording_hosts import LOWEST_MEMORY, OWN_PEERS, SKEW
from alerts.settings import Settings

_DAY = 86400


def resources(settings: Settings) -> list[Alert]:
    """Hosts and processes that work today, and will not for long."""
    return [
        _clock_skewed(settings),
        _certificate(settings, "critical", settings.certificate_critical_days),
        _certificate(settings, "warning", settings.certificate_warning_days),
        _file_descriptors(settings),
        _memory(settings),
        _restarts(settings),
    ]


def _clock_skewed(settings: Settings) -> Alert:
    """Each sample of the window is off, in the same direction: a single slow scrape is no skew."""
    gap = settings.window(settings.gap)
    return Alert(
        name="WgkexClockSkewed",
        severity="warning",
        expr=(
            f"min_over_time({SKEW}[{gap}]) > {settings.skew_seconds:g}\n"
            f"or\n"
            f"max_over_time({SKEW}[{gap}]) < -{settings.skew_seconds:g}"
        ),
        hold="10m",
        summary="A host's clock is wrong.",
        description=(
            "The clock of {{ $labels.instance }} differs from that of Prometheus by {{ $value | humanizeDuration }}; "
            "below 0 it is behind. Users may notice nothing, but the ages of handshakes are wrong, and with them the "
            "share of nodes that a gateway gets. First check timedatectl on that host; if all are listed, on that of "
            "Prometheus."
        ),
    )


def _certificate(settings: Settings, severity: str, days: int) -> Alert:
    """Days of the calendar, whatever the pace: it is the time in which somebody can renew a certificate."""
    expiry = (
        "max_over_time("
        f"wgkex_mqtt_certificate_expiry_timestamp_seconds{{{settings.every}}}[{settings.window(settings.gap)}])"
    )
    return Alert(
        name="WgkexMQTTCertificateExpires",
        severity=severity,
        expr=f"{expiry} - time() < {days} * {_DAY}",
        hold="1h",
        summary="The certificate of the MQTT server expires soon.",
        description=(
            "The certificate that the MQTT server showed {{ $labels.instance }} expires in "
            "{{ $value | humanizeDuration }}. After that, a process that loses its connection gets no new one: then "
            "nodes get no tunnel. First check whether the renewal of the certificate works, and whether the MQTT "
            "server has loaded the new one."
        ),
    )


def _file_descriptors(settings: Settings) -> Alert:
    selector = f"{{{settings.every}}}[{settings.window(settings.gap)}]"
    return Alert(
        name="WgkexFileDescriptorsLow",
        severity="warning",
        expr=(
            f"avg_over_time(process_open_fds{selector})\n"
            f"/ max_over_time(process_max_fds{selector})\n"
            f"> {settings.files_ratio:g}"
        ),
        hold="15m",
        summary="A wgkex process runs out of file descriptors.",
        description=(
            "{{ $labels.instance }} of job {{ $labels.job }} uses {{ $value | humanizePercentage }} of its file "
            "descriptors. Without any left, it accepts no connections: a broker then serves no nodes. First check what "
            "it has open: connections of clients, or files that it does not close."
        ),
    )


def _memory(settings: Settings) -> Alert:
    """More than a day ago, and more in each quarter of that day than in the quarter before.

    The lowest value of a quarter is compared. The same hours of two days cancel a daily cycle, and a cycle falls at
    some time; what grows at the start, or once, does not grow in each quarter. After a restart everything begins anew.
    A process whose peers grew by the same factor needs that memory: a part of it does not depend on peers, so memory
    alone cannot grow by more.
    """
    on = settings.on("job", "instance")
    lowest = [LOWEST_MEMORY, *(f"{LOWEST_MEMORY} offset {settings.span(f'{6 * n}h')}" for n in range(1, 5))]
    steps = "".join(
        f"and {later} > {1 + settings.memory_quarter_growth:g} * {earlier}\n" for later, earlier in pairwise(lowest)
    )
    day = settings.span("1d")
    started = f"changes(process_start_time_seconds{{{settings.every}}}[{settings.window(settings.memory_history)}])"
    return Alert(
        name="WgkexMemoryGrowing",
        severity="warning",
        expr=(
            f"{lowest[0]} - {lowest[-1]}\n"
            f"and {lowest[0]} > {1 + settings.memory_growth:g} * {lowest[-1]}\n"
            f"{steps}"
            f"unless {on} {started} > 0\n"
            f"unless {on} (\n"
            f"  {OWN_PEERS} / {OWN_PEERS} offset {day}\n"
            f"  >= {on} {lowest[0]} / {lowest[-1]}\n"
            ")"
        ),
        hold="15m",
        summary="The memory of a wgkex process grows all day.",
        description=(
            "{{ $labels.instance }} of job {{ $labels.job }} uses {{ $value | humanize1024 }}B more memory than "
            f"{day} before, and it grew all the time. Users notice nothing until the host has none left. First check "
            "how much the host has left, and plan a restart before it ends; tunnels survive one."
        ),
    )


def _restarts(settings: Settings) -> Alert:
    """A loop too slow for WgkexCrashlooping.

    The window is longer than the hour: a start at its edge is not seen, and one that is missing for a moment would
    begin the hold anew.
    """
    window = settings.window(settings.restarts_window)
    return Alert(
        name="WgkexRestartsOften",
        severity="warning",
        expr=(f"changes(process_start_time_seconds{{{settings.every}}}[{window}]) >= {settings.restarts_starts}"),
        hold="15m",
        summary="A wgkex process starts several times an hour.",
        description=(
            "{{ $labels.instance }} of job {{ $labels.job }} has started {{ $value }} times within "
            f"{window}. Tunnels stay, but requests fail while it starts, and counters begin anew. First check the end "
            "of its log before each start."
        ),
    )
