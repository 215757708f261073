"""The runbook agrees with the program: sections, metrics, log events, settings and command lines exist."""

import re
import shlex
from functools import cache
from importlib.abc import InspectLoader
from importlib.util import find_spec
from itertools import pairwise
from pkgutil import walk_packages
from types import CodeType
from typing import Final

import pytest

import wgkex_ops
from tests.promql import FENCE, document, faults, known_series, names, queries
from wgkex_ops.__main__ import parser

PARTS: Final = (
    "First command",
    "What users notice",
    "What it means",
    "Check first",
    "Likely causes",
    "Remedy",
    "Queries",
)

# Words with underscores in commands and texts that belong to other programs.
OTHERS: Final = frozenset(
    {
        "acl_file",
        "ffmuc_welt",
        "max_inflight_messages",
        "use_username_as_clientid",
        "mosquitto_sub",
        "runbook_url",
        "scrape_timeout",
        "nf_conntrack_count",
        "nf_conntrack_max",
        "disable_ipv6",
        "s_client",
    }
)

WORD: Final = re.compile(r"(?<![\w./:-])[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?![\w:])")


def text() -> str:
    return document("runbook.md")


def sections() -> dict[str, str]:
    """The section of each alert, by its name."""
    pieces = re.split(r"^## (.+)$", text(), flags=re.MULTILINE)[1:]
    return {name: section for name, section in zip(pieces[::2], pieces[1::2], strict=True) if name.startswith("Wgkex")}


@cache
def program_texts() -> frozenset[str]:
    """Every string in the compiled package: names of log events, reasons and fields among them."""
    found: set[str] = set()
    pending: list[object] = [_code(module.name) for module in walk_packages(wgkex_ops.__path__, "wgkex_ops.")]
    while pending:
        match pending.pop():
            case CodeType() as code:
                pending += code.co_consts
            case tuple() | frozenset() as several:
                pending += several
            case str() as text:
                found.add(text)
    return frozenset(found)


def _code(module: str) -> CodeType | None:
    spec = find_spec(module)
    assert spec is not None
    assert isinstance(spec.loader, InspectLoader)
    return spec.loader.get_code(module)


def settings() -> frozenset[str]:
    return frozenset(re.findall(r"^\| `([\w.*]+)` \|", document("configuration.md"), re.MULTILINE))


def test_there_is_a_section_for_each_row_of_the_table_in_its_order() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \|", text(), re.MULTILINE)

    assert [name for name, _ in rows] == list(sections())
    assert all(anchor == name.lower() for name, anchor in rows)


@pytest.mark.parametrize("alert", sections())
def test_a_section_has_all_parts_in_order_and_none_is_empty(alert: str) -> None:
    found = list(re.finditer(r"^\*\*([^*\n]+)\.\*\*", sections()[alert], re.MULTILINE))

    assert tuple(match[1] for match in found) == PARTS
    ends = [match.start() for match in found[1:]] + [len(sections()[alert])]
    assert all(sections()[alert][match.end() : end].strip() for match, end in zip(found, ends, strict=True))
    first = sections()[alert][found[0].end() : found[1].start()]
    assert first.startswith(" `wgkex-ops "), "it begins with something to type"
    commands = FENCE.findall(sections()[alert][found[3].end() : found[4].start()])
    assert commands, "the first check is something to type"


@pytest.mark.parametrize("alert", sections())
def test_a_section_has_queries_with_a_line_that_says_what_they_show(alert: str) -> None:
    found = queries(sections()[alert].split("**Queries.**")[1])

    assert found
    assert all(re.match(r" *# \S", query) for query in found)


def test_every_metric_of_a_query_exists_and_has_the_labels_that_are_asked_for() -> None:
    found = queries(text())

    assert [fault for query in found for fault in faults(query)] == []
    assert len(frozenset[str]().union(*map(names, found))) > 20


@pytest.mark.parametrize(
    "query",
    [
        "wgkex_broker_key_request_total",
        "sum by (reasons) (wgkex_broker_key_failures_total)",
        'wgkex_worker_peers{status="active"}',
        "rate(wgkex_broker_key_publish_duration_seconds[5m])",
        "instance:wgkex_broker_key_failures:rate7d",
        "proces_start_time_seconds[5m]",
        "1",
    ],
)
def test_a_query_of_what_does_not_exist_is_found(query: str) -> None:
    assert list(faults(query))


def test_every_event_that_a_command_searches_for_exists() -> None:
    events = program_texts()
    searched: set[str] = set()
    for line in re.findall(r"journalctl (?:-u wgkex-.*)$", text(), re.MULTILINE):
        for pattern in re.findall(r"grep (?:-c |-E |-cE )*('[^']*'|\w+)", line):
            # Other members of a line than its event, and ids of requests.
            if re.search(r'"(level|reason|error)"|[0-9a-f]{32}', pattern):
                continue
            words = re.findall(r"[a-z_]+", pattern.replace('"event"', ""))
            for word in words:
                assert any(_matches(word, event) for event in events), line
            searched.update(words)

    assert {"stopped", "crashed", "key_failed", "peer_given_up", "mqtt_connection_failed"} <= searched


def _matches(word: str, event: str) -> bool:
    """Whole events, and the beginnings and ends of several, as in `mqtt_` and `_started`."""
    if word.endswith("_"):
        return event.startswith(word)
    return event.endswith(word) if word.startswith("_") else event == word


def test_every_event_that_is_named_as_one_exists() -> None:
    named = re.findall(r"log\s+events?\s+`(\w+)`", text())

    assert named
    assert set(named) <= program_texts()


def test_every_word_with_an_underscore_is_one_of_ours_or_a_known_one() -> None:
    prose = FENCE.sub(lambda match: "" if match[1] == "promql" else match[0], text())
    leaves = {name.split(".")[-1] for name in settings()}
    known = program_texts() | leaves | known_series().keys() | OTHERS
    # A word may be the beginning of several names, as in `grep mqtt_`; those end in an underscore, and are no WORD.
    words = set(WORD.findall(prose)) | set(re.findall(r"`([a-z]+_[a-z_]+)`", prose))

    assert words <= known
    assert words | set(re.findall(r"\w+", prose)) >= OTHERS, "a word that is no longer there"


def test_every_setting_that_is_named_exists() -> None:
    known = settings()
    sections_of = {name.split(".")[0] for name in known if "." in name}
    named = re.findall(rf"`((?:{'|'.join(sections_of)})\.[a-z_.]+)(?:: [^`]*)?`", text())

    assert len(named) > 5
    assert set(named) <= known


def test_every_command_line_is_taken_by_the_command() -> None:
    lines = re.findall(r"wgkex-ops ((?:broker|worker|up)(?: [^\s`&;|]+)*)", text())

    documented = set(re.findall(r"^\| `(--[a-z-]+)", document("commands.md"), re.MULTILINE))
    assert lines
    for line in lines:
        parser().parse_args(shlex.split(line))
        # The parser takes the beginning of an option for the option.
        assert {word for word in shlex.split(line) if word.startswith("--")} <= documented


def test_every_link_inside_the_runbook_leads_to_a_heading() -> None:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text()), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", text())) <= anchors


def test_each_query_is_there_once_in_a_section() -> None:
    for section in sections().values():
        found = sorted(queries(section))
        assert all(one != other for one, other in pairwise(found))
