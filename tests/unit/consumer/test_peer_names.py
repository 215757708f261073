"""Friendly names of peers, and the file that people edit."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog

from tests.helpers import key
from wgkex_ops.consumer.peer_names import PeerNames


def write(path: Path, text: str, version: int) -> None:
    """Write, and make sure that the change can be seen: two may fall into one tick of the file system's clock."""
    path.write_text(text)
    os.utime(path, ns=(version, version))


def test_no_file_no_names() -> None:
    assert PeerNames(None).read() == {}


def test_names_and_remarks(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_text(
        f"# Munich\n\n{key(1)} Rathaus \n  {key(2)}\tMarienplatz, Süd # 2  \n{key(3)}\n{key(4)} {'x' * 200}\r\n"
    )
    with structlog.testing.capture_logs() as events:
        names = PeerNames(file).read()
    assert names == {key(1).raw: "Rathaus", key(2).raw: "Marienplatz, Süd # 2", key(3).raw: "", key(4).raw: "x" * 100}
    assert events == []


@pytest.mark.parametrize("text", ["Rathaus", "\0\0\0", "x" * 10_000, "🙂 name"])
def test_bad_line_is_told_and_the_others_are_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "names"
    file.write_text(f"{text}\n{key(1)} Rathaus\n")
    with structlog.testing.capture_logs() as events:
        assert PeerNames(file).read() == {key(1).raw: "Rathaus"}
    assert [(event["event"], event["line"]) for event in events] == [("peer_name_skipped", 1)]


def test_file_is_read_anew_when_it_has_changed_and_only_then(tmp_path: Path) -> None:
    file = tmp_path / "names"
    write(file, f"{key(1)} Rathaus\nnonsense\n", 1)
    names = PeerNames(file)
    with structlog.testing.capture_logs() as events:
        for _ in range(3):
            assert names.read() == {key(1).raw: "Rathaus"}
        write(file, f"{key(2)} Marienplatz\n", 2)
        assert names.read() == {key(2).raw: "Marienplatz"}
    assert len(events) == 1


def test_file_that_vanishes_leaves_the_names_and_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "names"
    write(file, f"{key(1)} Rathaus\n", 1)
    names = PeerNames(file)
    names.read()
    file.unlink()
    with structlog.testing.capture_logs() as events:
        for _ in range(3):
            assert names.read() == {key(1).raw: "Rathaus"}
    assert [(event["event"], event["detail"]) for event in events] == [
        ("peer_names_unreadable", "No such file or directory")
    ]
    write(file, f"{key(1)} Rathaus\n{key(2)} Marienplatz\n", 1)
    assert len(names.read()) == 2


def test_file_that_cannot_be_opened_is_told_once_too(tmp_path: Path) -> None:
    names = PeerNames(tmp_path)
    with structlog.testing.capture_logs() as events:
        for _ in range(3):
            assert names.read() == {}
    assert [(event["event"], event["detail"]) for event in events] == [("peer_names_unreadable", "Is a directory")]


def test_scrapes_in_several_threads_see_the_same_names(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_text("".join(f"{key(number)} node {number}\n" for number in range(5000)))
    names = PeerNames(file)
    with ThreadPoolExecutor(8) as threads:
        seen = [future.result() for future in [threads.submit(names.read) for _ in range(8)]]
    assert [len(each) for each in seen] == [5000] * 8


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_bytes(f"{key(1)} ".encode() + b"M\xfcnchen\n")
    assert PeerNames(file).read() == {key(1).raw: "M\ufffdnchen"}
