"""What is written about the settings: docs/configuration.md and wgkex.yaml.example."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.helpers import ROOT
from tests.unit.config.samples import MINIMAL, problems
from wgkex_ops.config import TlsConfig, load, parse, settings

EXAMPLE: Final = ROOT / "wgkex.yaml.example"
REFERENCE: Final = ROOT / "docs" / "configuration.md"


def uncommented(text: str) -> str:
    """Make the example one in which every setting is set: `#key` is a setting, `# word` is explanation."""
    return re.sub(r"^( *)#(?=\S)", r"\1", text, flags=re.MULTILINE)


def paths(data: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """List the settings of a file with their values, as settings() spells them."""
    for key, value in data.items() if isinstance(data, dict) else ():
        path = prefix + ("*" if prefix == "workers." else key)
        if path != "workers.*":
            yield path, value
        yield from paths(value, path + ".")


def test_example_is_valid_as_it_stands() -> None:
    config = load(EXAMPLE)
    assert [domain.name for domain in config.domains][-1] == "ffmuc_welt"
    assert config.workers == {"gw01.example.net": 30, "gw02.example.net": 30, "gw03.example.net": 20}
    # What else it sets are defaults.
    needed = ("domain_prefixes", "domain_names", "listed_workers")
    defaults = parse(MINIMAL, "f").model_copy(update={field: getattr(config, field) for field in needed})
    assert config == defaults


def test_example_has_every_setting_and_no_other(tmp_path: Path) -> None:
    text = uncommented(EXAMPLE.read_text())
    assert {path for path, _ in paths(yaml.safe_load(text))} == set(settings())
    for name in ("ca.pem", "client.pem", "client.key", "broker.crt", "broker.key"):
        (tmp_path / name).touch()
    config = parse(text.replace("/etc/wgkex/", f"{tmp_path}/"), "f")
    assert config.mqtt.tls == TlsConfig(
        ca_file=tmp_path / "ca.pem", cert_file=tmp_path / "client.pem", key_file=tmp_path / "client.key"
    )
    assert config.external_name == "gw01.example.net"


def test_example_names_the_users_of_each_setting() -> None:
    """The users stand in brackets at the beginning of the comment above, which several lines may share."""
    users = ""
    above = ""
    for line in EXAMPLE.read_text().splitlines():
        if line.lstrip().startswith("# "):
            if not above.lstrip().startswith("# "):
                match = re.match(r" *# \[(.*?)\]", line)
                users = match.group(1) if match else ""
        elif re.match(r" *#?[a-z]", line, re.IGNORECASE):
            assert users in {"broker", "worker", "broker, worker", "probe", "operator"}, line
        above = line


def reference() -> dict[str, tuple[str, str]]:
    """The type and the default of each setting in the table, as they are written there."""
    rows = re.findall(
        r"^\| `(.+?)` \| (.*?) \| (.*?) \| (?:broker|worker|both|probe|operator) \| .+ \|$",
        REFERENCE.read_text(),
        re.MULTILINE,
    )
    found = {path: (kind, default) for path, kind, default in rows}
    assert len(found) == len(rows)
    return found


def bounds() -> dict[str, tuple[int, int]]:
    """The settings whose type in the table has bounds, as in "seconds, 0 to 300"."""
    types = {path: re.search(r"(\d+) to (\d+)", kind) for path, (kind, _) in reference().items()}
    return {path: (int(match[1]), int(match[2])) for path, match in types.items() if match}


def test_reference_has_every_setting_and_no_other() -> None:
    assert list(reference()) == list(settings())


def given_value(path: str, value: object) -> dict[str, Any]:
    """Make a file with one setting more than it needs; None for the sections that it is in and nothing else."""
    data: dict[str, Any] = yaml.safe_load(MINIMAL)
    *parents, key = path.replace("*", "gw01").split(".")
    section = data
    for parent in parents:
        section = section.setdefault(parent, {})
    if value is not None:
        section[key] = value
    return data


@pytest.mark.parametrize("path", settings())
def test_reference_has_the_defaults(path: str) -> None:
    _, default = reference()[path]
    if default == "needed":
        data = section = given_value(path, None)
        *parents, key = path.split(".")
        for parent in parents:
            section = section[parent]
        section.pop(key, None)
        assert any(problem.startswith(path) and "is missing" in problem for problem in problems(yaml.safe_dump(data)))
    elif default == "the worker's name":
        assert parse(MINIMAL, "f").external_name is None
    elif default == "the host's name":
        config = parse(MINIMAL, "f")
        assert {"broker.name": config.broker.name, "worker.name": config.worker.name}[path] == socket.gethostname()
    elif path == "log_level":
        # It has the default of `logging_config`.
        assert parse(MINIMAL, "f").log_level == default.strip("`")
    else:
        value = yaml.safe_load(default.strip("`"))
        with_default = parse(yaml.safe_dump(given_value(path, value)), "f")
        assert with_default == parse(yaml.safe_dump(given_value(path, None)), "f")


@pytest.mark.parametrize(("path", "lowest", "highest"), [(path, *ends) for path, ends in bounds().items()])
def test_reference_has_the_bounds(path: str, lowest: int, highest: int) -> None:
    for value in (lowest, highest):
        parse(yaml.safe_dump(given_value(path, value)), "f")
    shown = path.replace("*", "gw01")
    for value, sentence in (
        (lowest - 1, f"greater than or equal to {lowest}"),
        (highest + 1, f"less than or equal to {highest}"),
    ):
        (problem,) = problems(yaml.safe_dump(given_value(path, value)))
        assert re.fullmatch(rf"{re.escape(shown)} \(line \d+\): should be {sentence}", problem)


def test_every_number_but_one_has_two_bounds_in_the_reference() -> None:
    """The one is `broker.publish_timeout`, which has to be more than 0."""
    numbers = {path for path, (_, default) in reference().items() if re.fullmatch(r"`\d+(\.\d+)?`", default)}
    assert numbers - bounds().keys() == {"broker.publish_timeout"}


def test_example_shows_the_defaults() -> None:
    """A setting that is commented out shows its default, unless it has none."""
    defaults = {
        path: yaml.safe_load(default.strip("`")) for path, (_, default) in reference().items() if "`" in default
    }
    shown = dict(paths(yaml.safe_load(uncommented(EXAMPLE.read_text()))))
    set_there = dict(paths(yaml.safe_load(EXAMPLE.read_text())))
    for path, default in defaults.items():
        if path not in set_there and default is not None and not isinstance(shown[path], dict):
            assert shown[path] == default, path
