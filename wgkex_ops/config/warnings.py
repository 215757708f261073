"""What is allowed in a configuration, and better changed."""

import stat
from pathlib import Path

from wgkex_ops.config import older
from wgkex_ops.config.model import Config


def warnings(config: Config, path: Path | None) -> list[str]:
    """Find what an attacker would like, and what has no effect, a sentence each.

    Args:
        config: the configuration.
        path: its file; None if it has none.
    """
    found = []
    if path is not None and config.mqtt.password is not None and _is_readable_by_everybody(path):
        found.append(f"{path}: has a password, and every user of this host can read it; chmod o-r it")
    if config.mqtt.tls is not None and not config.mqtt.tls.verify:
        found.append(
            "mqtt.tls.verify: false accepts any server, and so an attacker in between, who gets the password; "
            "name the server's authority in mqtt.tls.ca_file instead"
        )
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
