"""What is allowed, and better changed."""

from pathlib import Path

import pytest

from tests.unit.config.samples import MINIMAL
from wgkex_ops.config import parse, warnings


def with_mqtt(setting: str) -> str:
    return f"{MINIMAL}  {setting}\n"


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o604, True), (0o640, False), (0o600, False)])
def test_a_password_that_everybody_can_read(tmp_path: Path, mode: int, warned: bool) -> None:
    path = tmp_path / "wgkex.yaml"
    path.touch()
    path.chmod(mode)
    found = warnings(parse(with_mqtt("password: secret"), "f"), path)
    assert [str(path) in warning for warning in found] == [True] * warned
    assert "secret" not in "".join(found)
    assert warnings(parse(MINIMAL, "f"), path) == []
    assert warnings(parse(with_mqtt("password: secret"), "f"), None) == []
    own = f"{MINIMAL}worker: {{username: gw01, password: secret}}\n"
    assert [str(path) in warning for warning in warnings(parse(own, "f"), path)] == [True] * warned


def test_a_server_that_nobody_verifies() -> None:
    (warning,) = warnings(parse(with_mqtt("tls: {verify: false}"), "f"), None)
    assert warning.startswith("mqtt.tls.verify: false")
    for fine in ("tls: true", "tls: {verify: true}", "tls: false"):
        assert warnings(parse(with_mqtt(fine), "f"), None) == []


def test_the_port_for_tls_without_tls() -> None:
    (warning,) = warnings(parse(with_mqtt("broker_port: 8883"), "f"), None)
    assert warning.startswith("mqtt.broker_port: 8883 is the usual port for TLS")
    assert warning.endswith("; set mqtt.tls: true")
    for fine in ("broker_port: 8883\n  tls: true", "broker_port: 1883", "broker_port: 8884"):
        assert warnings(parse(with_mqtt(fine), "f"), None) == []


CUT = (
    "password: abc #def",
    "password: #def",
    "password:\n    abc #def",
    "password: abc #def # and a comment",
    "password: abc #'def'",
    "password: 0123 #4",
    "password: &anchor abc #def",
    "password: ü #def",
)

WHOLE = (
    "password: abc#def",
    "password: abc # comment",
    "password: abc  #comment",
    "password: abc #",
    "password: abc ### comment",
    "password: 'abc #def'",
    'password: "abc #def"',
    "password: 'abc' #comment",
    "password: abc\n  #keepalive: 5",
    "password: |\n    abc #def",
    "username: abc #def",
)


@pytest.mark.parametrize("setting", CUT)
def test_a_password_that_a_comment_has_cut(setting: str) -> None:
    (warning,) = warnings(parse(with_mqtt(setting), "f"), None)
    assert warning.startswith("mqtt.password (line 5): ends before ' #'")
    assert "put all of it in single quotes" in warning.rpartition("; ")[2]
    assert not any(part in warning for part in ("abc", "def", "0123"))


@pytest.mark.parametrize("setting", WHOLE)
def test_a_comment_that_has_cut_nothing(setting: str) -> None:
    assert warnings(parse(with_mqtt(setting), "f"), None) == []


def test_each_password_is_named_once_with_its_line() -> None:
    """Also in a mapping of one line's form, with the line ends of Windows, and where an alias repeats it."""
    text = with_mqtt("password: &it abc #def").replace("\n", "\r\n")
    found = warnings(parse(f"{text}operator: {{username: me, password: *it}}\n", "f"), None)
    assert [warning.partition(":")[0] for warning in found] == ["mqtt.password (line 5)", "operator.password (line 6)"]
    text = f"{MINIMAL}operator: {{username: me, password: abc #def\n  }}\n"
    assert [warning.partition(":")[0] for warning in warnings(parse(text, "f"), None)] == ["operator.password (line 5)"]


def test_a_secret_without_effect_is_none_that_matters() -> None:
    (warning,) = warnings(parse(f"{MINIMAL}netbox:\n  api_key: abc #def\n", "f"), None)
    assert "has no effect here" in warning
