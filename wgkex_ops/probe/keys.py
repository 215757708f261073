"""The canary's keys: which one goes into a round, and their files.

A round shows whether gateways install keys only if its key is not installed yet. So keys move: a worker installs one
that is submitted in another domain, and removes it where it was. It refuses that until the last handshake is 180 s old
(`live_elsewhere`): meanwhile other keys are used. Thus a few keys are enough for ever, and a gateway has no more of the
canary than a few peers, which the worker's cleanup removes when the canary is gone.

With one domain, keys cannot move. There a new one is made now and then; until then the canary does not notice that
gateways install none.
"""

import base64
import binascii
import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from wgkex_ops.errors import CannotProbeError
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import ACTIVE_SECONDS

# Seconds after a round until its key may move: until then a worker takes its session for live. The last handshake was
# before the end of the round; the rest is for workers that are slow.
REST: Final = ACTIVE_SECONDS + 20.0
# Seconds for which a key that cannot move is used. A gateway keeps the peer of each for three hours.
RENEW_AFTER: Final = 900.0
# Of each domain; with a round a minute, the fifth one finds the first one rested.
KEYS_LIMIT: Final = 6
# Seconds after which a key that was not used is removed: gateways have forgotten it, too.
FORGET_AFTER: Final = 86_400.0

_KEY_BYTES: Final = 32
# A key and perhaps a newline.
_LINE: Final = re.compile(rb"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw480]=\n?")
# The domain that a key was last used in, and when the key was made, in milliseconds. The file's time of modification is
# when it was last used.
_FILE: Final = re.compile(r"([A-Za-z0-9_-]+)\.([0-9]{1,15})\.key", re.ASCII)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A WireGuard private key; its representation does not show it.

    Attributes:
        raw: 32 bytes.
    """

    raw: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> "PrivateKey":
        """Make a new one."""
        raw = bytearray(os.urandom(_KEY_BYTES))
        # As `wg genkey` does it: the bits that X25519 sets in any case (RFC 7748, section 5).
        raw[0] &= 248
        raw[31] = raw[31] & 127 | 64
        return cls(bytes(raw))

    @classmethod
    def parse(cls, line: bytes) -> "PrivateKey | None":
        """Read a key and perhaps a newline, as `wg genkey` prints them; None if it is anything else."""
        return cls(base64.b64decode(line)) if _LINE.fullmatch(line) else None

    @property
    def base64(self) -> str:
        """As WireGuard's tools write it."""
        return binascii.b2a_base64(self.raw, newline=False).decode("ascii")

    def public_key(self) -> PublicKey:
        """The key that nodes submit."""
        return PublicKey(X25519PrivateKey.from_private_bytes(self.raw).public_key().public_bytes_raw())


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What is known of a key.

    Attributes:
        domain: the name of the domain that it was last used in.
        made_at: seconds since the epoch.
        used_at: the same, of the end of its last round, or of the begin of the one that it is in.
    """

    domain: str
    made_at: float
    used_at: float


def choose(uses: Iterable[KeyUse], domain: str, domains: Sequence[str], now: float) -> KeyUse | None:
    """Choose the key for a round. Pure.

    Args:
        uses: all keys that there are.
        domain: the round's.
        domains: all that the canary goes round in; without doubles.
        now: seconds since the epoch.

    Returns:
        None for a new one.
    """
    known = sorted(uses, key=lambda use: use.used_at)
    own = [use for use in known if use.domain == domain]
    if len(domains) == 1:
        return own[-1] if own and 0 <= now - own[-1].made_at < RENEW_AFTER else None
    # Each domain takes the keys of the one before it, so that none takes what another one needs.
    before = domains[domains.index(domain) - 1]
    rested = [use for use in known if use.domain == before and now - use.used_at >= REST]
    if rested:
        return rested[0]
    # The latest one again, so that the others rest.
    return own[-1] if len(own) >= KEYS_LIMIT else None


@dataclass(frozen=True, slots=True)
class TakenKey:
    """A key that is in use.

    Attributes:
        private: the key itself.
        path: its file.
    """

    private: PrivateKey
    path: Path


class KeyRing:
    """The keys in a folder, each in a file as `wg genkey` writes it.

    Each method raises CannotProbeError if a file or the
    folder cannot be used; the message has nothing of a key.

    Args:
        folder: made if it is missing.
        domains: the names of those that the canary goes round in.
        clock: seconds since the epoch.
    """

    def __init__(self, folder: Path, domains: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._domains = domains
        self._clock = clock

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other canaries out of these domains: two with one key would take the gateway's packets from each other.

        Canaries of different domains may share a folder, as checks of single domains do.
        """
        with _errors(f"the folder of the canary's keys, {self._folder},"):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            # In the same order everywhere: of two canaries, one gets all.
            for domain in sorted(self._domains):
                stack.enter_context(self._locked(domain))
            yield

    @contextlib.contextmanager
    def _locked(self, domain: str) -> Iterator[None]:
        path = self._folder / f"{domain}.lock"
        with _errors(f"the file {path}"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise CannotProbeError(
                f"another canary goes round in {domain} with the keys in {self._folder}; give this one a folder of its "
                "own: --keys"
            ) from None
        try:
            yield
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Read all keys, so that a file that cannot be used is noticed at the start."""
        for path in self._list():
            _read(path)

    def take(self, domain: str) -> TakenKey:
        """Take the key for a round in a domain, and note that it is used there."""
        now = self._clock()
        files = self._list()
        chosen = choose(files.values(), domain, self._domains, now)
        if chosen is None:
            return self._make(domain, now, {use.made_at for use in files.values()})
        before = next(path for path, use in files.items() if use == chosen)
        private = _read(before)
        path = self._path(domain, chosen.made_at)
        with _errors(f"the key {path}"):
            before.rename(path)
            os.utime(path, (now, now))
        return TakenKey(private, path)

    def give_back(self, key: TakenKey, *, keep: bool) -> None:
        """Note the end of a round.

        Args:
            key: what was taken.
            keep: whether it may be used again; not if nobody knows whether a gateway has it.
        """
        # An operator may have removed it meanwhile.
        with _errors(f"the key {key.path}"), contextlib.suppress(FileNotFoundError):
            if keep:
                os.utime(key.path, (self._clock(),) * 2)
            else:
                key.path.unlink()

    def _path(self, domain: str, made_at: float) -> Path:
        return self._folder / f"{domain}.{made_at * 1000:.0f}.key"

    def _list(self) -> dict[Path, KeyUse]:
        """All keys of these domains; those that were not used for long are removed."""
        found = {}
        with _errors(f"the folder of the canary's keys, {self._folder},"):
            for path in sorted(self._folder.iterdir()):
                match = _FILE.fullmatch(path.name)
                if match is None:
                    continue
                used_at = path.lstat().st_mtime
                if self._clock() - used_at > FORGET_AFTER:
                    path.unlink()
                elif match[1] in self._domains:
                    found[path] = KeyUse(match[1], int(match[2]) / 1000, used_at)
        return found

    def _make(self, domain: str, now: float, taken: Collection[float]) -> TakenKey:
        private, made_at = PrivateKey.generate(), round(now, 3)
        while made_at in taken:
            made_at = round(made_at + 0.001, 3)
        path = self._path(domain, made_at)
        with _errors(f"the key {path}"):
            _write(path, private, now)
        return TakenKey(private, path)


def _read(path: Path) -> PrivateKey:
    # Without waiting for the writer of a FIFO.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    with _errors(f"the key {path}"), os.fdopen(os.open(path, flags), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        line = file.read(2 * _KEY_BYTES) if stat.S_ISREG(mode) else b""
    if stat.S_IMODE(mode) & 0o077:
        raise CannotProbeError(
            f"the key {path} can be used by others (mode {stat.S_IMODE(mode):04o}): remove it, and another one is made"
        )
    key = PrivateKey.parse(line)
    if key is None:
        raise CannotProbeError(f"{path} is not a WireGuard private key: remove it, and another one is made")
    return key


def _write(path: Path, key: PrivateKey, now: float) -> None:
    """Write a key: after a crash, it is complete or not there."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(f"{key.base64}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    os.utime(new, (now, now))
    new.rename(path)


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotProbeError(f"{what} cannot be used: {error.strerror}") from None
