"""What is allowed in a configuration, and better changed."""

import stat
from pathlib import Path
from typing import Final

from wgkex_ops.config import older
from wgkex_ops.config.model import Config

# Registered for MQTT over TLS, as "secure-mqtt".
_TLS_PORT: Final = 8883


def warnings(config: Config, path: Path | None) -> list[str]:
    """Find what an attacker would like, what is probably a mistake, and what has no effect, a sentence each.

    Args:
        config: the configuration.
        path: its file; None if it has none.
    """
    found = []
    users = (config.mqtt, config.broker, config.worker, config.probe, config.operator)
    if path is not None and any(user.password for user in users) and _is_readable_by_everybody(path):
        found.append(f"{path}: has a password, and every user of this host can read it; chmod o-r it")
    if config.mqtt.tls is not None and not config.mqtt.tls.verify:
        found.append(
            "mqtt.tls.verify: false accepts any server, and so an attacker in between, who gets the password; "
            "name the server's authority in mqtt.tls.ca_file instead"
        )
    if config.mqtt.port == _TLS_PORT and config.mqtt.tls is None:
        found.append(
            f"mqtt.broker_port: {_TLS_PORT} is the usual port for TLS, and there is no mqtt.tls: a server that expects "
            "TLS there takes no other connection; set mqtt.tls: true"
        )
    found += [
        f"{setting}: ends before ' #', with which a comment begins; if what follows is a part of it, put all of it in "
        "single quotes, else put a space behind the '#'"
        for setting in config.cut_secrets
    ]
    found += [
        f"{key.path}: has no effect here: {key.reason}; remove it when the older wgkex reads this file no more"
        for key in older.KEYS
        if key.path in config.ignored_keys
    ]
    return found


def _is_readable_by_everybody(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        # It has been read, so it is gone since, or a pipe that nobody else can open.
        return False
