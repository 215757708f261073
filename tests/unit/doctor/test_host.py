"""What is found in /proc and in the files of networkd."""

from pathlib import Path

import pytest

from wgkex_ops.doctor.findings import Finding
from wgkex_ops.doctor.host import Host
from wgkex_ops.doctor.interfaces import check_networkd
from wgkex_ops.model.fleet import Severity


def add_process(proc: Path, pid: int, *words: str, name: str = "python3", environ: str = "") -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "environ").write_text(environ)
    (proc / str(pid) / "cwd").symlink_to(proc.parent)
    (proc / str(pid) / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
    (proc / str(pid) / "comm").write_text(f"{name}\n")


def test_processes_of_a_role(tmp_path: Path) -> None:
    config, other = tmp_path / "wgkex.yaml", tmp_path / "other.yaml"
    config.touch()
    other.touch()
    in_environment, elsewhere = f"A=1\0WGKEX_CONFIG_FILE={config}\0B=2\0", f"WGKEX_CONFIG_FILE={other}\0"
    ours = [
        ("", "/opt/x/bin/python3", "/opt/x/bin/wgkex-ops", "worker", "--config", str(config)),
        (elsewhere, "python3", "-m", "wgkex_ops", "worker", f"--config={config}"),
        ("", "/opt/x/bin/python3", "/opt/x/bin/wgkex-worker", "--config", "wgkex.yaml"),
        (in_environment, "/opt/x/bin/python3", "/opt/x/bin/wgkex-worker"),
        # The older wgkex.
        (in_environment, "python3", "-m", "wgkex.worker.app"),
        (in_environment, "python3", "/srv/bazel-bin/wgkex/worker/app.py"),
    ]
    others = [
        ("", "/opt/x/bin/python3", "/opt/x/bin/wgkex-ops", "worker", "--config", str(other)),
        ("", "/opt/x/bin/python3", "/opt/x/bin/wgkex-ops", "worker", "--config", str(tmp_path / "gone.yaml")),
        (elsewhere, "/opt/x/bin/python3", "/opt/x/bin/wgkex-ops", "worker"),
        (in_environment, "/opt/x/bin/python3", "/opt/x/bin/wgkex-ops", "broker"),
        (in_environment, "/opt/x/bin/python3", "/opt/x/bin/wgkex-ops", "doctor", "worker"),
        (in_environment, "journalctl", "-u", "wgkex-worker", "-f"),
        (in_environment, "vi", "wgkex-worker"),
        (in_environment,),
    ]
    for pid, (environ, *words) in enumerate([*ours, *others], 1_000_001):
        add_process(tmp_path / "proc", pid, *words, environ=environ)
    assert Host(tmp_path / "proc").pids_of("worker", config) == list(range(1_000_001, 1_000_001 + len(ours)))


@pytest.mark.parametrize(
    ("unit", "there"),
    [
        ("etc/systemd/system/wgkex-worker.service", True),
        ("etc/systemd/system/multi-user.target.wants/wgkex-worker.service", True),
        ("etc/systemd/system/multi-user.target.wants/wgkex-broker.service", False),
        # The package has the units of all roles, whether this host has the role or not.
        ("lib/systemd/system/wgkex-worker.service", False),
        ("usr/lib/systemd/system/wgkex-worker.service", False),
    ],
)
def test_a_unit_shows_the_role_if_somebody_has_made_or_enabled_it(unit: str, there: bool, tmp_path: Path) -> None:
    (tmp_path / unit).parent.mkdir(parents=True)
    (tmp_path / unit).symlink_to("/lib/systemd/system/elsewhere.service")
    assert Host(tmp_path / "proc", tmp_path).has_unit("worker") is there


def networkd(root: Path, proc: Path) -> list[Finding]:
    return check_networkd(Host(proc, root))


@pytest.mark.parametrize(
    ("files", "stay"),
    [
        ({}, False),
        ({"etc/systemd/networkd.conf": "[Network]\n#ManageForeignRoutes=no\n"}, False),
        ({"etc/systemd/networkd.conf": "[Network]\nManageForeignRoutes=no\n"}, True),
        ({"etc/systemd/networkd.conf.d/10-wgkex.conf": "[Network]\nManageForeignRoutes=no\n"}, True),
        # A later one of another folder, and one that hides a file of the same name.
        (
            {
                "etc/systemd/networkd.conf.d/10-wgkex.conf": "[Network]\nManageForeignRoutes=no\n",
                "usr/lib/systemd/networkd.conf.d/20-other.conf": "[Network]\nManageForeignRoutes=yes\n",
            },
            False,
        ),
        (
            {
                "etc/systemd/networkd.conf.d/20-other.conf": "[Network]\nManageForeignRoutes=off\n",
                "usr/lib/systemd/networkd.conf.d/20-other.conf": "[Network]\nManageForeignRoutes=yes\n",
            },
            True,
        ),
        ({"etc/systemd/networkd.conf": "ManageForeignRoutes=no\n"}, False),
    ],
)
def test_whether_networkd_removes_the_routes_of_the_worker(tmp_path: Path, files: dict[str, str], stay: bool) -> None:
    root, proc = tmp_path / "root", tmp_path / "proc"
    proc.mkdir()
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert networkd(root, proc) == []
    add_process(proc, 77, "/lib/systemd/systemd-networkd", name="systemd-network")
    [found] = networkd(root, proc)
    assert found.severity is (Severity.OK if stay else Severity.WARNING)
    assert stay or "wgkex-ops interfaces --output" in found.remedy
