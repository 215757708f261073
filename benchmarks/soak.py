"""Memory and file descriptors of broker and worker under load for minutes: both should stay as they are.

The processes are those of `benchmarks.broker`, with a worker. wrk sends keys by version 2, with a connection for each
request, at about half of the rate that they could serve.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.broker import V2, prepare, servers
from tests import wrk
from tests.helpers import megabytes

MINUTES: Final = 10.0
# The first minutes fill caches, histories and the journal.
_WARM_UP: Final = 0.3
_SAMPLE_EVERY: Final = 5.0
# Each connection waits so long for its next request.
_CONNECTIONS: Final = 16
_DELAY_MILLISECONDS: Final = 8


class Sample(NamedTuple):
    """What a process has: minutes since the start, megabytes, descriptors."""

    minute: float
    memory: float
    descriptors: int


def sample(pid: int, began: float) -> Sample:
    memory, _ = megabytes(pid)
    return Sample((time.monotonic() - began) / 60, memory, len(list(Path(f"/proc/{pid}/fd").iterdir())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        with servers(folder, with_worker=True) as (_, port, pids):
            began = time.monotonic()
            command = wrk.command(
                f"http://127.0.0.1:{port}{V2}",
                folder / "valid",
                connections=_CONNECTIONS,
                seconds=minutes * 60,
                connection="close",
                delay=_DELAY_MILLISECONDS,
            )
            samples: dict[str, list[Sample]] = {"broker": [], "worker": []}
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                while process.poll() is None:
                    for program, found in samples.items():
                        found.append(sample(pids[program], began))
                    time.sleep(_SAMPLE_EVERY)
                output, _ = process.communicate()
            result = wrk.parse(output)
            assert not result.refused, result
            print(f"{result.requests} requests, {result.rate:.0f}/s, p99 {result.p99:.1f} ms", flush=True)
            for program, found in samples.items():
                settled = [one for one in found if one.minute > _WARM_UP * minutes]
                slope, _ = statistics.linear_regression(
                    [one.minute for one in settled], [one.memory for one in settled]
                )
                descriptors = [one.descriptors for one in settled]
                print(
                    f"{program}: {settled[0].memory:.0f} MB, then {settled[-1].memory:.0f} MB, "
                    f"{slope:+.2f} MB a minute; {min(descriptors)} to {max(descriptors)} descriptors"
                )


if __name__ == "__main__":
    main()
