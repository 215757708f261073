"""Commands of operators, in processes of their own."""

import asyncio
import sys

Outcome = tuple[int, str, str]


async def outcome_of(*command: str) -> Outcome:
    """Exit status, output and errors of a command."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def wgkex_ops(*arguments: str) -> Outcome:
    """The same of `wgkex-ops` with some arguments."""
    return await outcome_of(sys.executable, "-m", "wgkex_ops", *arguments)
