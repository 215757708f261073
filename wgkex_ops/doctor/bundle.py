"""What a bug report needs, in one file: without secrets, and without what is known of people."""

import contextlib
import json
import os
import platform
import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from importlib.metadata import distributions
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from wgkex_ops.config import Config, load_key_lists
from wgkex_ops.consumer.peer_names import PeerNames
from wgkex_ops.errors import ConfigError

_LINES_OF_LOG: Final = 500
_TIMEOUT: Final = 5.0
_UNITS: Final = ("wgkex-broker", "wgkex-worker", "wgkex-probe")
_REDACTED: Final = "(redacted)"
_SHORTEST: Final = 4
# Of settings and of members of JSON objects.
_SECRET: Final = re.compile(r"passw|secret|token|private|api_?key|signing", re.IGNORECASE)
_KEY: Final = re.compile(r"\b(?P<begin>[A-Za-z0-9+/]{8})[A-Za-z0-9+/]{34}[AEIMQUYcgkosw480]=")
# What is none is left as it is; see `_masked`.
_MAYBE_ADDRESS: Final = re.compile(
    r"(?:::ffff:)?(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)|(?<![0-9a-f.])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?!\w)",
    re.IGNORECASE,
)
# But for the one of VXLAN's destinations.
_MAC: Final = re.compile(r"\b(?!00:00:00:00:00:00)(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.IGNORECASE)
_LIBRARIES: Final = ("aiohttp", "gmqtt", "pyroute2", "pydantic", "prometheus-client", "structlog", "cryptography")


def write_bundle(file: Path, path: Path, config: Config | None, document: Mapping[str, Any]) -> None:
    """Write the file, for its owner only.

    Args:
        file: where to.
        path: of the configuration.
        config: the configuration; None if it cannot be read.
        document: what was found.

    Raises:
        OSError: it cannot be written.
    """
    secrets = _secrets(config) if config is not None else []
    parts = {
        "doctor.json": _shorten_keys(json.dumps(document, indent=2)),
        "configuration.json": json.dumps(_redacted(config), indent=2) if config is not None else f"{path} has problems",
        "versions.json": json.dumps(_versions(), indent=2),
        "links.json": _links(),
        "addresses.json": _kept(("ip", "-json", "-6", "address", "show", "scope", "link"), _ADDRESSES),
        "routes.json": _kept(("ip", "-json", "-6", "route", "show", "table", "main"), _ROUTES),
        "fdb.json": _kept(("bridge", "-json", "fdb", "show"), _FDB),
        **{f"{unit}.log": _log(unit) for unit in _UNITS},
    }
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as output, tarfile.open(fileobj=output, mode="w:gz") as archive:
        for name, text in parts.items():
            if text:
                _add(archive, f"wgkex-doctor/{name}", _without(text, secrets))


def mask(text: str) -> str:
    """Shorten keys, and take out addresses of clients and of hardware; loopback and link-local ones stay."""
    text = _shorten_keys(text)
    text = _MAC.sub("(MAC)", text)
    return _MAYBE_ADDRESS.sub(lambda match: _masked(match[0]), text)


def _masked(text: str) -> str:
    # A word and a colon may stand before it.
    for start in dict.fromkeys((0, len(text) - len(text.lstrip(":")))):
        try:
            address = ip_address(text[start:])
        except ValueError:
            # A time of day, for example.
            continue
        # Those of nodes' tunnels derive from keys, and say nothing of where a node is.
        kept = address.is_loopback or address.is_link_local or address.is_unspecified
        return text if kept else f"{text[:start]}(address)"
    return text


def _redacted(value: object, name: str = "") -> object:
    """A configuration without secrets: values of settings that are named like one, and keys."""
    match value:
        case BaseModel():
            keys = {field: info.alias or field for field, info in type(value).model_fields.items()}
            return {key: _redacted(getattr(value, field), key) for field, key in keys.items()}
        case Mapping():
            return {str(key): _redacted(inner, str(key)) for key, inner in value.items()}
        case tuple() | list():
            return [_redacted(inner, name) for inner in value]
        case SecretStr() | str() if isinstance(value, SecretStr) or _SECRET.search(name):
            return _REDACTED
        case None | bool() | int() | float():
            return value
    return _shorten_keys(str(value))


def _shorten_keys(text: str) -> str:
    return _KEY.sub(lambda match: f"{match['begin']}…", text)


def _secrets(config: Config) -> list[str]:
    """Passwords, and friendly names of peers: wherever one turns up, in a log for example, it is taken out."""
    users = (config.mqtt, config.broker, config.worker, config.probe, config.operator)
    known = [user.password for user in users]
    texts = {password.get_secret_value() for password in known if password is not None}
    texts |= set(PeerNames(config.metrics.peer_names).read().values())
    # Its problems are among the findings.
    with contextlib.suppress(ConfigError):
        texts |= set(load_key_lists(config.key_lists).names.values() if config.key_lists is not None else ())
    texts |= {json.dumps(text)[1:-1] for text in texts}
    # Shorter ones would tear words apart, and that would tell them.
    return sorted((text for text in texts if len(text) >= _SHORTEST), key=len, reverse=True)


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, _REDACTED)
    return text


def _versions() -> dict[str, Any]:
    installed = {one.metadata["Name"].lower(): one.version for one in distributions()}
    release: dict[str, str] = {}
    # Not every system has the file.
    with contextlib.suppress(OSError):
        release = platform.freedesktop_os_release()
    return {
        "wgkex-ops": installed.get("wgkex-ops"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "system": release.get("PRETTY_NAME"),
        "libraries": {name: installed.get(name) for name in _LIBRARIES},
    }


# --- the network: only what is listed here, so that no version of a tool adds an endpoint or a name

_LINKS: Final = ("ifname", "flags", "mtu", "operstate", "link", "master")
_VXLAN: Final = ("id", "port", "link", "local6", "learning")
_ADDRESSES: Final = ("ifname", "addr_info")
_ADDRESS: Final = ("local", "prefixlen", "scope")
_ROUTES: Final = ("dst", "dev", "protocol", "metric", "flags")
_FDB: Final = ("mac", "ifname", "dst", "viaIfIndex", "via", "state")


def _links() -> str:
    found = []
    for link in _json(("ip", "-json", "-details", "link", "show")):
        info = link.get("linkinfo", {})
        kind = info.get("info_kind")
        shown_link = _only(link, _LINKS)
        if kind == "vxlan":
            shown_link["vxlan"] = _only(info.get("info_data", {}), _VXLAN)
        found.append({**shown_link, "kind": kind})
    return mask(json.dumps(found, indent=1)) if found else ""


def _kept(command: tuple[str, ...], members: tuple[str, ...]) -> str:
    found = []
    for one in _json(command):
        kept = _only(one, members)
        if "addr_info" in kept:
            kept["addr_info"] = [_only(address, _ADDRESS) for address in kept["addr_info"]]
        if _is_local(str(kept.get("dst", "fe80::"))):
            found.append(kept)
    return mask(json.dumps(found, indent=1)) if found else ""


def _is_local(destination: str) -> bool:
    """Whether a destination is inside of tunnels; all others may be somebody's."""
    try:
        return ip_address(destination.partition("/")[0]).is_link_local
    except ValueError:
        return False


def _only(found: Mapping[str, Any], members: tuple[str, ...]) -> dict[str, Any]:
    return {name: found[name] for name in members if name in found}


def _json(command: tuple[str, ...]) -> list[dict[str, Any]]:
    try:
        found = json.loads(_output(command) or "[]")
    except ValueError:
        return []
    return [one for one in found if isinstance(one, dict)]


def _log(unit: str) -> str:
    output = _output(
        ("journalctl", "--unit", unit, "--lines", str(_LINES_OF_LOG), "--no-pager", "--output", "short-iso")
    )
    return mask(output) if output and "-- No entries --" not in output else ""


def _output(command: tuple[str, ...]) -> str:
    """What a program prints; empty if it fails, or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False, stdin=subprocess.DEVNULL)  # noqa: S603  fixed commands of this file
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode(errors="replace")
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    archive.addfile(member, BytesIO(data))
