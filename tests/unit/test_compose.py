"""The image's files fit what the programs do, and the guide to containers says what is there."""

import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

import pytest
import yaml

from tests.helpers import ROOT
from wgkex_ops.config import parse, settings
from wgkex_ops.config.environment import VARIABLES

FOLDER: Final = ROOT / "deploy" / "compose"
GUIDE: Final = (ROOT / "docs" / "containers.md").read_text()
CONTAINERFILE: Final = (ROOT / "Containerfile").read_text()
NEW: Final[Mapping[str, Any]] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
OLD: Final[Mapping[str, Any]] = yaml.safe_load((FOLDER / "compose.old.yaml").read_text())
BY_NAME: Final = {variable.name: variable for variable in VARIABLES}
DOMAINS: Final = "domains: [ffmuc_welt]\ndomain_prefixes: [ffmuc_]\nmqtt: {broker_url: mqtt.example.net}\n"


def test_the_guide_lists_the_variables_with_their_settings_and_defaults() -> None:
    rows = re.findall(r"^\| (?:\*new:\* )?`([A-Z_]+)` \| ([^|]+) \| ([^|]+) \|$", GUIDE, re.MULTILINE)

    documented = {name: (tuple(re.findall(r"`([\w.]+)`", named)), default.strip("`")) for name, named, default in rows}
    assert list(documented) == [variable.name for variable in VARIABLES]
    for name, (named, default) in documented.items():
        variable = BY_NAME[name]
        assert set(named) == set(variable.settings), name
        assert set(named) <= set(settings())
        if variable.default:
            assert default == variable.default
    config = parse(DOMAINS, "f")
    assert documented["WGKEX_METRICS_HOST"][1] == config.worker.metrics_listen.host
    assert documented["WGKEX_DATAPLANE"][1] == config.worker.dataplane


def test_the_guide_names_files_that_are_there() -> None:
    named = set(re.findall(r"`((?:deploy|tests)/[\w./-]+)`", GUIDE))

    assert len(named) > 4
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_image_is_that_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    config = parse(DOMAINS, "f")
    listeners = (config.broker_listen, *(role.metrics_listen for role in (config.broker, config.worker, config.probe)))

    assert f"ARG VERSION={project['version']}\n" in CONTAINERFILE
    assert f"EXPOSE {' '.join(str(listen.port) for listen in listeners)}\n" in CONTAINERFILE
    assert f"VOLUME {config.worker.state_dir}\n" in CONTAINERFILE
    assert {"wgkex-container"} <= project["scripts"].keys()


def test_what_the_image_is_made_of_reaches_the_build() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE)
    let_through = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)

    assert sorted(" ".join(copied).split()) == sorted(let_through)


def test_the_older_file_sets_the_older_variables_to_the_older_defaults() -> None:
    for role in ("broker", "worker"):
        service = OLD["services"][role]
        assert service["command"] == role
        older = [variable for variable in VARIABLES if f"| `{variable.name}` |" in GUIDE]
        defaults = {variable.name: f"${{{variable.name}-{variable.default}}}" for variable in older}
        assert service["environment"] == defaults
    assert OLD["services"]["broker"]["ports"] == ["5000:5000"]


@pytest.mark.parametrize("name", NEW["services"])
def test_every_service_has_no_rights_to_spare(name: str) -> None:
    service = NEW["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service.get("cap_add", []) == (["NET_ADMIN"] if name == "worker" else [])
    assert "privileged" not in service
    # Ours is in the image.
    assert ("healthcheck" in service) == (name not in ("broker", "worker"))


@pytest.mark.parametrize("services", [NEW["services"], OLD["services"]], ids=["new", "old"])
def test_every_image_has_a_version(services: Mapping[str, Any]) -> None:
    for name, service in services.items():
        assert re.search(r":v?\d[\d.]*\}?$", service["image"]), name


def test_nothing_is_published_to_everybody() -> None:
    published = [port for service in NEW["services"].values() for port in service.get("ports", [])]

    assert len(published) == 5
    assert all(re.match(r"(\$\{[A-Z_]+:-)?127\.0\.0\.1:", port) for port in published)


def test_passwords_are_files_that_nobody_ships() -> None:
    assert all(secret["file"].startswith("./secrets/") for secret in NEW["secrets"].values())
    for name, service in NEW["services"].items():
        passwords = {key: value for key, value in service.get("environment", {}).items() if "PASSWORD" in key}
        assert all(key.endswith("_FILE") and value.startswith("/run/secrets/") for key, value in passwords.items()), (
            name
        )
        assert {value.removeprefix("/run/secrets/") for value in passwords.values()} <= set(service.get("secrets", []))
    made = re.search(r"for name in ([\w ]+); do openssl", GUIDE)
    assert made is not None
    assert set(made[1].split()) == NEW["secrets"].keys()
    assert not (FOLDER / "secrets").exists() or "/secrets/" in (FOLDER / ".gitignore").read_text()


def test_the_example_of_values_has_what_is_asked_for() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    example = (FOLDER / ".env.example").read_text()

    needed = set(re.findall(r"\$\{(\w+):\?", text))
    optional = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    assert needed == set(re.findall(r"^([A-Z_]+)=.", example, re.MULTILINE))
    assert optional == dict(re.findall(r"^#([A-Z_]+)=(.*)$", example, re.MULTILINE))


def test_prometheus_finds_the_processes_where_they_listen() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    [network] = NEW["networks"]["default"]["ipam"]["config"]
    worker = NEW["services"]["worker"]["environment"]["WGKEX_METRICS_HOST"]

    assert targets == {
        "wgkex-broker": [f"{NEW['services']['broker']['hostname']}:9690"],
        "wgkex-worker": [f"{worker}:9691"],
    }
    assert worker == network["gateway"]


def test_what_is_mounted_is_there() -> None:
    for service in NEW["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).exists() or source.startswith("./secrets"), volume
