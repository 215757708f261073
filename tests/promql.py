"""The queries of the documents, and the metrics that they may ask for."""

import re
from collections.abc import Iterator
from typing import Final

from alerts.rules import groups
from alerts.settings import Settings
from tests.helpers import ROOT

FENCE: Final = re.compile(r"^ *```([a-z]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

# What the suffix of a histogram's sample is, over the name in the reference.
_SAMPLES: Final = {"histogram": ("_bucket", "_sum", "_count"), "gaugehistogram": ("_bucket", "_gsum", "_gcount")}
# Those of Prometheus, of the client library, and of Alertmanager, which are not ours to document.
_FOREIGN: Final = re.compile(
    r"up|ALERTS|scrape_(duration_seconds|samples_scraped)|alertmanager_notifications_failed_total"
    r"|process_(cpu_seconds_total|start_time_seconds|resident_memory_bytes|open_fds|max_fds)"
)
# Labels that Prometheus, its alerts, its histograms and Alertmanager have.
_COMMON_LABELS: Final = frozenset(
    {"job", "instance", "le", "alertname", "alertstate", "severity", "service", "integration"}
)
_NAME: Final = re.compile(r"(?<![\w:])(?:[a-z]+:)?(?:wgkex|wireguard)_\w+(?::\w+)?")
# Other series: what has a selector or a window, and what stands alone in parentheses or in the whole query.
_SERIES: Final = re.compile(r"(?<![\w:])\w+(?= *[{\[])|(?<=\()[a-z]+(?=\))|\A\w+\Z")
_GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right) *\(([^)]*)\)")


def document(name: str) -> str:
    """The text of a file in docs/."""
    return (ROOT / "docs" / name).read_text()


def queries(text: str) -> list[str]:
    """PromQL expressions, as they are pasted."""
    return [code for language, code in FENCE.findall(text) if language == "promql"]


def known_series() -> dict[str, frozenset[str]]:
    """Names of series as one queries them, with their labels, from the reference and the recording rules."""
    reference = document("metrics.md")
    known: dict[str, frozenset[str]] = {}
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", reference, re.MULTILINE):
        for suffix in _SAMPLES.get(kind, ("",)):
            known[name + suffix] = frozenset(re.findall(r"`(\w+)`", labels))
    for group in groups(Settings()):
        rules = group["rules"]
        assert isinstance(rules, list)
        # What stands before the first colon of a recorded name is the label that is left.
        known |= {rule["record"]: frozenset({rule["record"].split(":")[0]}) for rule in rules if "record" in rule}
    return known


def names(query: str) -> frozenset[str]:
    """Our metrics in a query."""
    return frozenset(_NAME.findall(_bare(query)))


def faults(query: str) -> Iterator[str]:
    """Metrics and labels of a query that do not exist."""
    known = known_series()
    bare = _bare(query)
    ours = names(query)
    others = frozenset(_SERIES.findall(_GROUPING.sub(" ", bare).strip())) - ours
    if not ours | others:
        yield f"no series in {query}"
    yield from (f"no metric {name}" for name in ours if name not in known)
    yield from (f"no metric {name}" for name in others if not _FOREIGN.fullmatch(name))
    labels = _COMMON_LABELS.union(*(known.get(name, ()) for name in ours))
    asked = re.findall(r"(\w+) *(?:=~|!~|!=|=)", "".join(re.findall(r"{[^}]*}", bare)))
    asked += re.findall(r"\w+", " ".join(match[1] for match in _GROUPING.finditer(bare)))
    yield from (f"no label {label} in {query}" for label in asked if label not in labels)


def _bare(query: str) -> str:
    """A query without its strings and remarks."""
    return re.sub(r"#.*", "", re.sub(r'"[^"]*"', '""', query))
