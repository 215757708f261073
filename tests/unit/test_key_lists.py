"""The key lists in force follow their file."""

import asyncio
import os
import time
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry

from tests.helpers import KEY, WELT, running, samples, until
from wgkex_ops import key_lists
from wgkex_ops.errors import ConfigError
from wgkex_ops.key_lists import ProtectedKeys, WatchedKeyLists
from wgkex_ops.model.key_lists import KeyLists, ListedKey
from wgkex_ops.model.keys import PublicKey

RAW = PublicKey.parse(KEY).raw
DENIED = f"denied:\n- key: {KEY}\n"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_lists, "_CHECK_EVERY", 0.01)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys.yaml"
    file.write_text("denied: []")
    return file


def write(file: Path, text: str | None, *, same_time: bool = False) -> None:
    """Write the file, or remove it; perhaps so that it looks as it did."""
    status = file.stat() if same_time else None
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    if status is not None:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def watched(file: Path | None) -> tuple[WatchedKeyLists, CollectorRegistry]:
    registry = CollectorRegistry()
    return WatchedKeyLists(file, [WELT.name], registry), registry


def successful(registry: CollectorRegistry) -> float:
    return samples(registry)["wgkex_key_list_last_reload_successful"]


async def test_without_a_file_nobody_is_refused() -> None:
    lists, registry = watched(None)
    async with running(lists.run()):
        lists.reload()
        await asyncio.sleep(0.05)
        assert lists.current() == KeyLists()
        assert successful(registry) == 1
        assert samples(registry)['wgkex_key_list_entries{list="denied"}'] == 0


async def test_a_change_counts_and_is_reported(file: Path) -> None:
    lists, registry = watched(file)
    changes: list[int] = []
    lists.on_change = lambda: changes.append(len(lists.current().denied))
    async with running(lists.run()):
        write(file, DENIED)
        await until(lambda: bool(changes), every=0.01)
        assert changes == [1]
        assert samples(registry)['wgkex_key_list_entries{list="denied"}'] == 1
        read_at = samples(registry)["wgkex_key_list_last_reload_success_timestamp_seconds"]
        assert abs(read_at - time.time()) < 60


@pytest.mark.parametrize("broken", ["denied: [", "", None])
async def test_a_broken_file_leaves_the_lists_as_they_were_and_is_logged_once(file: Path, broken: str | None) -> None:
    write(file, DENIED)
    lists, registry = watched(file)
    with structlog.testing.capture_logs() as events:
        async with running(lists.run()):
            write(file, broken)
            await until(lambda: successful(registry) == 0, every=0.01)
            await asyncio.sleep(0.1)
            assert lists.current().denied.keys() == {RAW}
            assert [event["event"] for event in events] == ["key_lists_rejected"]
            write(file, "denied: []\n")
            await until(lambda: successful(registry) == 1, every=0.01)
            assert not lists.current().denied


async def test_a_file_that_looks_the_same_is_read_when_an_operator_wishes_it(file: Path) -> None:
    lists, _ = watched(file)
    async with running(lists.run()):
        write(file, "denied:   ", same_time=True)
        await asyncio.sleep(0.05)
        with structlog.testing.capture_logs() as events:
            lists.reload()
            await until(lambda: bool(events), every=0.01)


def test_a_file_that_is_broken_at_the_start_is_an_error(file: Path) -> None:
    write(file, "denied: [")
    with pytest.raises(ConfigError):
        watched(file)


async def test_a_list_of_a_domain_that_is_not_here_is_logged(file: Path) -> None:
    write(file, "allowed: {ffmuc_elsewhere: []}")
    with structlog.testing.capture_logs() as events:
        watched(file)
    assert [event["event"] for event in events] == ["key_lists_read", "key_list_of_unknown_domain"]


def test_protected_are_those_of_the_setting_and_of_the_list() -> None:
    lists = KeyLists(protected={b"b": ListedKey(), b"c": ListedKey(expires=0.0)})
    protected = ProtectedKeys([b"a"], lambda: lists)
    assert [key in protected for key in (b"a", b"b", b"c", b"d", "a")] == [True, True, False, False, False]
