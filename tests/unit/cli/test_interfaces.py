"""`wgkex-ops interfaces` up to the kernel: options, output, files."""

import base64
import grp
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from wgkex_ops.__main__ import main
from wgkex_ops.cli.key_files import read_key, write_key
from wgkex_ops.probe.keys import PrivateKey

# No host has the interfaces of these.
DOMAINS = ("ffx_zq0", "ffx_zq1", "ffx_zq2")
VNIS = ("--vni", "ffx_zq0=5", "ffx_zq1=6", "ffx_zq2=16777215")
PRIVATE_KEY = PrivateKey(base64.b64decode("yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, which the environment names."""
    config = tmp_path / "wgkex.yaml"
    config.write_text(f"domains: [{', '.join(DOMAINS)}]\ndomain_prefixes: [ffx_]\nmqtt: {{broker_url: localhost}}\n")
    monkeypatch.setenv("WGKEX_CONFIG_FILE", str(config))
    return tmp_path


def run(*arguments: str) -> int:
    return main(["interfaces", *arguments])


def output(folder: Path, *arguments: str) -> int:
    return run("--key-directory", str(folder / "keys"), "--output", str(folder / "systemd"), *arguments)


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_units_are_printed_each_behind_its_file_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--key-directory", str(folder / "keys"), *VNIS) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("# /etc/systemd/networkd.conf.d/10-wgkex.conf\n# Made by wgkex-ops interfaces")
    assert [line for line in out.splitlines() if line.startswith("# /")][1:5] == [
        f"# /etc/systemd/network/{name}"
        for name in ("30-wg-zq0.netdev", "30-wg-zq0.network", "40-vx-zq0.netdev", "40-vx-zq0.network")
    ]
    assert f"\nPrivateKeyFile={folder}/keys/wg-zq0.key\n" in out
    assert all(len(line) <= 80 or "Private" in line for line in out.splitlines())
    # Whoever only looks gets no key.
    assert not (folder / "keys").exists()


def test_files_and_keys_are_written_and_the_second_time_unchanged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert output(folder, *VNIS) == 0
    first = capsys.readouterr().out.splitlines()
    assert len(first) == 1 + 3 * 4 + 3
    assert {line.split()[-1] for line in first} == {"new"}
    keys = {path.name: path.read_text() for path in (folder / "keys").iterdir()}
    assert set(keys) == {"wg-zq0.key", "wg-zq1.key", "wg-zq2.key"}
    assert len(set(keys.values())) == 3
    for path in (folder / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) in (0o600, 0o640)
    assert output(folder, *VNIS) == 0
    second = capsys.readouterr().out.splitlines()
    assert {line.split()[-1] for line in second} == {"unchanged"}
    assert {path.name: path.read_text() for path in (folder / "keys").iterdir()} == keys
    assert not any(text.strip() in line for text in keys.values() for line in first + second)


def test_a_group_may_read_a_key_if_there_is_one(tmp_path: Path) -> None:
    # One that this user may give files to.
    own = grp.getgrgid(os.getgid()).gr_name
    for readers, mode in ((own, 0o640), ("no-such-group", 0o600)):
        path = tmp_path / "keys" / readers
        write_key(path, PRIVATE_KEY, readers)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert path.stat().st_gid == os.getgid()
        assert read_key(path) == PRIVATE_KEY


def test_what_others_have_written_stays_and_nothing_else_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = folder / "systemd" / "network" / "40-vx-zq1.network"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("[Match]\nName=vx-zq1\n")
    assert output(folder, *VNIS) == 1
    assert capsys.readouterr() == ("", f"{foreign} was not made by this command: move it away, or use --force\n")
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / "wgkex.yaml", foreign]
    assert output(folder, "--force", *VNIS) == 0
    assert f"{foreign}" in next(line for line in capsys.readouterr().out.splitlines() if line.endswith("  changed"))
    assert "MTUBytes=1350" in foreign.read_text()


def test_the_plan_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "keys").mkdir()
    key_file = folder / "keys" / "wg-zq1.key"
    key_file.write_text(f"{PRIVATE_KEY.base64}\n")
    key_file.chmod(0o600)
    options = ("--domain", "ffx_zq1", "--domain", "ffx_zq0", "--domain", "ffx_zq1", "--port", "ffx_zq0=40011")
    assert run("--json", "--key-directory", str(folder / "keys"), *VNIS, *options, "--mtu", "1406") == 0
    public_key = PRIVATE_KEY.public_key()
    assert document(capsys) == {
        "domains": [
            {
                "domain": "ffx_zq1",
                "wireguard": {
                    "interface": "wg-zq1",
                    # The second domain of the configuration, whatever is left out.
                    "port": 40001,
                    "mtu": 1406,
                    "address": str(public_key.link_local),
                    "public_key": str(public_key),
                    "key_file": str(key_file),
                },
                "vxlan": {
                    "interface": "vx-zq1",
                    "vni": 6,
                    "port": 8472,
                    "mtu": 1336,
                    "local": str(public_key.link_local),
                },
            },
            {
                "domain": "ffx_zq0",
                "wireguard": {
                    "interface": "wg-zq0",
                    "port": 40011,
                    "mtu": 1406,
                    "address": None,
                    "public_key": None,
                    "key_file": str(folder / "keys" / "wg-zq0.key"),
                },
                "vxlan": {"interface": "vx-zq0", "vni": 5, "port": 8472, "mtu": 1336, "local": None},
            },
        ],
        "files": [],
        "interfaces": [],
    }


def test_written_files_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(folder, "--json", "--domain", "ffx_zq2", *VNIS) == 0
    found = document(capsys)
    assert {file["state"] for file in found["files"]} == {"new"}
    assert {str(folder / "systemd/network/30-wg-zq2.netdev"), str(folder / "keys/wg-zq2.key")} <= {
        file["path"] for file in found["files"]
    }
    written = read_key(folder / "keys/wg-zq2.key")
    assert written is not None
    assert found["domains"][0]["wireguard"]["public_key"] == str(written.public_key())


def test_the_vni_of_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    seed = "ffx_zq0=1f0b31cecdf980317f453b162ac476ee09cf9997b03e684d4f2f484e75d9cd26"
    assert run("--json", "--domain", "ffx_zq0", "--domain-seed", seed) == 0
    assert document(capsys)["domains"][0]["vxlan"]["vni"] == 4831583


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--vni", "ffx_zq0=5"], "ffx_zq1: which VNI do its nodes use? Name it with --domain-seed or --vni\nffx_zq2: "),
        ([*VNIS, "ffx_z=1"], "'ffx_z' is not one of the domains: ffx_zq0, ffx_zq1, ffx_zq2\n"),
        ([*VNIS, "--port", "z=1"], "'z' is not one of the domains"),
        ([*VNIS, "--domain", "z"], "--domain: 'z' is not one of ffx_zq0"),
        ([*VNIS, "--port", "ffx_zq2=40001"], "ffx_zq1 and ffx_zq2 would both have the UDP port 40001: name another"),
    ],
)
def test_options_that_do_not_fit_the_configuration(
    capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(problem)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--vni", "ffx_zq0"], "'ffx_zq0' should be a domain, '=' and a value"),
        (["--vni", "ffx_zq0=0"], "'0' should be from 1 to 16777215"),
        (["--vni", "ffx_zq0=16777216"], "'16777216' should be from 1 to 16777215"),
        (["--vni", "ffx_zq0=5x"], "'5x' should be from 1 to 16777215"),
        (["--domain-seed", "ffx_zq0=1f0b"], "a domain_seed has 64 hexadecimal digits"),
        (["--port", "ffx_zq0=65536"], "'65536' should be from 1 to 65535"),
        (["--mtu", "1279"], "'1279' should be from 1280 to 9000"),
        (["--mtu", "9001"], "'9001' should be from 1280 to 9000"),
    ],
)
def test_values_that_cannot_be(capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str) -> None:
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        (f"{PRIVATE_KEY.base64}\n", 0o644, "other users may use the key (mode 0644): chmod o= "),
        ("PrivateKey = abc\n", 0o600, "is not a WireGuard private key as `wg genkey` prints it\n"),
        ("", 0o600, "is not a WireGuard private key"),
    ],
)
def test_key_files_that_cannot_be_used(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, mode: int, problem: str
) -> None:
    (folder / "keys").mkdir()
    key_file = folder / "keys" / "wg-zq1.key"
    key_file.write_text(text)
    key_file.chmod(mode)
    assert output(folder, *VNIS) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{key_file}: {problem}")
    assert PRIVATE_KEY.base64 not in err
    assert not (folder / "systemd").exists()
