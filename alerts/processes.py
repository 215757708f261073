"""Alerts about brokers and workers as processes."""

from alerts.alert import Alert
from alerts.settings import Settings


def processes(settings: Settings) -> list[Alert]:
    """Brokers and workers that do not run, or do not answer."""
    short, gap, crash = (settings.window(w) for w in (settings.short_gap, settings.gap, settings.crash_window))
    up = f"max_over_time(up{{{settings.broker}}}[{short}])"
    return [
        Alert(
            name="WgkexBrokerDown",
            severity="critical",
            # One that answers is enough. The value is the number of brokers that do not.
            expr=f"count {settings.by('job')} ({up} == 0)\nunless {settings.on('job')} ({up} == 1)",
            hold="2m",
            summary="No wgkex broker answers.",
            description=(
                "None of the {{ $value }} targets of job {{ $labels.job }} answers Prometheus. Nodes that lose "
                "their tunnel now get no new one. First check whether the service runs: systemctl status "
                "wgkex-broker."
            ),
        ),
        _absent(settings, "broker", settings.broker_job),
        _absent(settings, "worker", settings.worker_job),
        Alert(
            name="WgkexTargetDown",
            severity="warning",
            expr=f"max_over_time(up{{{settings.every}}}[{gap}]) == 0",
            hold="10m",
            summary="A wgkex process does not answer.",
            description=(
                "{{ $labels.instance }} of job {{ $labels.job }} does not answer Prometheus. While a broker is "
                "down, the others do its work; while a worker is down, its gateway takes no new nodes. First "
                "check whether the host and the service are up."
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
                f"{settings.span(settings.crash_window)}. Keys on their way come late, and some nodes wait until "
                "they send their key again. First check the end of its log: the reason is in the last lines."
            ),
        ),
        Alert(
            name="WgkexKeyListReloadFailed",
            severity="warning",
            expr=f"max_over_time(wgkex_key_list_last_reload_successful{{{settings.both}}}[{gap}]) == 0",
            hold="5m",
            summary="The key lists cannot be read.",
            description=(
                "{{ $labels.instance }} of job {{ $labels.job }} cannot read the file of its key lists, and goes on "
                "with the lists that it had: what operators have denied or allowed since has no effect there. First "
                "check its log for key_lists_rejected, which has all problems with their lines."
            ),
        ),
        Alert(
            name="WgkexCollectorFailing",
            severity="warning",
            expr=f"max_over_time(wgkex_worker_collector_success{{{settings.worker}}}[{gap}]) == 0",
            hold="10m",
            summary="A worker cannot read the kernel, and its metrics are blind.",
            description=(
                "The collector {{ $labels.collector }} on {{ $labels.instance }} fails. The gateway's peers and "
                "interfaces are invisible, and brokers may send it no nodes. First check the worker's log for "
                "snapshot_failed."
            ),
        ),
        Alert(
            name="WgkexWatchdog",
            severity="none",
            expr="vector(1)",
            hold=None,
            summary="Alerts get through.",
            description=(
                "This alert always fires. A service outside raises an alarm when it no longer arrives: then "
                "Prometheus, Alertmanager or the way between them is broken."
            ),
        ),
    ]


def _absent(settings: Settings, program: str, job: str) -> Alert:
    """`absent` knows no sites: a site is known by what was scraped there lately, of either job.

    So it stays for as long as one of the two jobs is there, and for a day if both have vanished. The last expression is
    for a Prometheus that has nothing to remember.
    """
    targets = f'up{{job="{job}"}}'
    expr = f"absent({targets})"
    if settings.cluster:
        memory = settings.window(settings.absent_memory)
        expr = (
            "label_replace(\n"
            f"  count {settings.by()} (count_over_time(up{{{settings.both}}}[{memory}]))\n"
            f"  unless {settings.on()} {targets},\n"
            f'  "job", "{job}", "", ""\n'
            ")\n"
            f"or absent_over_time({targets}[{memory}])"
        )
    return Alert(
        name=f"Wgkex{program.capitalize()}Absent",
        severity="critical",
        expr=expr,
        hold="10m",
        summary=f"Prometheus has no wgkex {program} among its targets.",
        description=(
            "No target of job {{ $labels.job }} is left in Prometheus, so no other alert can report it. Users may "
            "notice nothing yet. First check the scrape configuration and service discovery."
        ),
    )
