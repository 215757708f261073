"""The entry point of the container image, with the interface of the older image: `broker`, `worker`, or any program.

Without a configuration file, the environment is the configuration (`config/environment.py`).
"""

import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Final, NoReturn

from wgkex_ops.cli.own_listener import own_listener
from wgkex_ops.config import (
    DEFAULT_PATH,
    ENVIRONMENT_VARIABLE,
    MetricsListen,
    by_variable,
    environment_text,
    load,
)
from wgkex_ops.errors import ConfigError

EXIT_UNHEALTHY: Final = 1
EXIT_CONFIGURATION: Final = 2

_HEALTH_CHECK: Final = "healthcheck"
_DEFAULT_COMMAND: Final = ("broker",)
_FIRST_PROCESS: Final = Path("/proc/1/cmdline")
# Less than the timeout of the image's HEALTHCHECK.
_TIMEOUT: Final = 5.0
# A listener with users answers so, and that is a sign of life, too.
_UNAUTHORIZED: Final = 401


def main() -> int:
    """Become what the arguments name, or check the health of what runs here; return the exit status."""
    arguments = sys.argv[1:] or _DEFAULT_COMMAND
    try:
        if arguments[0] == _HEALTH_CHECK:
            return _check_health(arguments[1:])
        program = shutil.which(arguments[0])
        if program is not None:
            os.execv(program, arguments)  # noqa: S606  the container's owner names it
        _become_wgkex_ops(arguments)
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return EXIT_CONFIGURATION


def _become_wgkex_ops(arguments: Sequence[str]) -> NoReturn:
    environ = dict(os.environ)
    # Not by option: each command has its own place for that.
    if not any(word == "--config" or word.startswith("--config=") for word in arguments):
        environ[ENVIRONMENT_VARIABLE] = str(_configuration(environ))
    # Under its own name, by which `wgkex-ops doctor` finds it.
    os.execve(sys.executable, [sys.executable, "-m", "wgkex_ops", *arguments], environ)  # noqa: S606  our own program


def _configuration(environ: Mapping[str, str]) -> Path:
    """The configuration file, or one in memory that is made of the environment and has been checked.

    Raises:
        ConfigError: the environment is no configuration.
    """
    if environ.get(ENVIRONMENT_VARIABLE) or os.path.lexists(DEFAULT_PATH):
        return Path(environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_PATH)
    # No place on a disk has the password, and a root that can only be read needs no exception. It outlives `exec`.
    descriptor = os.memfd_create("wgkex.yaml", 0)
    os.fchmod(descriptor, 0o600)
    path = Path(f"/proc/self/fd/{descriptor}")
    path.write_text(environment_text(environ), encoding="utf-8")
    try:
        load(path)
    except ConfigError as error:
        raise ConfigError([by_variable(problem, str(path)) for problem in error.problems]) from None
    return path


def _check_health(arguments: Sequence[str]) -> int:
    """Ask the operators' listener of what runs here whether it is healthy.

    Raises:
        ConfigError: the configuration has problems.
    """
    config = load(_configuration(os.environ))
    listeners: Mapping[str, MetricsListen] = {
        "broker": config.broker.metrics_listen,
        "worker": config.worker.metrics_listen,
        "probe": config.probe.metrics_listen,
    }
    # An init program in front of ours has our arguments as well.
    words = arguments or _FIRST_PROCESS.read_text(errors="replace").split("\0")
    role = next((word for word in words if word in listeners), None)
    if role is None:
        print(f"{_HEALTH_CHECK}: neither of {', '.join(listeners)} runs here; name one of them")
        return EXIT_UNHEALTHY
    url, context = own_listener(listeners[role])
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"{url}/-/healthy", timeout=_TIMEOUT):
            pass
    except urllib.error.HTTPError as error:
        if error.code != _UNAUTHORIZED:
            print(f"{url}: status {error.code}")
            return EXIT_UNHEALTHY
    except (OSError, HTTPException) as error:
        print(f"{url} does not answer: {getattr(error, 'reason', error)}")
        return EXIT_UNHEALTHY
    print(f"{role} is healthy")
    return 0


if __name__ == "__main__":
    sys.exit(main())
