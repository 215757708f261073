"""Whatever comes from outside, its readers raise only what they document. The same inputs each time; see tests/fuzz."""

import random
import time

import pytest

from tests.fuzz.targets import SLOW_SECONDS, TARGETS

_INPUTS = 1500
_LONGEST = 8192


def mutated(seeds: list[bytes], dice: random.Random) -> bytes:
    """A seed with some of what breaks parsers: lost, doubled, moved and strange bytes."""
    data = bytearray(dice.choice(seeds))
    for _ in range(dice.choice((0, 1, 1, 2, 5, 20))):
        at, length = dice.randrange(len(data) + 1), dice.choice((1, 1, 2, 8, 64))
        match dice.randrange(5):
            case 0:
                del data[at : at + length]
            case 1:
                data[at:at] = dice.choice(
                    (b"\x00", b"\xff", b'"', b"{", b"[" * 500, b"/", b"+", b"\xe2\x80\xae", b"1e999", b"\n")
                )
            case 2:
                data[at:at] = data[at : at + length] * dice.choice((1, 3, 40))
            case 3:
                data[at : at + length] = dice.randbytes(length)
            case _:
                data[at:at] = dice.choice(seeds)[:length]
    return bytes(data[:_LONGEST])


@pytest.mark.parametrize("name", TARGETS)
def test_only_documented_errors_and_nothing_slow(name: str) -> None:
    target = TARGETS[name]
    dice = random.Random(name)
    # Files take a while, and their readers do nothing on the event loop.
    for _ in range(_INPUTS if target.on_the_loop else _INPUTS // 10):
        data = mutated(list(target.seeds), dice)
        # What is slow once may be the garbage collector.
        for _ in range(3):
            began = time.thread_time()
            target.read(data)
            if not target.on_the_loop or time.thread_time() - began < SLOW_SECONDS:
                break
        else:
            pytest.fail(f"{data!r} takes over {SLOW_SECONDS} s of processor time")
