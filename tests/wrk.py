"""wrk, which sends prepared POSTs as fast as they are answered: for benchmarks, and for floods in tests."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

# The result comes as one line of JSON; wrk's own report is for people.
_SCRIPT: Final = """
local requests, at = {}, 0
function init(arguments)
  for line in io.lines(arguments[1]) do
    local client, body = line:match("^(%S+) (.*)$")
    local headers = { ["X-Forwarded-For"] = client, ["Connection"] = arguments[2] }
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format('RESULT {"requests": %d, "seconds": %f, "refused": %d, "broken": %d, "p50": %f, "p99": %f}\\n',
    summary.requests, summary.duration / 1e6, errors.status, broken,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


_DELAY: Final = "function delay() return {delay} end\n"


class Result(NamedTuple):
    """What came of it.

    Attributes:
        requests: how many got a response.
        seconds: how long it took.
        refused: how many of the responses were errors.
        broken: connections that failed.
        p50: the median latency, in milliseconds.
        p99: of a hundred requests, the slowest, in milliseconds.
    """

    requests: int
    seconds: float
    refused: int
    broken: int
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def write_requests(path: Path, requests: Iterable[tuple[str, str]]) -> None:
    """Prepare requests: the client that each of them is forwarded for, and its body."""
    path.write_text("".join(f"{client} {body}\n" for client, body in requests))


def command(
    url: str, requests: Path, *, connections: int, seconds: float, connection: str = "keep-alive", delay: int = 0
) -> list[str]:
    """The command line that sends requests, over and over.

    Args:
        url: where to.
        requests: as `write_requests` has written them; a script is put beside them.
        connections: how many are used at the same time.
        seconds: for how long.
        connection: the header of that name: `keep-alive`, or `close` for a connection for each request.
        delay: milliseconds from a response to the next request of its connection.
    """
    script = requests.with_suffix(".lua")
    script.write_text(_SCRIPT + (_DELAY.format(delay=delay) if delay else ""))
    options = ["--threads", "1", "--connections", str(connections), "--duration", f"{seconds:.0f}s", "--latency"]
    return ["wrk", *options, "--script", str(script), url, "--", str(requests), connection]


def parse(output: str) -> Result:
    """Read what wrk has printed."""
    line = next(line for line in output.splitlines() if line.startswith("RESULT"))
    return Result(**json.loads(line.removeprefix("RESULT")))
