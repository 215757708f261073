"""The configuration and the files that it names."""

import os
from pathlib import Path
from typing import Final

from wgkex_ops.config import Config, load, load_key_lists, load_web_config, warnings
from wgkex_ops.doctor.findings import Finding, critical, ok, warning
from wgkex_ops.doctor.process import BROKER, Presence, Process
from wgkex_ops.errors import ConfigError

_CHECK: Final = "configuration"
_LISTS: Final = "key_lists"


def read_configuration(path: Path) -> tuple[Config | None, list[Finding]]:
    """Read the file: all of its problems, or its warnings."""
    try:
        config = load(path)
    except ConfigError as error:
        remedy = "correct the file; wgkex.yaml.example and docs/configuration.md have each setting"
        if not path.exists():
            remedy = f"name the file with --config, or begin with an example: wgkex-ops example-config >{path}"
        elif not os.access(path, os.R_OK):
            remedy = "run this as root"
        return None, [critical(_CHECK, problem, remedy) for problem in error.problems]
    found = []
    for sentence in warnings(config, path):
        # Each of them ends with what to do.
        text, _, remedy = sentence.rpartition("; ")
        found.append(warning(_CHECK, text, remedy))
    return config, found or [ok(_CHECK, f"{path}: {', '.join(config.domain_names)}")]


def check_web_config(config: Config, role: str) -> list[Finding]:
    """The web configuration file and the certificates of the listeners."""
    section = config.broker if role == BROKER else config.worker
    problems = []
    try:
        if (path := section.metrics_listen.web_config_file) is not None:
            load_web_config(path).ssl_context(path)
        if role == BROKER and config.broker_listen.tls is not None:
            config.broker_listen.tls.ssl_context("broker_listen.tls")
    except ConfigError as error:
        problems = list(error.problems)
    remedy = f"correct the file that {role}.metrics_listen.web_config_file or broker_listen.tls names"
    return [critical(_CHECK, problem, remedy) for problem in problems]


def check_key_lists(config: Config, process: Process) -> list[Finding]:
    """The file of the key lists, and what they have refused."""
    path = config.key_lists
    if path is None:
        return [ok(_LISTS, "there are none (key_lists)")]
    try:
        lists = load_key_lists(path)
    except ConfigError as error:
        remedy = f"correct the file that key_lists names: wgkex-ops keys list shows all problems of {path}"
        return [critical(_LISTS, problem, remedy) for problem in error.problems]
    if process.presence is Presence.OURS and process.metrics.get("wgkex_key_list_last_reload_successful") == 0:
        remedy = f"let the user wgkex read {path}, then systemctl reload wgkex-{process.role}"
        return [critical(_LISTS, f"the {process.role} could not read {path}: its former key lists count", remedy)]
    denied, allowed = len(lists.denied), sum(map(len, lists.allowed.values()))
    text = f"{path}: {denied} denied, {allowed} allowed, {len(lists.protected)} protected"
    counter = f"wgkex_{process.role}_{'key' if process.role == BROKER else 'message'}_rejections_total"
    refused = sum(process.metrics.get(counter, reason=reason) or 0 for reason in ("denied_key", "not_allowed_key"))
    if refused:
        text += f"; {refused:.0f} requests refused because of them since the start (wgkex-ops keys list shows whose)"
    return [ok(_LISTS, text)]
