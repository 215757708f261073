"""Finding and reading the file; what is not YAML; hostile files; secrets."""

from pathlib import Path

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.config.samples import BROKEN, MINIMAL, OLD, PARKER, problems
from wgkex_ops.config import config_path, file_version, load, older, parse, settings
from wgkex_ops.errors import ConfigError

# --- the file


@pytest.mark.parametrize(
    ("argument", "environ", "expected"),
    [
        ("a.yaml", {"WGKEX_CONFIG_FILE": "b.yaml"}, "a.yaml"),
        (None, {"WGKEX_CONFIG_FILE": "b.yaml"}, "b.yaml"),
        (None, {"WGKEX_CONFIG_FILE": ""}, "/etc/wgkex.yaml"),
        (None, {}, "/etc/wgkex.yaml"),
    ],
)
def test_config_path(argument: str | None, environ: dict[str, str], expected: str) -> None:
    assert config_path(None if argument is None else Path(argument), environ) == Path(expected)


def test_a_file_whose_permissions_have_changed_has_changed(tmp_path: Path) -> None:
    """A certificate is copied first, and given to us then."""
    file = tmp_path / "broker.key"
    file.touch(0o600)
    before = file_version(file)
    file.chmod(0o640)
    assert file_version(file) != before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nonexistent", "/nonexistent: does not exist; name a file with --config or WGKEX_CONFIG_FILE"),
        ("/", "/: cannot be read: Is a directory"),
        # Reading it fails for root, too, whom permissions do not stop.
        ("/proc/self/mem", "/proc/self/mem: cannot be read: Input/output error"),
        ("/dev/zero", "/dev/zero: is larger than 131072 bytes, which no such file is"),
    ],
)
def test_file_that_cannot_be_read(path: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Path(path))
    assert caught.value.problems == (message,)
    assert caught.value.__context__ is None


def test_encoding(tmp_path: Path) -> None:
    path = tmp_path / "wgkex.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load(path) == parse(MINIMAL, "f")
    path.write_bytes(MINIMAL.encode() + "  password: SECRETä\n".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.problems == (f"{path}: line 5: is not UTF-8; save the file in that encoding",)
    # It would quote the file.
    assert caught.value.__context__ is None


def test_a_thousand_domains_and_workers(tmp_path: Path) -> None:
    path = tmp_path / "wgkex.yaml"
    workers = "".join(f"  gateway{number:04}.in.example.net:\n    weight: {number}\n" for number in range(1000))
    domains = "".join(f"  - ffmuc_{number:011}\n" for number in range(1000))
    path.write_text(f"domains:\n{domains}domain_prefixes: [ffmuc_]\nmqtt: {{broker_url: a}}\nworkers:\n{workers}")
    config = load(path)
    assert (len(config.domains), len(config.workers)) == (1000, 1000)


# --- YAML


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty; start from what wgkex-ops example-config prints"),
        ("# nothing\n", "is empty; start from what wgkex-ops example-config prints"),
        ("- a", "should be a mapping of settings; start from what wgkex-ops example-config prints"),
        ("wgkex", "should be a mapping of settings; start from what wgkex-ops example-config prints"),
    ],
)
def test_file_without_settings(text: str, expected: str) -> None:
    assert problems(text) == (expected,)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("  username: *a", "line 5: cannot be read at column 13: found undefined alias …"),
        (
            "  username: &a a\n  password: &a a",
            (
                "line 6: cannot be read at column 13: found duplicate anchor …; first occurrence (line 5), "
                "second occurrence"
            ),
        ),
        ("  username: @a", "line 5: cannot be read at column 13: found character … that cannot start any token"),
        ("\tusername: a", r"line 5: cannot be read at column 1: found character '\t' that cannot start any token"),
        ("  username: a: b", "line 5: cannot be read at column 14: mapping values are not allowed here"),
        ("  username: - a", "line 5: cannot be read at column 13: sequence entries are not allowed here"),
        (
            "  username: 'a\nworker: {}\n",
            (
                "line 7: cannot be read at column 1: while scanning a quoted scalar (line 5), "
                "found unexpected end of stream"
            ),
        ),
        (
            "  username\nworker: {}\n",
            "line 6: cannot be read at column 1: while scanning a simple key (line 5), could not find expected ':'",
        ),
        (
            "workers: [a, b\nworker: {}\n",
            (
                "line 6: cannot be read at column 7: while parsing a flow sequence (line 5), "
                "expected ',' or ']', but got ':'"
            ),
        ),
        (
            " worker: {}\n",
            (
                "line 5: cannot be read at column 2: while parsing a block mapping (line 1), expected <block end>, "
                "but found '<block mapping start>'"
            ),
        ),
        (
            "---\n",
            (
                "line 5: cannot be read at column 1: expected a single document in the stream (line 1), "
                "but found another document"
            ),
        ),
        ("  username: a\x07", "line 5: has a character that YAML does not allow"),
        ('  username: "\\UFFFFFFFF"', "is not valid YAML"),
    ],
)
def test_not_yaml(lines: str, expected: str) -> None:
    assert problems(MINIMAL + lines) == (expected,)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("mqtt: {}", ("mqtt (line 5): is given twice, first on line 3; remove one",)),
        ("? [a]\n: b", ("line 5: has a key that is not text",)),
        (
            "workers: !!set {gw01}",
            ("workers (line 5): has a YAML tag, which is not allowed; put a text that starts with '!' in quotes",),
        ),
        ("broker_listen:\n  <<: 3", ("broker_listen (line 6): has a '<<' of something that is not a mapping",)),
        # A problem is where the value stands, not where it is used.
        (
            "logging_config: &a\n  port: x\nbroker_listen:\n  <<: *a",
            ("broker_listen.port (line 6): should be a valid integer, unable to parse string as an integer",),
        ),
        # What stands below a password may be a piece of it.
        (
            "  password: {SECRET: 1, SECRET: 2}",
            (
                "mqtt.password (line 5): is given twice, first on line 5; remove one",
                "mqtt.password (line 5): should be text; put it in quotes",
            ),
        ),
        ('"\\ud800\\e": 1', ("should be a valid string, unable to parse raw data as a unicode string",)),
        (
            'mqt: 1\n"\\e[31m": 1',
            (r"mqt (line 5): unknown key; did you mean mqtt?", r"'\x1b[31m' (line 6): unknown key; known here: "),
        ),
    ],
)
def test_structure(lines: str, expected: tuple[str, ...]) -> None:
    found = problems(MINIMAL + lines)
    assert len(found) == len(expected)
    assert all(problem.startswith(beginning) for problem, beginning in zip(found, expected, strict=True))


# --- hostile files

NAMES = tuple(zip("abcdefgh", "bcdefghi", strict=True))


def nine(name: str) -> str:
    return f"[{', '.join([f'*{name}'] * 9)}]"


@pytest.mark.parametrize(
    "text",
    [
        "logging_config:\n- &a x\n" + "".join(f"- &{name} {nine(before)}\n" for before, name in NAMES),
        "logging_config:\n- &a {x: 1}\n" + "".join(f"- &{name} {{<<: {nine(before)}}}\n" for before, name in NAMES),
        # No bomb, but as many problems as there are workers times keys.
        (
            f"logging_config: &a {{{', '.join(f'k{number}: 1' for number in range(1000))}}}\n"
            f"workers: {{{', '.join(f'gw{number}: *a' for number in range(1000))}}}"
        ),
    ],
    ids=["lists", "merged", "product"],
)
def test_aliases_cannot_explode(text: str) -> None:
    (problem,) = problems(MINIMAL + text)
    assert "there are more than 10000 values, each alias counted as what it stands for" in problem


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "a: " + "{b: " * 30_000,
        "- " * 50_000,
        "workers: &a {gw01: *a}",
        "workers: &a {<<: *a}",
        "workers: &a [*a, *a]",
    ],
    ids=["brackets", "braces", "dashes", "itself", "merges itself", "itself twice"],
)
def test_too_deep(text: str) -> None:
    assert problems(text) == ("is nested too deeply, or has an anchor that contains itself",)


@pytest.mark.parametrize("number", ["9" * 100_000, "1:" * 50_000 + "1", "1e" + "9" * 100_000, "0." + "9" * 100_000])
def test_long_numbers_are_refused_at_once(number: str) -> None:
    found = problems(
        MINIMAL + f"  broker_port: {number}\nworkers: {{gw01: {{weight: -{number}}}}}\nlog_level: {number}\n"
    )
    assert [problem.split(" ")[0] for problem in found] == ["mqtt.broker_port", "workers.gw01.weight", "log_level"]
    assert all(len(problem) < 120 for problem in found)


# --- secrets


@pytest.mark.parametrize(
    "value",
    [
        *("SECRET: SECRET", "{SECRET}", "[SECRET]", "{SECRET: SECRET}", "[SECRET, {SECRET: SECRET, SECRET: SECRET}]"),
        *(
            "- SECRET",
            "? SECRET",
            "'SECRET",
            "'SECRET'SECRET",
            '"SECRET\\q"',
            '"\\xSECRET"',
            "[SECRET",
            "{SECRET: [SECRET",
        ),
        *("!SECRET", "!SECRET SECRET", "!S!SECRET SECRET", "!!SECRET SECRET", "!<SECRET SECRET", "!%SECRET SECRET"),
        *("*SECRET", "&SECRET", "&SECRET SECRET\n  username: &SECRET a", "&SECRET {<<: *SECRET}", "{<<: SECRET}"),
        *("@SECRET", "`SECRET", "%SECRET", "|SECRET", ">SECRET", "\n\tSECRET", "a\n SECRET", "SECRET\n---\nSECRET: a"),
        *('"SECRET\\ud800"', "SECRET\x07", "yes", "!!binary SECRET", "!!int SECRET", "!!bool SECRET"),
    ],
)
def test_no_mistake_around_the_password_shows_it(value: str) -> None:
    """The last lines make sure of a problem, whether or not the password is one."""
    found = problems(MINIMAL + f"  password: {value}\n  wrong: 1\n")
    assert not [problem for problem in found if "SECRET" in problem]


# --- anything


def parse_or_refuse(text: str) -> tuple[str, ...]:
    """Check that there is a configuration or a list of problems, each on one line, and return the problems."""
    found: tuple[str, ...] = ()
    try:
        parse(text, "f")
    except ConfigError as error:
        found = error.problems or ("no problem",)
    assert all(problem.startswith("f: ") and problem.isprintable() for problem in found)
    return found


# Milliseconds: far more than any example needs, on a busy machine, too.
bounded = hypothesis.settings(deadline=10_000)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.binary(max_size=4)
    | st.text(max_size=8)
    | st.sampled_from(["ffmuc_welt", "ffmuc_", "127.0.0.1", "5", "DEBUG", "kernel", "true", "/", "\ud800"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(settings() + older.PATHS), values, max_size=12), values)
@bounded
@hypothesis.example({}, {"[key]": None, "workers": {"[key]": 1, "gw01": {"[key]": 1}, "gw/1": {"weight": "x"}}})
def test_any_values_are_a_configuration_or_problems(chosen: dict[str, object], other: object) -> None:
    """Known settings with any values, so that what is wrong is deep inside, too."""
    data: dict[str, object] = yaml.safe_load(MINIMAL)
    for path, value in sorted(chosen.items()):
        section: object = data
        *parents, key = path.replace("*", "gw01").split(".")
        for parent in parents:
            section = section.setdefault(parent, {}) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[key] = value
    parse_or_refuse(yaml.safe_dump(data))
    parse_or_refuse(yaml.safe_dump(other))


@given(st.text(alphabet=st.characters() | st.sampled_from("{}[],:&*!|>'\"%@`?-# \n\t\\x08uUsf01.<~"), max_size=60))
@bounded
@hypothesis.example('"\\U7fffffff"')
@hypothesis.example("%YAML " + "9" * 5000 + ".1\n---\na")
@hypothesis.example("!!int ''")
@hypothesis.example("? ? ? a")
@hypothesis.example("a: !<!> b")
def test_any_text_is_a_configuration_or_problems(text: str) -> None:
    parse_or_refuse(text)
    parse_or_refuse(MINIMAL + text)
    parse_or_refuse(MINIMAL + "log_level: " + text)


@given(st.sampled_from([OLD, PARKER, BROKEN]), st.data())
@bounded
def test_a_damaged_file_is_a_configuration_or_problems(path: Path, data: st.DataObject) -> None:
    """The password is not near enough to a setting that may be shown to get there."""
    text = path.read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    found = parse_or_refuse(text[:start] + data.draw(st.text(max_size=5)) + text[end:])
    assert not [problem for problem in found if "not-a-secret" in problem or "SECRET" in problem]
