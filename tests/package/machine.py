"""Debian machines: roots made by debootstrap, which systemd-nspawn boots with a systemd of their own."""

import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Final

from tests.helpers import ROOT

# Seconds; they only tell slow from never, also in a guest without KVM.
TIMEOUT: Final = 600
_POLL: Final = 0.2
_numbers: Final = count()
VOLATILE: Final = ("--volatile=overlay",)

RELEASE: Final = "bookworm"
# What a Debian server has (systemd and its like, man, procps), what our package depends on, and what the tests need.
PACKAGES: Final = (
    *("systemd-sysv", "dbus", "procps", "man-db", "python3", "ca-certificates"),
    *("mosquitto", "mosquitto-clients", "wget", "bash-completion", "zsh", "fish"),
    # What somebody has who installs from a checkout.
    *("git", "make", "python3-venv"),
)
# What docs/evening.md installs on a server and on gateways.
EVENING: Final = (
    *("systemd-sysv", "dbus", "procps", "python3", "ca-certificates", "iproute2", "mosquitto", "mosquitto-clients"),
    *("openssl", "nginx-light", "wireguard-tools", "batctl", "prometheus", "prometheus-alertmanager"),
)
# Logs, caches, and the package manager's own books.
_OTHERS: Final = (
    "/var/lib/dpkg/",
    "/var/lib/apt/",
    "/var/log/",
    "/var/cache/",
    "/tmp/",
    "/run/",
    "/dev/",
    "/proc/",
    "/sys/",
)


def make_root(packages: Sequence[str], *, variant: str = "minbase") -> Path:
    """A directory with a Debian that has some packages, which is made unless it is there.

    Args:
        packages: what it has besides those of its variant.
        variant: of debootstrap; "-" has what each server has.
    """
    # A machine with other packages is another one.
    name = hashlib.sha256(" ".join((variant, *packages)).encode()).hexdigest()[:12]
    folder = ROOT / ".cache" / "debian" / f"{RELEASE}-{name}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f"{folder.name}.new")
    include = f"--include={','.join(packages)}"
    checked("rm", "-rf", str(unfinished))
    checked("debootstrap", f"--variant={variant}", include, RELEASE, str(unfinished), timeout=1200)
    return unfinished.rename(folder)


class Machine:
    """A machine that runs.

    Args:
        leader: its first process.

    Attributes:
        leader: the same.
        root: its root directory, as this host sees it.
    """

    def __init__(self, leader: int) -> None:
        self.leader = leader
        self.root = Path(f"/proc/{leader}/root")
        self._enter = ("nsenter", "--target", str(leader), "--all", "--")

    def run(self, *command: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root, which reads what is typed."""
        return subprocess.run(
            (*self._enter, *command),
            input=typed,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )

    def output(self, *command: str, typed: str = "") -> str:
        """Run a command that has to succeed, and return what it wrote to standard output."""
        done = self.run(*command, typed=typed)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}{self.journal()}"
        return done.stdout

    def types(self, block: str, folder: str, answers: str = "") -> str:
        """Type a block of a document, as root in a folder; what fails ends it, and is a failure."""
        return self.output("bash", "-ec", f"cd {folder}\n{block}", typed=answers)

    def journal(self) -> str:
        return self.run("journalctl", "--no-pager", "--lines=60").stdout

    def install(self, package: Path) -> str:
        """Install a package; its dependencies have to be there, as nothing can be fetched."""
        checked("cp", str(package), str(self.root / "root" / package.name))
        return self.output("apt-get", "install", "--yes", f"/root/{package.name}")

    def files(self) -> set[str]:
        """All files that a package may leave behind, with their modes and owners."""
        listed = self.output("find", "/", "-xdev", "-printf", "%p %m %u:%g %l\n").splitlines()
        return {line for line in listed if not line.startswith(_OTHERS)}

    def state(self, unit: str) -> str:
        return self.run("systemctl", "is-active", unit).stdout.strip()

    def process(self, unit: str) -> str:
        return self.output("systemctl", "show", "--property=MainPID", "--value", unit).strip()


@contextlib.contextmanager
def booted(base: Path, folder: Path, *options: str) -> Iterator[Machine]:
    """Boot a root. Its network has a loopback interface only.

    Args:
        base: the root.
        folder: for its console.
        options: of systemd-nspawn. By default the root stays as it is: what is written goes to memory.
    """
    console = folder / "console"
    command = (
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", *(options or VOLATILE)),
        *("--boot", f"--machine=wgkex-{os.getpid()}-{next(_numbers)}", f"--directory={base}"),
    )
    with (
        console.open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield _when_up(process, console)
        finally:
            process.terminate()
            process.wait(TIMEOUT)


def _when_up(process: subprocess.Popen[bytes], console: Path) -> Machine:
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        assert process.poll() is None, console.read_text(errors="replace")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children:
            machine = Machine(int(children[0]))
            if machine.run("systemctl", "is-system-running", "--wait").stdout.strip() == "running":
                return machine
        time.sleep(_POLL)
    raise AssertionError(console.read_text(errors="replace"))


def checked(*command: str, timeout: float = TIMEOUT) -> str:
    """Run a command on this host, and return what it wrote."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return done.stdout
