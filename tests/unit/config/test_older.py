"""Keys of the older wgkex's ``parker`` branch: what loads, what is refused, and what means the same here."""

import difflib
import re
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import ROOT
from tests.unit.config.samples import MINIMAL, PARKER, problems
from wgkex_ops.config import load, load_web_config, older, parse, settings, warnings
from wgkex_ops.errors import ConfigError

MIGRATION: Final = ROOT / "docs" / "migration.md"
NO_PARKER: Final = (
    "asks for Parker, which wgkex-ops does not have; set false here, and keep the older wgkex for Parker nodes, with a "
    "file of its own"
)
TEXT: Final = "should be text; put it in quotes"
MAPPING: Final = "should be a mapping of settings"
BOOLEAN: Final = "should be true or false, without quotes"
IGNORED: Final = tuple(key.path for key in older.KEYS if key.same_as is None)


def warned(text: str) -> tuple[str, ...]:
    """The keys that are warned of."""
    found = warnings(parse(text, "f"), None)
    assert all(" has no effect here: " in warning for warning in found)
    return tuple(warning.split(":")[0] for warning in found)


# --- a whole file


def test_a_file_of_the_parker_branch() -> None:
    config = load(PARKER)
    assert config.workers == {"gw01.in.example.org": 40, "gw02.in.example.org": 1, "gw03.in.example.org": 1}
    assert config.locations == {"gw01.in.example.org": "north"}
    cleanup = config.cleanup
    assert (cleanup.interval, cleanup.stale_after, cleanup.never_after) == (1800, 7200, 900)
    assert (config.external_name, config.mqtt.port, config.log_level) == ("gw01.ext.example.org", 1884, "warning")
    assert warned(PARKER.read_text()) == IGNORED
    assert "not-a-secret" not in repr(config)


def test_the_file_has_every_older_key() -> None:
    text = PARKER.read_text()
    assert [path for path in older.PATHS if not re.search(rf"^ *{path.split('.')[-1]}:", text, re.MULTILINE)] == []


def test_a_file_without_older_keys_has_no_warning() -> None:
    assert parse(MINIMAL, "f").ignored_keys == ()
    assert warned(MINIMAL) == ()


def test_older_keys_are_no_settings() -> None:
    assert not set(older.PATHS) & set(settings())


# --- one key


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("workers: {gw01: {id: 1}}", "workers.*.id"),
        ("workers: {gw01: {id: 0}, gw02: {id: 4294967295}}", "workers.*.id"),
        ("workers: {gw01: {id:}}", "workers.*.id"),
        ("sticky_worker_tolerance: 15", "sticky_worker_tolerance"),
        ("sticky_worker_tolerance: 0", "sticky_worker_tolerance"),
        ("sticky_worker_tolerance:", "sticky_worker_tolerance"),
        ("cleanup: {parker_stale_timeout: 300}", "cleanup.parker_stale_timeout"),
        ("cleanup: {parker_stale_timeout:}", "cleanup.parker_stale_timeout"),
        ("parker: false", "parker"),
        ("parker: 0", "parker"),
        ("parker:", "parker"),
        ("parker: {}", "parker"),
        ("parker: {enabled: false}", "parker"),
        ("parker: {enabled: 0, 464xlat: true, ipam: json}", "parker"),
        ("parker: {retry_interval: 120, prefixes:}", "parker"),
        ("broker_signing_key:", "broker_signing_key"),
        ("broker_signing_key: ''", "broker_signing_key"),
        ("broker_signing_key: false", "broker_signing_key"),
        ("netbox:", "netbox"),
        ("netbox: false", "netbox"),
        ("netbox: {}", "netbox"),
        ("netbox: {url: '', api_key: SECRET}", "netbox"),
        # Without Parker, there is nobody whom they are for.
        ("broker_signing_key: SECRET", "broker_signing_key"),
        ("netbox: {url: http://SECRET}", "netbox"),
    ],
)
def test_a_key_that_asks_for_nothing_has_no_effect(lines: str, key: str) -> None:
    config = parse(MINIMAL + lines, "f")
    assert (config.ignored_keys, warned(MINIMAL + lines)) == ((key,), (key,))
    assert set(config.workers.values()) <= {1}
    assert config.cleanup == parse(MINIMAL, "f").cleanup


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("parker: true", f"parker (line 5): {NO_PARKER}"),
        ("parker: 1", f"parker (line 5): {NO_PARKER}"),
        ("parker:\n  enabled: true", f"parker.enabled (line 6): {NO_PARKER}"),
        ("parker: {enabled: 'True', ipam: json}", f"parker.enabled (line 5): {NO_PARKER}"),
    ],
)
def test_what_is_asked_for_and_missing_here(lines: str, expected: str) -> None:
    assert problems(MINIMAL + lines) == (expected,)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("workers: {gw01: {id: -1}}", "workers.gw01.id (line 5): should be greater than or equal to 0"),
        ("workers: {gw01: {id: true}}", "workers.gw01.id (line 5): should be a number, not true or false"),
        ("workers: {gw01: {pop: [north]}}", f"workers.gw01.pop (line 5): {TEXT}"),
        ("sticky_worker_tolerance: 101", "sticky_worker_tolerance (line 5): should be less than or equal to 100"),
        ("sticky_worker_tolerance: false", "sticky_worker_tolerance (line 5): should be a number, not true or false"),
        ("cleanup: {parker_stale_timeout: 0}", "cleanup.parker_stale_timeout (line 5): should be greater than 0"),
        ("parker: maybe", "parker (line 5): should be true, false or a mapping"),
        ("parker: []", f"parker (line 5): {MAPPING}"),
        ("parker: {enabled: 'false'}", f"parker.enabled (line 5): {BOOLEAN}"),
        ("parker: {ipam: file}", "parker.ipam (line 5): should be 'json' or 'netbox'"),
        ("parker: {prefixes: 63}", f"parker.prefixes (line 5): {MAPPING}"),
        (
            "parker:\n  prefixes: {ipv6: {length: 129}}",
            "parker.prefixes.ipv6.length (line 6): should be less than or equal to 128",
        ),
        ("broker_signing_key: true", f"broker_signing_key (line 5): {TEXT}"),
        ("broker_signing_key: {SECRET: SECRET}", f"broker_signing_key (line 5): {TEXT}"),
        ("netbox: http://SECRET", f"netbox (line 5): {MAPPING}"),
        ("netbox: {api_key: [SECRET]}", f"netbox.api_key (line 5): {TEXT}"),
    ],
)
def test_wrong_value(lines: str, expected: str) -> None:
    assert problems(MINIMAL + lines) == (expected,)


def test_all_keys_at_once() -> None:
    """What is missing here is reported together with all else that is wrong."""
    lines = (
        "workers: {gw01: {id: 1, pop: north, weight: -1}}\nsticky_worker_tolerance: 15\n"
        "parker: {enabled: true, ipam: netbox}\nbroker_signing_key: SECRET\nnetbox: {url: a, api_key: SECRET}\n"
    )
    assert problems(MINIMAL + lines) == (
        "workers.gw01.weight (line 5): should be greater than or equal to 0",
        f"parker.enabled (line 7): {NO_PARKER}",
    )


@pytest.mark.parametrize(
    "lines", ["broker_signing_key: {SECRET: 1, SECRET: 2}", "netbox: {api_key: {SECRET: !SECRET}}"]
)
def test_what_stands_below_a_secret_is_not_shown(lines: str) -> None:
    assert "SECRET" not in "".join(problems(MINIMAL + lines))


# --- the same by another name

SAME: Final = [("legacy_stale_timeout", "stale_after", 7200), ("initial_handshake_grace", "never_after", 900)]


@pytest.mark.parametrize(("key", "same", "value"), SAME)
def test_a_key_that_means_the_same(key: str, same: str, value: int) -> None:
    expected = parse(f"{MINIMAL}cleanup: {{{same}: {value}}}", "f")
    for lines in (f"{key}: {value}", f"{key}: {value}, {same}:", f"{key}: '', {same}: {value}"):
        text = f"{MINIMAL}cleanup: {{{lines}}}"
        assert (parse(text, "f"), warned(text)) == (expected, ())
    assert parse(f"{MINIMAL}cleanup: {{{key}:}}", "f") == parse(MINIMAL, "f")


@pytest.mark.parametrize(("key", "same", "value"), SAME)
def test_both_names_at_once(key: str, same: str, value: int) -> None:
    """What is wrong with either is reported where it stands."""
    both = f"cleanup.{key} (line 6): means the same as {same}, which is there, too; remove one"
    assert problems(f"{MINIMAL}cleanup:\n  {key}: {value}\n  {same}: {value}") == (both,)
    (_, wrong) = problems(f"{MINIMAL}cleanup:\n  {key}: {value}\n  {same}: x")
    assert wrong.startswith(f"cleanup.{same} (line 7): should be a valid number")


@pytest.mark.parametrize(("key", "lowest"), [("legacy_stale_timeout", 600), ("initial_handshake_grace", 60)])
def test_a_wrong_value_has_the_name_in_the_file(key: str, lowest: int) -> None:
    for value, sentence in (
        (lowest - 1, f"should be greater than or equal to {lowest}"),
        ("true", "should be a number, not true or false"),
        ("[]", "should be a valid number"),
    ):
        assert problems(f"{MINIMAL}cleanup:\n  {key}: {value}") == (f"cleanup.{key} (line 6): {sentence}",)


def test_pop_is_a_location() -> None:
    expected = parse(MINIMAL + "workers: {gw01: {location: north}, gw02: {}}", "f")
    assert expected.locations == {"gw01": "north"}
    for lines in ("pop: north", "pop: North, location:", "pop: '', location: NORTH"):
        text = f"{MINIMAL}workers: {{gw01: {{{lines}}}, gw02: {{pop:}}}}"
        assert (parse(text, "f"), warned(text)) == (expected, ())
    (problem,) = problems(MINIMAL + "workers: {gw01: {pop: north, location: north}}")
    assert problem == "workers.gw01.pop (line 5): means the same as location, which is there, too; remove one"
    (problem,) = problems(MINIMAL + "workers: {gw01: {pop: the north}}")
    assert problem.startswith("workers.gw01.pop (line 5): should be at most 64 letters")


# --- unknown keys


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("parkr: true", "parkr (line 5): unknown key; did you mean parker?"),
        ("parker: {enabeld: true}", "parker.enabeld (line 5): unknown key; did you mean enabled?"),
        (
            "parker: {prefixes: {ipv4: {lenght: 22}}}",
            "parker.prefixes.ipv4.lenght (line 5): unknown key; did you mean length?",
        ),
        ("netbox: {token: SECRET}", "netbox.token (line 5): unknown key; known here: url, api_key"),
        ("workers: {gw01: {popp: a}}", "workers.gw01.popp (line 5): unknown key; did you mean pop?"),
        ("cleanup: {stale_afer: 1}", "cleanup.stale_afer (line 5): unknown key; did you mean stale_after?"),
        (
            "cleanup: {legacy_timeout: 1}",
            "cleanup.legacy_timeout (line 5): unknown key; did you mean legacy_stale_timeout?",
        ),
        # Not where it is unknown, and not by mere chance.
        (
            "metrics: {enabled: 1}",
            "metrics.enabled (line 5): unknown key; known here: per_peer, per_peer_limit, peer_names",
        ),
    ],
)
def test_unknown_key(lines: str, expected: str) -> None:
    assert problems(MINIMAL + lines) == (expected,)


def test_a_typo_of_a_setting_never_suggests_an_older_key() -> None:
    """One letter left out, or two swapped."""
    for setting in settings():
        *above, key = setting.split(".")
        older_here = [path.split(".")[-1] for path in older.PATHS if path.split(".")[:-1] == above]
        here = [path.split(".")[-1] for path in settings() if path.split(".")[:-1] == above]
        typos = [key[:at] + key[at + 1 :] for at in range(len(key))]
        typos += [key[:at] + key[at + 1 : at + 2] + key[at : at + 1] + key[at + 2 :] for at in range(len(key))]
        suggested = {close for typo in typos for close in difflib.get_close_matches(typo, here + older_here, n=1)}
        assert not suggested & set(older_here), setting


def test_a_web_configuration_file_knows_none_of_them(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text("netbox:\n")
    with pytest.raises(ConfigError, match=r"netbox.*unknown key; known here: tls_server_config"):
        load_web_config(path)


# --- the document


def test_migration_has_every_key_and_no_other() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| .+ \|$", MIGRATION.read_text(), re.MULTILINE)
    expected = [
        (
            key.path,
            "no effect" if key.same_as is None else f"the same as `{key.path.rpartition('.')[0]}.{key.same_as}`",
        )
        for key in older.KEYS
    ]
    assert rows == expected
