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


def test_a_server_that_nobody_verifies() -> None:
    (warning,) = warnings(parse(with_mqtt("tls: {verify: false}"), "f"), None)
    assert warning.startswith("mqtt.tls.verify: false")
    for fine in ("tls: true", "tls: {verify: true}", "tls: false"):
        assert warnings(parse(with_mqtt(fine), "f"), None) == []
