"""Run the benchmarks that need a kernel with WireGuard and VXLAN: all, or those that are named, one after the other."""

import subprocess
import sys
import time
from typing import Final

IN_KERNEL: Final = ("idle_latency", "install", "end_to_end", "dump", "scaling", "memory")

# Each in a process and a network namespace of its own: where 20,000 peers have been is no place to measure in.
_ALONE: Final = 'ip link set lo up; exec "$1" -m "benchmarks.$2"'


def main() -> None:
    for name in sys.argv[1:] or IN_KERNEL:
        print(f"== {name}", flush=True)
        started = time.monotonic()
        subprocess.run(["unshare", "--net", "sh", "-ec", _ALONE, "sh", sys.executable, name], check=True)
        print(f"   ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
