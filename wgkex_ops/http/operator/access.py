"""Who may use the operators' listener: for which host names it responds, TLS, and users with passwords."""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import re
import secrets
import socket
import ssl
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import bcrypt
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from wgkex_ops.config import MetricsListen, WebConfig, file_version, load_web_config
from wgkex_ops.errors import ConfigError
from wgkex_ops.http.tls import NewestContext

_log = structlog.get_logger(__name__)

# For whatever is no page, or has no headers of its own: a browser loads and runs nothing, and guesses no other type.
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_MISDIRECTED: Final = 421
# A host and perhaps a port (RFC 9112, section 3.2).
_HOST: Final = re.compile(r"(?:\[(?P<address>[^\]]+)\]|(?P<name>[^:\[\]]*))(?::[0-9]*)?")
# The resolver is asked for the host's full name again after so many seconds: at the boot it may not know it yet.
_ASK_RESOLVER_EVERY: Final = 60.0


class Access:
    """The rules of one listener.

    Args:
        listen: its settings.
        setting: their name, for messages.
        names: of this process.

    Attributes:
        ssl_context: for the listener; None for plain HTTP.

    Raises:
        ConfigError: the web configuration file cannot be used.
    """

    def __init__(self, listen: MetricsListen, *, setting: str, names: Collection[str] = ()) -> None:
        self._setting = setting
        names = ("localhost", socket.gethostname(), listen.host, *listen.allowed_hosts, *names)
        self._names = {name.lower() for name in names}
        self._resolver_asked_at = -_ASK_RESOLVER_EVERY
        self._file = _WebFile(listen.web_config_file) if listen.web_config_file is not None else None
        self._passwords = _Passwords()
        self.ssl_context: ssl.SSLContext | None = None
        if self._file is not None and self._file.context is not None:
            self.ssl_context = NewestContext(self._file.newest_context)

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request through, or refuse it."""
        if not await self._serves(request.headers.get(hdrs.HOST, "")):
            text = (
                "this is not a name of this host. If it should be one, add it to "
                f"{self._setting}.allowed_hosts; addresses always work.\n"
            )
            return web.Response(status=_MISDIRECTED, text=text)
        users = self._file.newest().basic_auth_users if self._file is not None else {}
        if users and not await self._passwords.fit(users, request.headers.get(hdrs.AUTHORIZATION, "")):
            challenge = {hdrs.WWW_AUTHENTICATE: 'Basic realm="wgkex-ops", charset="UTF-8"'}
            return web.Response(status=401, headers=challenge, text="this needs a user and a password\n")
        return await handler(request)

    async def add_headers(self, _request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Add the headers that each response has."""
        # Which software serves here is nobody's business.
        response.headers.pop(hdrs.SERVER, None)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if self._file is not None:
            for name, value in self._file.newest().http_server_config.headers.items():
                response.headers[name] = value

    async def _serves(self, host: str) -> bool:
        """Whether a request may be for a host.

        A page elsewhere that has its own name resolve to an address of ours (DNS rebinding) makes a browser send that
        name. It cannot do so with an address, and monitoring without a browser may leave the host out.
        """
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = (match["address"] or match["name"]).rstrip(".").lower()
        if not name or name in self._names or _is_address(name):
            return True
        now = asyncio.get_running_loop().time()
        if now - self._resolver_asked_at < _ASK_RESOLVER_EVERY:
            return False
        self._resolver_asked_at = now
        self._names.add((await asyncio.to_thread(socket.getfqdn)).lower())
        return name in self._names


class _WebFile:
    """The web configuration file, and the certificates that it names: read again when one of them changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = [path]
        self._versions: list[object] = []
        self._config, self.context = self._read()

    def newest(self) -> WebConfig:
        """What is in force: what was read last without problems."""
        if [file_version(path) for path in self._files] != self._versions:
            try:
                config, context = self._read()
                if (context is None) != (self.context is None):
                    raise ConfigError([f"{self._path}: TLS is switched on and off by a restart only"])  # noqa: TRY301  a problem of the file like any other
            except ConfigError as error:
                _log.error("web_config_rejected", problems=list(error.problems), detail="what was there before counts")
            else:
                self._config, self.context = config, context
                _log.info("web_config_read", file=str(self._path), users=len(config.basic_auth_users))
        return self._config

    def newest_context(self) -> ssl.SSLContext:
        """The same for TLS."""
        self.newest()
        if self.context is None:
            raise AssertionError("TLS is there from the beginning, or never")
        return self.context

    def _read(self) -> tuple[WebConfig, ssl.SSLContext | None]:
        # The versions come first: what changes while it is read is read again.
        self._versions = [file_version(path) for path in self._files]
        config = load_web_config(self._path)
        self._files = [self._path, *config.files]
        self._versions[1:] = [file_version(path) for path in config.files]
        return config, config.ssl_context(self._path)


class _Passwords:
    """Compares passwords with bcrypt hashes, in a thread: it takes 70 ms and more, and is meant to."""

    def __init__(self) -> None:
        # What fits is remembered by a digest that means nothing outside of this process.
        self._secret = secrets.token_bytes(32)
        self._fitting: set[bytes] = set()
        # Whoever tries passwords gets one processor at the most.
        self._one_at_a_time = asyncio.Lock()

    async def fit(self, users: Mapping[str, str], authorization: str) -> bool:
        """Whether a header of basic authentication has one of the users, with its password."""
        user, password = _credentials(authorization)
        if not password:
            return False
        # An unknown user takes as long as a known one.
        hashed = users.get(user) or next(iter(users.values()))
        digest = hmac.digest(self._secret, repr((user, hashed, password)).encode(), "sha256")
        if user in users and digest in self._fitting:
            return True
        async with self._one_at_a_time:
            fits = await asyncio.to_thread(_fits, password, hashed.encode())
        if not fits or user not in users:
            return False
        if len(self._fitting) > len(users):
            # Those of hashes that were replaced.
            self._fitting.clear()
        self._fitting.add(digest)
        return True


def _fits(password: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password, hashed)
    except ValueError:
        # More than 72 bytes, or a NUL.
        return False


def _credentials(authorization: str) -> tuple[str, bytes]:
    """User and password of a header (RFC 7617); both empty if it has none."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        user, _, password = base64.b64decode(encoded, validate=True).partition(b":")
        if scheme.lower() == "basic":
            return user.decode(), password
    except (binascii.Error, ValueError):
        pass
    return "", b""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
