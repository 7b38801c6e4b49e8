"""Asks a QEMU what it knows: started without a machine, told its questions, and ended.

It talks over its standard input and output: no socket, no file, nothing that stays.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

_WITHIN = 20.0


def preflight_qemu(
    binary: str, accelerator: str, commands: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return what QEMU answers to each command: {"return": …} or {"error": …}.

    Raises:
        RuntimeError: It did not start, with its own words.
    """
    words = [binary, "-machine", "none", "-accel", accelerator, "-nodefaults", "-no-user-config"]
    words += ["-display", "none", "-S", "-qmp", "stdio"]
    asked = [{"execute": "qmp_capabilities"}, *commands, {"execute": "quit"}]
    given = "".join(
        json.dumps({**command, "id": index}) + "\n" for index, command in enumerate(asked)
    )
    told = subprocess.run(
        words, input=given.encode(), capture_output=True, timeout=_WITHIN, check=False
    )
    answers = {}
    for line in told.stdout.splitlines():
        message = json.loads(line)
        if "id" in message:
            answers[message["id"]] = message
    if len(answers) < len(asked) - 1:  # it may end before it has said that it will
        raise RuntimeError(told.stderr.decode(errors="replace").strip() or "QEMU said nothing")
    return [answers[index] for index in range(1, len(commands) + 1)]


QUESTIONS = {"preflight_qemu": preflight_qemu}
