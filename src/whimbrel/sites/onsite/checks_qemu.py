"""Asks a QEMU what it knows: started without a machine, told its questions, and ended.

It talks over its standard input and output: no socket, no file, nothing that stays.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from typing import IO, Any

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
    asked = [{"execute": "qmp_capabilities"}, *commands]
    answers, complaints = _told(words, asked)
    if len(answers) < len(asked):
        raise RuntimeError(complaints or "QEMU said nothing")
    return [answers[index] for index in range(1, len(asked))]


def _told(words: list[str], asked: list[dict[str, Any]]) -> tuple[dict[int, Any], str]:
    """Return the answers by their numbers, and what QEMU complained of.

    It is told to quit only when it has answered: at its end it forgets what it has not written.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe) as qemu:
        assert qemu.stdin is not None  # noqa: S101 - all three were asked for as pipes
        assert qemu.stdout is not None  # noqa: S101
        too_late = threading.Timer(_WITHIN, qemu.kill)
        too_late.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # it says why on its standard error
                qemu.stdin.write(_lines(asked))
                qemu.stdin.flush()
            answers = _answers(qemu.stdout, len(asked))
            with contextlib.suppress(BrokenPipeError):
                qemu.stdin.write(b'{"execute": "quit"}\n')
                qemu.stdin.flush()
            _, complaints = qemu.communicate()
        finally:
            too_late.cancel()
            qemu.kill()
    return answers, complaints.decode(errors="replace").strip()


def _lines(asked: list[dict[str, Any]]) -> bytes:
    numbered = [{**command, "id": index} for index, command in enumerate(asked)]
    return "".join(json.dumps(each) + "\n" for each in numbered).encode()


def _answers(output: IO[bytes], count: int) -> dict[int, Any]:
    """Return so many answers, or those that came before it ended."""
    answers: dict[int, Any] = {}
    for line in output:
        if not line.endswith(b"\n"):
            break  # it was ended amid a word
        message = json.loads(line)
        if "id" in message:
            answers[message["id"]] = message
        if len(answers) == count:
            break
    return answers


QUESTIONS = {"preflight_qemu": preflight_qemu}
