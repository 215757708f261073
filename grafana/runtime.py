"""WGKex / Runtime: what the processes cost, when they started, and which builds they are."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import colours, shared
from grafana.page import Section, dashboard
from grafana.panels import SMALL, Head, lines, stat, table
from grafana.queries import PROCESS, age, builds, by, named, rate, series
from grafana.styles import bad_from, steps
from grafana.targets import column, line, number

_NAME = "{{job}} {{process}}"
_DAY = 86400


def _ours(expression: str) -> str:
    """Only our processes: other programs have metrics of these names, too."""
    return f"{expression} and on (job, instance) {builds()}"


def _state() -> Section:
    started = _ours(series("process_start_time_seconds"))
    uptime = f"time() - {series('process_start_time_seconds')}"
    return Section(
        "State",
        [
            shared.targets_up(
                "",
                "Processes",
                "Brokers and workers that answer Prometheus, and those that did within a day but do not now. See"
                " WgkexTargetDown in the runbook.",
                6,
            ),
            stat(
                Head(
                    "Builds",
                    "How many different builds run. More than one outside of an upgrade: one host was forgotten, see"
                    " the table below.",
                    "none",
                    6,
                    SMALL,
                ),
                [number(f"count(count by (version, revision) ({builds()}))", "builds")],
                bad_from(warning=2),
            ),
            stat(
                Head(
                    "Youngest process",
                    "How long ago the latest start of a process was. Minutes, without a restart by an operator: check"
                    " its log, and WgkexCrashlooping in the runbook.",
                    "s",
                    6,
                    SMALL,
                ),
                [number(f"time() - max({started})", "youngest")],
                steps(colours.WARNING, (900, colours.GOOD)),
            ),
            stat(
                Head(
                    "Starts in the time shown",
                    "How often processes started within the time that the dashboard shows. More often than operators"
                    " restarted them: they crash, check the log.",
                    "none",
                    6,
                    SMALL,
                ),
                [
                    number(
                        f"sum(changes({series('process_start_time_seconds')}[$__range])"
                        f" and on (job, instance) {builds()})",
                        "starts",
                    )
                ],
                bad_from(1, 4),
            ),
            table(
                Head(
                    "Processes",
                    "Every process with its build and its uptime. Different versions on one bus work, but upgrade all"
                    " of them within days.",
                    "s",
                    24,
                    6,
                ),
                {
                    "Uptime": column(
                        by(
                            f"{PROCESS}, job, instance, component, version, revision, python_version",
                            f"{named(uptime)} * on (job, instance) group_right ({PROCESS}) {builds()}",
                            "max",
                        )
                    )
                },
                {
                    "component": "Component",
                    PROCESS: "Name",
                    "job": "Job",
                    "instance": "Instance",
                    "version": "Version",
                    "revision": "Revision",
                    "python_version": "Python",
                },
                sort="Component",
            ),
            lines(
                Head(
                    "CPU",
                    "Share of one core. Each process has one event loop: at 100 % its responses are late, and another"
                    " broker helps. On a worker, reading the kernel for scrapes costs most.",
                    "percentunit",
                    12,
                ),
                [line(named(rate("process_cpu_seconds_total")), _NAME)],
                thresholds=bad_from(0.7, 0.95),
            ),
            lines(
                Head(
                    "Resident memory",
                    "Memory that the process really uses. A line that only rises is a leak: note when it began and in"
                    " which build, then restart the process.",
                    "bytes",
                    12,
                ),
                [line(named(series("process_resident_memory_bytes")), _NAME)],
            ),
        ],
        open=True,
    )


def _resources() -> Section:
    return Section(
        "Memory, files and uptime",
        [
            lines(
                Head(
                    "Virtual memory",
                    "Address space. It is reserved, not used; only steady growth means something: a leak, see resident"
                    " memory.",
                    "bytes",
                ),
                [line(named(series("process_virtual_memory_bytes")), _NAME)],
            ),
            lines(
                Head(
                    "File descriptors",
                    "Open ones, of those that the process may open. Above 80 %: raise LimitNOFILE, and find the"
                    " clients that hold connections open.",
                    "percentunit",
                ),
                [
                    line(
                        named(f"{series('process_open_fds')} / {series('process_max_fds')}"),
                        _NAME,
                    )
                ],
                thresholds=bad_from(0.8, 0.95),
            ),
            lines(
                Head(
                    "Uptime",
                    "How long each process has run; a fall to 0 is a start. More than 3 within 15 minutes open a"
                    " ticket: see WgkexCrashlooping in the runbook.",
                    "s",
                ),
                [line(named(f"time() - {series('process_start_time_seconds')}"), _NAME)],
            ),
        ],
    )


def _clocks() -> Section:
    time = series("wgkex_time_seconds")
    return Section(
        "Clocks and certificates",
        [
            lines(
                Head(
                    "Clock against Prometheus",
                    "How far each process's clock is from the time of the scrape, early or late. The line is 5 s. One"
                    " host: it has no NTP. All by the same amount: the host of Prometheus has none. See"
                    " WgkexClockSkewed in the runbook.",
                    "s",
                    12,
                ),
                [line(named(f"abs(timestamp({time}) - {time})"), _NAME)],
                thresholds=bad_from(warning=5),
                at_least=6,
            ),
            lines(
                Head(
                    "Certificate of the MQTT server",
                    "How long the certificate is valid that the MQTT server showed last. At 0 no process can connect"
                    " again: renew it, and have the server read it. The lines are 14 days and 2 days. See"
                    " WgkexMQTTCertificateExpires in the runbook.",
                    "s",
                    12,
                ),
                [line(named(f"{series('wgkex_mqtt_certificate_expiry_timestamp_seconds')} - time()"), _NAME)],
                thresholds=steps(colours.CRITICAL, (2 * _DAY, colours.WARNING), (14 * _DAY, colours.GOOD)),
                empty="No TLS",
            ),
        ],
    )


def _python() -> Section:
    return Section(
        "Python",
        [
            lines(
                Head(
                    "Full garbage collections",
                    "How often the collector checked all objects (generation 2), which stops the process meanwhile."
                    " Several a second: something creates far too many objects.",
                    "ops",
                ),
                [line(by(f"job, {PROCESS}", named(rate("python_gc_collections_total", 'generation="2"'))), _NAME)],
            ),
            lines(
                Head(
                    "Objects collected",
                    "Objects in reference cycles that were freed. This follows the requests; on its own it means"
                    " little.",
                    "cps",
                ),
                [line(by(f"job, {PROCESS}", named(rate("python_gc_objects_collected_total"))), _NAME)],
            ),
            lines(
                Head(
                    "Objects uncollectable",
                    "Objects that could not be freed. Anything but 0 is a bug of a library, and a leak: note the"
                    " builds in the table above before you restart.",
                    "cps",
                ),
                [line(by(f"job, {PROCESS}", named(rate("python_gc_objects_uncollectable_total"))), _NAME)],
            ),
        ],
    )


def _key_lists() -> Section:
    read = "wgkex_key_list_last_reload_success_timestamp_seconds"
    return Section(
        "Key lists",
        [
            lines(
                Head(
                    "Entries in force",
                    "Entries of the key lists, of the process that has most. Processes with fewer have another file, or"
                    " an older one: see the panel to the right.",
                    "none",
                    12,
                ),
                [line(by("list", series("wgkex_key_list_entries"), "max"), "{{list}}")],
                decimals=0,
            ),
            lines(
                Head(
                    "Age of the lists",
                    "Time since each process read its key lists, where it has a file of them. One stays behind the"
                    " others: it has not got the new file, or cannot read it; see WgkexKeyListReloadFailed in the"
                    " runbook.",
                    "s",
                    6,
                ),
                [line(named(age(read, labels="job, instance")), _NAME)],
            ),
            lines(
                Head(
                    "Lists that cannot be read",
                    "Processes that go on with the key lists that they had, because the file is damaged or gone. See"
                    " WgkexKeyListReloadFailed in the runbook.",
                    "none",
                    6,
                ),
                [line(f"1 - {by(f'job, {PROCESS}', named(series('wgkex_key_list_last_reload_successful')))}", _NAME)],
                thresholds=bad_from(warning=1),
                maximum=1,
                decimals=0,
            ),
        ],
    )


def build() -> Dashboard:
    """For operators of the hosts."""
    return dashboard(
        "wgkex-runtime",
        "Runtime",
        "CPU, memory, file descriptors, starts, builds, key lists and garbage collection of brokers and workers.",
        [_state(), _resources(), _clocks(), _key_lists(), _python()],
    )
