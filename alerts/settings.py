"""Everything that an operator may want to change in the rules: selectors, thresholds, windows, and the pace of time.

Durations are written as Prometheus writes them (`90s`, `15m`, `3d`), and are nominal: `Settings.span` and
`Settings.window` make those of the rules, so that a test can shorten time and keep the rules.
"""

import re
from dataclasses import dataclass
from typing import Final

_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(\d+)(ms|s|m|h|d)")

# The windows over which the service level objective is recorded. They are part of the names of the recorded series.
SLO_WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")


def milliseconds(duration: str) -> int:
    """A duration of one number and one unit.

    Raises:
        ValueError: it is not a duration.
    """
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(f"not a duration: {duration!r}")
    return int(match[1]) * _UNITS[match[2]]


def duration_text(number: int) -> str:
    """Milliseconds in the largest unit that gives a whole number."""
    if number == 0:
        return "0s"
    unit = max((unit for unit in _UNITS if number % _UNITS[unit] == 0), key=_UNITS.__getitem__)
    return f"{number // _UNITS[unit]}{unit}"


def _literal(name: str) -> str:
    """A name within a regular expression within a quoted text; a hyphen needs no escape there."""
    return re.escape(name).replace("\\-", "-").replace("\\", "\\\\")


@dataclass(frozen=True, slots=True)
class Burn:
    """One pair of windows of the error budget alert.

    Attributes:
        long: the window that shows that the burn matters.
        short: the window that shows that it goes on.
        factor: how many times faster than the objective allows.
        hold: how long before the alert fires.
        severity: `critical` or `warning`.
    """

    long: str
    short: str
    factor: float
    hold: str
    severity: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The defaults are what `alerts/wgkex.rules.yaml` has.

    Attributes:
        broker_job: `job` of the brokers in Prometheus.
        worker_job: `job` of the workers.
        cluster: label that tells the sites apart where one Prometheus watches several, for example `cluster`. Each
            alert is then one of its site, and no site's health hides another's outage. Empty for a single site.
        absent_memory: how long a site is remembered that Prometheus no longer scrapes, where there are several.
        runbook: address of the runbook; each alert has a section there.
        pace: factor of all durations; 1/60 makes seconds of minutes.
        shortest_window: no window gets shorter than this; a rate needs at least two scrapes in it.
        gap: window that bridges failed scrapes.
        short_gap: the same for alerts that must be fast; needs a scrape every 30 s or faster.
        slow_interval: how often the long windows of the objective are recorded.
        objective: part of the valid keys that are to be served, over 30 days.
        burns: pairs of windows of the error budget alert.
        burn_min_failures: failed keys in the long window; fewer never alert, whatever the ratio. It does not grow with
            the network: a node whose key fails repeats it once or twice a minute, so an outage brings three nodes to
            this number in two to four minutes, and in a large network the ratio needs more. A key that fails while a
            broker restarts is two at most.
        zero_window: without a key for so long.
        zero_span: the time yesterday that is compared, in pieces of `zero_window`.
        zero_offset: how far back yesterday is.
        zero_min_nodes: nodes that began to ask in each of these pieces: a single burst yesterday is no expectation for
            today. One node counts once, however often it repeats its key.
        mqtt_keep: how long the alert of a dead MQTT server goes on after its return, and inhibits its consequences.
        flapping_window, flapping_losses: more lost connections than this are too many.
        rejections_window, rejections_ratio, rejections_min_keys: more rejected keys than this are too many. The number
            is that of three nodes: one that is refused sends its key once a minute, and by both versions twice, which
            are 30 in the window. It does not grow with the network, since the ratio does that.
        limited_window, limited_ratio, limited_min_keys: more refusals by limits than this are too many. The number is
            what one router makes that asks twice a second.
        limited_network_per_second: a client network that is refused as often keeps a broker busy alone.
        table_window: a peer that was evicted in it, or a key that was refused, means that there is no room.
        slow_window, slow_seconds: how many seconds nodes wait from the POST until the key is installed.
        slow_min_minutes: in so many minutes of the window there must be late keys. What a gateway takes at once when it
            is back is one or two, whether these are 5 keys or 5,000; so this number does not depend on the size.
        slow_recent: a gateway that takes its keys in time for so long is well again.
        queue_ratio: part of the queue's capacity.
        netlink_window, netlink_ratio, netlink_min_failures: failed operations, each kind by itself. A key that cannot
            be installed makes 5 of them: one such key is no reason for an alert, two are, at any size. The window is
            as long as it takes a gateway of a small network, which gets a key every ten minutes, to see some.
        netlink_half: failures in two such periods in succession go on, where there are none in between.
        stale_ratio: part of the peers that is to be active.
        stale_min_surplus: how many more must be silent than active. It does not grow with the network: a domain has a
            port of its own, also a small one on a large gateway.
        stale_memory, stale_deviations: by so many standard deviations the active peers must have fallen in this time,
            which is as long as a silent peer is idle by default. Where nodes come and go, a domain has some more and
            some fewer on a gateway, by the root of their number: from 6 down to 1, from 200 to 170.
        lost_window, lost_ratio: part of a gateway's active peers that is to be left after the window.
        lost_domain_ratio: the same of one domain on a gateway. It is less, because the numbers are smaller, and not 0,
            because static peers may stay active.
        lost_recent: over which time the active peers of now are averaged: short, since nodes wait, and long enough for
            a failed scrape.
        lost_part, lost_min_peers: so many peers must be lost: a part of what gateways have on average, of the network
            or of this domain, and three at least. Fewer are of no importance there, or chance.
        lost_memory: how long it is remembered what a gateway had before it rebooted.
        lost_back_windows: nobody has come back in such a time since a reboot, though nodes asked for tunnels. The short
            one is for networks in which some ask every minute, the long one for those in which few do in an hour.
        lost_asked_part, lost_asked_min: so many nodes must have asked, as a part of the peers before the reboot.
        everywhere_ratio: part of the active peers of the whole network that is to be left.
        everywhere_offset, everywhere_memory: compared with the most within this long before that long ago. The memory
            keeps the page firing, as an hour after the loss there is nothing to lose.
        everywhere_unseen: for so long a gateway that does not answer is taken to have its peers.
        everywhere_asked: nodes without a tunnel ask once a minute. If in this time there are fewer requests than nodes
            are missing, these are only out of sight.
        everywhere_min_peers: below this, the power cut of one house is half of the network.
        drain_window: how long a gateway may drain before it is taken for forgotten.
        cleanup_window: how long without a completed cleanup; three times the longest interval that can be set.
        imbalance_ratio: deviation of a gateway's peers from its share.
        imbalance_deviations: the same in standard deviations. Nodes with version 1 choose at random, and then the
            number of a gateway's peers varies by the root of its share: by 4 of 17, by 45 of 2000.
        imbalance_settle: a gateway that was offline within this time, or is newer, does not count.
        crash_window, crash_starts: more starts than this are too many.
        probe_job: `job` of the canary, which not every site has.
        unconfirmed_ratio, unconfirmed_min_keys: part of the accepted keys that a gateway did not install, and how many
            of them there are within 15 minutes. A key is repeated every minute, so one node that gets no tunnel makes
            enough of them.
        returned_ratio: part of the nodes sent to a gateway that came back within 5 minutes.
        nodes_min, nodes_part, nodes_memory: different nodes within 15 minutes that make a trend: so many, and so large
            a part of the most peers that the gateway had within that time. Nodes that can reach no gateway at all, such
            as those behind a firewall that blocks UDP, grow with the network, hence a part.
        sessions_window: without a session that begins, and the hold of the alert after it. Nodes that come together
            connect within a minute or two, and are counted for 15 minutes more, in which nobody needs to come.
        network_part: the same part of the network's peers, for an alert that pages.
        vxlan_min_peers: active peers of a domain; with these, batman-adv sends packets all the time.
        skew_seconds: how far a clock may be off. Nodes wait 10 s, and a session ends after 180 s.
        certificate_warning_days, certificate_critical_days: how long before a certificate expires.
        files_ratio: part of the file descriptors.
        memory_history: a process that started within this time does not count: a day, and the quarter before.
        memory_growth, memory_quarter_growth: growth of memory within a day, and within each quarter of that day.
        restarts_window, restarts_starts: so many starts within an hour are too many.
        probe_window: two rounds of the canary.
    """

    broker_job: str = "wgkex-broker"
    worker_job: str = "wgkex-worker"
    cluster: str = ""
    absent_memory: str = "1d"
    runbook: str = "https://github.com/freifunkMUC/wgkex-ops/blob/main/docs/runbook.md"
    pace: float = 1.0
    shortest_window: str = "1s"

    gap: str = "5m"
    short_gap: str = "1m"
    slow_interval: str = "2m"

    objective: float = 0.999
    burns: tuple[Burn, ...] = (
        Burn("1h", "5m", 14.4, "2m", "critical"),
        Burn("6h", "30m", 6, "15m", "critical"),
        Burn("1d", "2h", 3, "1h", "warning"),
        Burn("3d", "6h", 1, "3h", "warning"),
    )
    burn_min_failures: int = 10

    zero_window: str = "15m"
    zero_span: str = "1h"
    zero_offset: str = "1d"
    zero_min_nodes: int = 5

    mqtt_keep: str = "5m"

    flapping_window: str = "30m"
    flapping_losses: int = 5

    rejections_window: str = "15m"
    rejections_ratio: float = 0.25
    rejections_min_keys: int = 45

    limited_window: str = "15m"
    limited_ratio: float = 0.25
    limited_min_keys: int = 1800
    limited_network_per_second: float = 20
    table_window: str = "15m"

    slow_window: str = "30m"
    slow_seconds: float = 10
    slow_min_minutes: int = 3
    slow_recent: str = "10m"

    queue_ratio: float = 0.8

    netlink_window: str = "1h"
    netlink_ratio: float = 0.05
    netlink_min_failures: int = 10
    netlink_half: str = "30m"

    stale_ratio: float = 0.5
    stale_min_surplus: int = 3
    stale_memory: str = "3h"
    stale_deviations: float = 2

    lost_window: str = "30m"
    lost_ratio: float = 0.5
    lost_domain_ratio: float = 0.35
    lost_recent: str = "2m"
    lost_part: float = 0.1
    lost_min_peers: int = 3
    lost_memory: str = "3h"
    lost_back_windows: tuple[str, str] = ("15m", "1h")
    lost_asked_part: float = 0.1
    lost_asked_min: int = 3

    everywhere_ratio: float = 0.5
    everywhere_offset: str = "1h"
    everywhere_memory: str = "2h"
    everywhere_unseen: str = "3h"
    everywhere_asked: str = "10m"
    everywhere_min_peers: int = 10

    drain_window: str = "1d"
    cleanup_window: str = "3h"

    imbalance_ratio: float = 0.25
    imbalance_deviations: float = 3
    imbalance_settle: str = "1d"

    crash_window: str = "15m"
    crash_starts: int = 3

    probe_job: str = "wgkex-probe"

    unconfirmed_ratio: float = 0.05
    unconfirmed_min_keys: int = 5

    returned_ratio: float = 0.5
    nodes_min: int = 3
    nodes_part: float = 0.01
    nodes_memory: str = "1h"
    network_part: float = 0.1
    sessions_window: str = "10m"

    vxlan_min_peers: int = 3

    skew_seconds: float = 5

    certificate_warning_days: int = 14
    certificate_critical_days: int = 2

    files_ratio: float = 0.8

    memory_history: str = "30h"
    memory_growth: float = 0.1
    memory_quarter_growth: float = 0.01

    restarts_window: str = "65m"
    restarts_starts: int = 6

    probe_window: str = "2m"

    @property
    def broker(self) -> str:
        """Label matcher of the brokers."""
        return f'job="{self.broker_job}"'

    @property
    def worker(self) -> str:
        """Label matcher of the workers."""
        return f'job="{self.worker_job}"'

    @property
    def probe(self) -> str:
        """Label matcher of the canary."""
        return f'job="{self.probe_job}"'

    @property
    def every(self) -> str:
        """Label matcher of all our processes, the canary included."""
        return f'job=~"{"|".join(map(_literal, (self.broker_job, self.worker_job, self.probe_job)))}"'

    @property
    def both(self) -> str:
        """Label matcher of brokers and workers."""
        return f'job=~"{_literal(self.broker_job)}|{_literal(self.worker_job)}"'

    @property
    def budget(self) -> float:
        """Part of the valid keys that may fail."""
        return round(1 - self.objective, 12)

    def by(self, *labels: str) -> str:
        """Aggregate by these labels, and by site."""
        return f"by ({self._labels(labels)})"

    def over_all(self, operation: str, expression: str) -> str:
        """Aggregate everything; each site by itself."""
        return f"{operation} {self.by()} ({expression})" if self.cluster else f"{operation}({expression})"

    def on(self, *labels: str) -> str:
        """Match series by these labels, and by site."""
        return f"on ({self._labels(labels)})"

    def _labels(self, labels: tuple[str, ...]) -> str:
        return ", ".join((self.cluster, *labels) if self.cluster else labels)

    def span(self, nominal: str) -> str:
        """A duration at our pace: of `for`, of an offset, of an evaluation interval."""
        return duration_text(self._paced(nominal))

    def window(self, nominal: str) -> str:
        """A window at our pace, never shorter than the shortest one."""
        return duration_text(max(self._paced(nominal), milliseconds(self.shortest_window)))

    def _paced(self, nominal: str) -> int:
        return round(milliseconds(nominal) * self.pace)
