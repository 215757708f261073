"""The canary's keys: which one is used next, and the files that they are in."""

import base64
import os
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from wgkex_ops.errors import CannotProbeError
from wgkex_ops.model.peers import ACTIVE_SECONDS
from wgkex_ops.probe.keys import FORGET_AFTER, KEYS_LIMIT, RENEW_AFTER, REST, KeyRing, KeyUse, PrivateKey, choose

# Made by `wg genkey` and `wg pubkey`.
PRIVATE: Final = "GGTiVzDv2JaYpXTkzcwUAUNzmyW3axz7OrHKE/Fv1ks="
PUBLIC: Final = "T7TQZ1aHazc8QvSOoadTVRsBCI5OsQkPKUA4+xBdGH4="
NOW: Final = 1_700_000_000.0
NAMES: Final = ("a", "b", "c")


class Clock:
    """Seconds since the epoch, as a test sets them."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ring(folder: Path, clock: Clock, *domains: str) -> KeyRing:
    return KeyRing(folder, domains or NAMES, clock)


# --- the key itself


def test_a_key_is_as_wireguard_makes_it() -> None:
    keys = [PrivateKey.generate() for _ in range(50)]

    assert len({key.raw for key in keys}) == 50
    for key in keys:
        assert (key.raw[0] & 7, key.raw[31] & 0xC0) == (0, 0x40)
        assert base64.b64decode(key.base64) == key.raw


def test_the_public_key_is_what_wireguard_derives() -> None:
    assert str(PrivateKey(base64.b64decode(PRIVATE)).public_key()) == PUBLIC


def test_a_key_is_not_shown() -> None:
    key = PrivateKey.generate()

    for text in (repr(key), str(key), f"{key}", f"{[key]}"):
        assert key.base64 not in text
        assert repr(key.raw) not in text


# --- which one


def test_a_key_moves_to_the_next_domain_when_its_session_is_over() -> None:
    use = KeyUse("a", NOW, used_at=NOW)
    assert REST > ACTIVE_SECONDS
    assert choose([use], "b", NAMES, NOW + REST) == use
    assert choose([use], "b", NAMES, NOW + REST - 1) is None
    # Each domain has another one before it: the last one for the first.
    assert choose([use], "c", NAMES, NOW + REST) is None
    assert choose([KeyUse("c", NOW, NOW)], "a", NAMES, NOW + REST) is not None


def test_the_key_that_has_rested_longest_moves() -> None:
    uses = [KeyUse("a", NOW + number, used_at=NOW - number) for number in range(5)]
    assert choose(uses, "b", NAMES, NOW + REST) == uses[-1]


def test_a_domain_has_a_bounded_number_of_keys_and_then_uses_the_latest_so_that_the_others_rest() -> None:
    uses = [KeyUse("a", NOW, used_at=NOW + number) for number in range(KEYS_LIMIT)]
    assert choose(uses[:-1], "a", NAMES, NOW + 10) is None
    assert choose(uses, "a", NAMES, NOW + 10) == uses[-1]


def test_a_key_that_cannot_move_is_replaced_now_and_then() -> None:
    uses = [KeyUse("a", NOW, NOW), KeyUse("a", NOW + 5, NOW + 5)]
    assert choose(uses, "a", ["a"], NOW + 5 + RENEW_AFTER - 1) == uses[-1]
    assert choose(uses, "a", ["a"], NOW + 5 + RENEW_AFTER) is None
    # After the clock was set back, nobody knows how old it is.
    assert choose(uses, "a", ["a"], NOW - 1) is None


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("interval", [60, 120, 300])
def test_after_the_first_rounds_every_key_is_new_to_its_domain_and_no_more_are_made(
    tmp_path: Path, clock: Clock, count: int, interval: int
) -> None:
    names = [f"domain{number}" for number in range(count)]
    keys = KeyRing(tmp_path, names, clock)
    last: dict[bytes, tuple[str, float]] = {}
    known = []
    for _ in range(40):
        for name in names:
            key = keys.take(name)
            if key.private.raw in last:
                before, used_at = last[key.private.raw]
                assert before != name
                assert clock.now - used_at >= REST
            last[key.private.raw] = name, clock.now
            keys.give_back(key, keep=True)
        clock.now += interval
        known.append(len(last))
    assert known[-1] == known[8] <= KEYS_LIMIT * count


def test_rounds_in_quick_succession_still_let_keys_rest_and_move(tmp_path: Path, clock: Clock) -> None:
    keys = ring(tmp_path, clock, "a", "b")
    used: list[tuple[str, bytes]] = []
    for _ in range(100):
        for name in ("a", "b"):
            key = keys.take(name)
            keys.give_back(key, keep=True)
            used.append((name, key.private.raw))
        clock.now += 10
    by_key = Counter(raw for _, raw in set(used))
    assert len(by_key) == 2 * KEYS_LIMIT
    assert max(by_key.values()) == 2


# --- the files


def test_the_folder_is_made_and_a_key_is_kept_as_wg_genkey_writes_it(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "state" / "probe"
    keys = ring(folder, clock, "a")
    with keys.locked():
        first = keys.take("a")
        keys.give_back(first, keep=True)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    [path] = folder.glob("*.key")
    assert path.name == "a.1700000000000.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == f"{first.private.base64}\n"
    # Another process finds it.
    assert ring(folder, clock, "a").take("a").private == first.private


def test_the_file_of_a_key_shows_where_and_when_it_was_used(tmp_path: Path, clock: Clock) -> None:
    keys = ring(tmp_path, clock, "a", "b")
    first = keys.take("a")
    clock.now += 7
    keys.give_back(first, keep=True)
    assert first.path.stat().st_mtime == NOW + 7
    clock.now += REST
    again = keys.take("b")
    assert again.private == first.private
    assert [path.name for path in tmp_path.glob("*.key")] == ["b.1700000000000.key"]
    # As long as it is in use, no other domain takes it.
    assert again.path.stat().st_mtime == clock.now


def test_keys_that_are_made_at_the_same_moment_never_get_the_same_name(tmp_path: Path, clock: Clock) -> None:
    keys = ring(tmp_path, clock, "a", "b")
    taken = [keys.take(name) for name in ("a", "b", "a", "b")]
    assert sorted(key.path.name.split(".")[1] for key in taken) == [f"170000000000{number}" for number in range(4)]


def test_a_key_that_nobody_may_have_installed_is_thrown_away(tmp_path: Path, clock: Clock) -> None:
    keys = ring(tmp_path, clock, "a")
    first = keys.take("a")
    keys.give_back(first, keep=False)
    assert list(tmp_path.glob("*.key")) == []
    assert keys.take("a").private != first.private


def test_a_key_that_an_operator_has_removed_meanwhile_is_no_error(tmp_path: Path, clock: Clock) -> None:
    keys = ring(tmp_path, clock, "a")
    for keep in (True, False):
        key = keys.take("a")
        key.path.unlink()
        keys.give_back(key, keep=keep)


def test_keys_that_are_not_used_any_more_are_removed_and_other_files_stay(tmp_path: Path, clock: Clock) -> None:
    keys = ring(tmp_path, clock, "a")
    (tmp_path / "notes").touch()
    keys.give_back(keys.take("a"), keep=True)
    gone = ring(tmp_path, clock, "gone")
    gone.give_back(gone.take("gone"), keep=True)
    os.utime(tmp_path / "notes", (NOW, NOW))
    clock.now += FORGET_AFTER + 1
    keys.take("a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.1700086401000.key", "notes"]


def test_only_one_canary_uses_the_keys_of_a_domain(tmp_path: Path, clock: Clock) -> None:
    with ring(tmp_path, clock, "b", "a").locked(), ring(tmp_path, clock, "c").locked():
        message = (
            f"another canary goes round in b with the keys in {tmp_path}; give this one a folder of its own: --keys"
        )
        with pytest.raises(CannotProbeError, match=f"^{re.escape(message)}$"), ring(tmp_path, clock, "b", "d").locked():
            pass
        # What it had got before is free again.
        with ring(tmp_path, clock, "d").locked():
            pass
    with ring(tmp_path, clock, "a", "b", "c").locked():
        pass


@pytest.fixture
def path(tmp_path: Path, clock: Clock) -> Path:
    """A key's file, for a test to spoil; nothing of a key is ever in a message."""
    keys = ring(tmp_path, clock, "a")
    key = keys.take("a")
    keys.give_back(key, keep=True)
    return key.path


def problem(folder: Path, clock: Clock) -> str:
    messages = set()
    keys = ring(folder, clock, "a")
    for use in (keys.check, lambda: keys.take("a")):
        with pytest.raises(CannotProbeError) as error:
            use()
        messages.add(str(error.value))
    [message] = messages
    return message


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        PRIVATE[:-1],
        # Not canonical: two bits too many.
        f"{PRIVATE[:-2]}t=",
        f"{PRIVATE}\n\n",
        f" {PRIVATE}",
        f"{PRIVATE}{PRIVATE}",
        "x" * 10_000,
    ],
    ids=range(8),
)
def test_a_broken_file_is_named_and_not_shown(tmp_path: Path, clock: Clock, path: Path, content: str) -> None:
    path.write_text(content)
    os.utime(path, (NOW, NOW))
    assert problem(tmp_path, clock) == f"{path} is not a WireGuard private key: remove it, and another one is made"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610])
def test_a_file_that_others_can_use_is_refused(tmp_path: Path, clock: Clock, path: Path, mode: int) -> None:
    path.chmod(mode)
    expected = f"the key {path} can be used by others (mode {mode:04o}): remove it, and another one is made"
    assert problem(tmp_path, clock) == expected


def test_what_is_no_file_is_refused(tmp_path: Path, clock: Clock, path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)
    os.utime(path, (NOW, NOW))
    assert problem(tmp_path, clock) == f"{path} is not a WireGuard private key: remove it, and another one is made"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    os.utime(path, (NOW, NOW), follow_symlinks=False)
    assert problem(tmp_path, clock) == f"the key {path} cannot be used: No such file or directory"


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "probe"
    expected = f"the folder of the canary's keys, {folder}, cannot be used: Not a directory"
    with pytest.raises(CannotProbeError, match=f"^{re.escape(expected)}$"), ring(folder, clock).locked():
        pass


def test_after_a_crash_while_a_key_was_written_there_is_none(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "a.1700000000000.new").write_text("half")
    keys = ring(tmp_path, clock, "a")
    key = keys.take("a")
    assert key.path.read_text() == f"{key.private.base64}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.1700000000000.key"]
