"""The container image, built and run for real: by Podman, as root, with a storage of its own.

No registry of images is asked: the base is a Debian of debootstrap in place of the official Python image, and the
libraries are fetched before the build, which has no network then. What is made once stays in .cache.
"""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.helpers import ROOT
from tests.integration.servers import Bench, Process

IMAGE: Final = "localhost/wgkex-ops"
REVISION: Final = "c0ffee"
_BASE: Final = "localhost/debian-python"
# The Debian of the official image in the Containerfile, and its Python.
_DEBIAN: Final = "bookworm"
_PYTHON: Final = "3.11"
_MINUTES: Final = 60
# crun refuses cgroups of both versions at the same time, and a container of these tests needs neither. So it sees the
# first version only.
_WITHOUT_HYBRID_CGROUPS: Final = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
_CONTAINERS_CONF: Final = """
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Podman:
    """Podman with a storage in a folder.

    Args:
        folder: for everything that it keeps.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        storage = f'[storage]\ndriver = "overlay"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/storage"\n'
        (folder / "storage.conf").write_text(storage)
        (folder / "containers.conf").write_text(_CONTAINERS_CONF)

    def command(self, *arguments: str) -> list[str]:
        """The command line with some arguments."""
        files = {"CONTAINERS_STORAGE_CONF": "storage.conf", "CONTAINERS_CONF": "containers.conf"}
        environ = [f"{name}={self._folder / file}" for name, file in files.items()]
        podman = ["env", *environ, "podman", "--log-level=fatal", *arguments]
        return ["unshare", "--mount", "sh", "-c", _WITHOUT_HYBRID_CGROUPS, "sh", *podman]

    def try_to(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it, whatever comes of it."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=10 * _MINUTES, check=False
        )

    def __call__(self, *arguments: str) -> str:
        """Run it, and return what it prints."""
        done = self.try_to(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def build(self) -> None:
        """Build the image; what has not changed since the last time is there already."""
        if self.try_to("image", "exists", _BASE).returncode != 0:
            self._import_base()
        wheels = self._folder / "wheels"
        _fetch_wheels(wheels)
        pip = self._folder / "pip.conf"
        pip.write_text("[global]\nno-index = true\nfind-links = /wheelhouse\ndisable-pip-version-check = true\n")
        self(
            *("build", "--isolation=chroot", "--pull=never", "--format=docker", f"--tag={IMAGE}"),
            *(f"--build-arg=PYTHON_IMAGE={_BASE}", f"--build-arg=REVISION={REVISION}"),
            *(f"--volume={wheels}:/wheelhouse:ro", f"--volume={pip}:/etc/pip.conf:ro"),
            *("--file=Containerfile", str(ROOT)),
        )
        # Those of earlier days; what was built today is not built again.
        self("image", "prune", "--force", "--filter=until=24h")

    def image(self) -> Mapping[str, Any]:
        """What the image says of itself."""
        [found] = json.loads(self("image", "inspect", IMAGE))
        config: Mapping[str, Any] = found["Config"] | {"Healthcheck": found["Healthcheck"]}
        return config

    def _import_base(self) -> None:
        base, archive = self._folder / "base", self._folder / "base.tar"
        # What is left of a run that was killed.
        shutil.rmtree(base, ignore_errors=True)
        program = ("debootstrap", "--variant=minbase", "--include=python3-venv,ca-certificates", _DEBIAN, str(base))
        _run(program, self._folder)
        # The owner's numbers are kept, and files of the kernel's own file systems left out.
        _run(("tar", "--one-file-system", "--exclude=./dev/*", "-C", str(base), "-cf", str(archive), "."), self._folder)
        self("import", str(archive), _BASE)
        archive.unlink()
        shutil.rmtree(base)


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10 * _MINUTES, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def _fetch_wheels(folder: Path) -> None:
    """Fetch what the build installs."""
    options = (*wheels_only(_PYTHON, platform.machine()), f"--dest={folder}")
    _run((sys.executable, "-m", "pip", "download", *options), ROOT)


def wheels_only(python: str, machine: str) -> Sequence[str]:
    """Options and arguments of pip for what the build installs, as wheels only, at the versions of constraints.txt.

    Args:
        python: the version of Python, such as 3.13.
        machine: the architecture, as `uname -m` names it.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = (*project["project"]["dependencies"], *project["build-system"]["requires"])
    platforms = (f"--platform=manylinux{version}_{machine}" for version in ("2014", "_2_17", "_2_28", "_2_34"))
    options = (
        "--quiet",
        "--only-binary=:all:",
        f"--python-version={python}",
        f"--constraint={ROOT / 'constraints.txt'}",
    )
    return (*options, *platforms, *wanted)


def built_image() -> Podman:
    """Podman with the image of this tree. Another test run, or process of this one, waits for its turn."""
    folder = ROOT / ".cache" / "podman"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        podman = Podman(folder)
        podman.build()
        return podman


class Container:
    """A container that runs, in the network namespace of this thread.

    Args:
        bench: ends it, and shows its log.
        podman: runs it.
        service: what a compose file has for it.
        secrets: the files of its secrets, by name.
        options: further options of `podman run`.
    """

    def __init__(
        self,
        bench: Bench,
        podman: Podman,
        service: Mapping[str, Any],
        secrets: Mapping[str, Path],
        options: Sequence[str],
    ) -> None:
        self._podman = podman
        self.name = f"{bench.name('container')}-{os.getpid()}"
        # It reads the name of its host, which the service may set, so it has one of its own in any case.
        run = ("run", "--rm", "--name", self.name, "--network=host", "--uts=private", "--cgroups=disabled")
        command = podman.command(*run, *self._options(service, secrets), *options, IMAGE, *service["command"].split())
        self.process: Process = bench.start(self.name, *command)

    def try_to(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        return self._podman.try_to("exec", self.name, *command)

    @property
    def health(self) -> int:
        """The exit status of the image's health check."""
        return self._podman.try_to("healthcheck", "run", self.name).returncode

    def signal(self, name: str) -> None:
        self._podman("kill", "--signal", name, self.name)

    def remove(self) -> None:
        """End it, whatever it does, and remove what it has kept."""
        self._podman("rm", "--force", "--ignore", "--time=0", self.name)
        volumes = self._podman("volume", "ls", "--quiet", f"--filter=name={self.name}-").split()
        if volumes:
            self._podman("volume", "rm", "--force", *volumes)

    def _options(self, service: Mapping[str, Any], secrets: Mapping[str, Path]) -> list[str]:
        """What a service of a compose file means to `podman run`; where there is something new, this fails."""
        found: list[str] = []
        for key, value in service.items():
            match key:
                case "environment":
                    found += [f"--env={name}={text}" for name, text in value.items()]
                case "read_only":
                    # As Docker: without Podman's own writable places.
                    found += ["--read-only", "--read-only-tmpfs=false"] if value else []
                case "cap_drop" | "cap_add" | "security_opt":
                    found += [f"--{key.replace('_', '-')}={item}" for item in value]
                case "user" | "hostname":
                    found.append(f"--{key}={value}")
                case "volumes":
                    # Not those of another test.
                    found += [f"--volume={self.name}-{item}" for item in value]
                case "secrets":
                    names = [secret["source"] for secret in value]
                    found += [f"--volume={secrets[name]}:/run/secrets/{name}:ro" for name in names]
                # The bench starts and ends it, and all is on one host's loopback.
                case "image" | "command" | "restart" | "ports" | "depends_on" | "network_mode":
                    pass
                case _:
                    raise AssertionError(f"nobody has said what {key} of a service means here")
        return found
