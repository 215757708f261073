"""Fuzz one target, guided by coverage: python -m tests.fuzz TARGET [LIBFUZZER-OPTION...]; --list prints the targets.

An input that is a bug is written to a file in the working directory, and named.
"""

import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["wgkex_ops"], enable_loader_override=False):
    from tests.fuzz.targets import SLOW_SECONDS, TARGETS


class SlowInputError(Exception):
    """An input took long, each time."""


def main() -> None:
    if sys.argv[1:] == ["--list"]:
        print(*TARGETS)  # noqa: T201  for the Makefile
        return
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {'|'.join(TARGETS)} [LIBFUZZER-OPTION...]")
    target = TARGETS[sys.argv[1]]

    def read(data: bytes) -> None:
        for _ in range(3):
            began = time.thread_time()
            target.read(data)
            if not target.on_the_loop or time.thread_time() - began < SLOW_SECONDS:
                return
        raise SlowInputError(f"{SLOW_SECONDS} s of processor time")

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *sys.argv[2:], corpus], read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
