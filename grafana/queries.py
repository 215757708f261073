"""Pieces of PromQL. Every selector has the chosen jobs and instances, every rate takes its window from Grafana."""

from typing import Final

from alerts.recording import failures_rate, valid_rate
from alerts.settings import Settings, milliseconds

# Lines and colours have the thresholds of the alerts.
LIMITS: Final = Settings()

CHOSEN: Final = 'job=~"$job", instance=~"$instance"'
WINDOW: Final = "$__rate_interval"
# Brokers count all workers that are not configured as `unknown`.
CONFIGURED: Final = 'worker!="unknown"'

# How finely the time with data is counted, of 30 days.
_STEP: Final = "10m"

# What a variable stands for where everything is chosen; a series without the label is not ours.
ALL: Final = ".+"

# The label that `named` adds: what a process is called.
PROCESS: Final = "process"

# How long a target that does not answer any more still counts as down.
REMEMBERED: Final = "1d"


def series(name: str, *matchers: str) -> str:
    """A selector: `name{job=~"$job", instance=~"$instance", …}`."""
    return f"{name}{{{', '.join((CHOSEN, *matchers))}}}"


def rate(name: str, *matchers: str) -> str:
    """What a counter gains per second."""
    return f"rate({series(name, *matchers)}[{WINDOW}])"


def increase(name: str, *matchers: str) -> str:
    """What a counter gained in the window of one point of the graph."""
    return f"increase({series(name, *matchers)}[{WINDOW}])"


def by(labels: str, expression: str, operation: str = "sum") -> str:
    """An aggregation; without labels, over everything."""
    return f"{operation} by ({labels}) ({expression})" if labels else f"{operation}({expression})"


def ratio(numerator: str, denominator: str) -> str:
    """A ratio that is 0 where nothing happened, and absent where the numerator's metric is. Both need equal labels."""
    return f"({numerator} / ({denominator} > 0) or 0 * {numerator})"


def quantile(share: float, histogram: str, *matchers: str, labels: str = "") -> str:
    """A quantile of what was observed lately; nothing observed gives no point in place of NaN."""
    grouped = by(", ".join(filter(None, (labels, "le"))), rate(f"{histogram}_bucket", *matchers))
    return f"histogram_quantile({share}, {grouped}) >= 0"


def quantile_now(share: float, histogram: str, *matchers: str, labels: str = "") -> str:
    """As `quantile`, of a gauge histogram: its buckets count what is there now, so there is no rate."""
    grouped = by(", ".join(filter(None, (labels, "le"))), series(f"{histogram}_bucket", *matchers))
    return f"histogram_quantile({share}, {grouped}) >= 0"


def age(name: str, *matchers: str, labels: str) -> str:
    """Seconds since the latest of these points in time; 0 means never, and gives no series."""
    return f"time() - ({by(labels, series(name, *matchers), 'max')} > 0)"


def builds(component: str = "") -> str:
    """The builds of brokers, of workers, or of both: only our processes have such a series."""
    return series("wgkex_build_info", *([f'component="{component}"'] if component else []))


def of(component: str, expression: str) -> str:
    """Only the targets that are, or within a day were, of a component, whatever their jobs are called.

    Metrics such as `up` carry no component, and the one that does is gone when the process is.
    """
    return f"{expression} and on (job, instance) last_over_time({builds(component)}[{REMEMBERED}])"


def named(expression: str, *kinds: str) -> str:
    """Give every series the name of its process on the bus as label `process`, or its instance if it shows no name.

    Series of other programs are left out.

    Args:
        expression: its series carry `job` and `instance`.
        kinds: `broker`, `worker`; by default both.
    """
    infos = [_as_process(series(f"wgkex_{kind}_info"), kind) for kind in kinds or ("broker", "worker")]
    unnamed = _as_process(by("job, instance", builds(kinds[0] if len(kinds) == 1 else ""), "max"), "instance")
    names = f"({' or '.join(infos)} or on (job, instance) {unnamed})"
    return f"({expression}) * on (job, instance) group_left ({PROCESS}) {names}"


def _as_process(expression: str, label: str) -> str:
    return f'label_replace({expression}, "{PROCESS}", "$1", "{label}", "(.+)")'


def by_process(expression: str, *kinds: str, operation: str = "sum") -> str:
    """One value for each process, under the name that it has on the bus."""
    return by(PROCESS, named(expression, *kinds), operation)


def per_worker(name: str) -> str:
    """One value per gateway of what every broker reports about it, without gateways that are not configured."""
    return by("worker", series(name, CONFIGURED), "max")


def worker_peers() -> str:
    """Connected peers per gateway, over its domains."""
    return by("worker", by("worker, domain", series("wgkex_broker_worker_peers", CONFIGURED), "max"))


def unconfirmed_share(labels: str = "", *matchers: str) -> str:
    """Accepted keys that gateways never confirmed, or could not install, over all that had an outcome.

    Gateways that are not configured count as well, as `unknown`: nodes do not know the difference.
    """
    confirmed = by(labels, increase("wgkex_broker_key_install_duration_seconds_count", *matchers))
    lost = " + ".join(
        by(labels, increase(name, *matchers))
        for name in ("wgkex_broker_keys_unconfirmed_total", "wgkex_broker_key_install_failures_total")
    )
    return ratio(f"({lost})", f"({confirmed} + {lost})")


def returned_share(labels: str = "") -> str:
    """Nodes that asked again after they were sent to a gateway, over all that were sent there."""
    returned, assigned = (
        by(labels, increase(name, CONFIGURED))
        for name in ("wgkex_broker_keys_returned_total", "wgkex_broker_worker_assigned_nodes_total")
    )
    return ratio(returned, assigned)


def worst(expression: str) -> str:
    """The highest one of several values."""
    return f"topk(1, {expression})"


def top_of_range(count: int, expression: str, rank: str) -> str:
    """The same `count` series at each point of a graph. `topk` alone chooses anew at each point, and draws dozens.

    Args:
        count: how many.
        expression: what is drawn.
        rank: what counts, of the same series, the highest first; its selectors or subqueries have `@ end()`, so that it
            is the same at each point.
    """
    return f"{expression} and topk({count}, {rank})"


def whole_range(expression: str) -> str:
    """The sum of all points in the time that is shown: what a series is ranked by."""
    return f"sum_over_time(({expression})[$__range:$__interval] @ end())"


def error_ratio(window: str) -> str:
    """Failures over valid submissions, from the recorded rates; `window` is one of those that are recorded."""
    return ratio(
        by("", series(failures_rate(window))),
        by("", series(valid_rate(window))),
    )


def burn_rate(window: str) -> str:
    """How many times as fast as the objective allows the error budget is spent."""
    return f"{error_ratio(window)} / {LIMITS.budget}"


def budget_left() -> str:
    """The part of 30 days' error budget that is left, never below 0.

    Rates over 30 days of a Prometheus that has an hour of data are those of this hour. To divide by them means that the
    hour was 30 days long, so one bad minute would use up the budget many times. What is known of the 30 days counts.
    """
    valid = by("", series(valid_rate("30d")))
    steps = milliseconds("30d") // milliseconds(_STEP)
    known = f"(clamp_max(count_over_time({valid}[30d:{_STEP}]) / {steps}, 1) or 0 * {valid})"
    return f"clamp_min(1 - {burn_rate('30d')} * {known}, 0)"
