"""Answers questions on a host: one JSON object per line in, one per line out, in any order.

    in    {"id": 7, "question": "facts", "arguments": {…}}
    out   {"id": 7, "answer": …}   or   {"id": 7, "refusal": "words", "kind": "FileNotFoundError"}

Every question runs in a thread of its own, so that one that waits holds up no other. When the
input ends, so does the program; what it started for good (VMs) goes on.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

Questions = Mapping[str, Callable[..., Any]]


def encoded(value: Any) -> Any:
    """Return what JSON can say for an answer; bytes are compressed, since they may be many."""
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": base64.b64encode(zlib.compress(bytes(value), 1)).decode()}
    if isinstance(value, dict):
        return {key: encoded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [encoded(each) for each in value]
    return value


def decoded(value: Any) -> Any:
    """Return what was encoded."""
    if isinstance(value, dict):
        if set(value) == {"$bytes"}:
            return zlib.decompress(base64.b64decode(value["$bytes"]))
        return {key: decoded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [decoded(each) for each in value]
    return value


def asked(questions: Questions, name: str) -> Callable[..., Any]:
    """Return the function that answers; raises `LookupError` when there is none."""
    if name not in questions:
        raise LookupError("there is no question " + name)
    return questions[name]


def serve(questions: Questions, lines: Iterable[bytes], out: BinaryIO) -> None:
    """Answer until the input ends.

    Args:
        questions: Functions by name.
        lines: The input.
        out: Where the answers go.
    """
    lock = threading.Lock()

    def say(message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            with lock:
                out.write(line)
                out.flush()
        except OSError:
            os._exit(0)  # nobody listens any more

    def answer(request: dict[str, Any]) -> None:
        number = request["id"]
        try:
            found = asked(questions, request["question"])(**decoded(request.get("arguments", {})))
            say({"id": number, "answer": encoded(found)})
        except Exception as error:  # noqa: BLE001 - whatever it was, the asker must hear of it
            words = str(error) or type(error).__name__
            say({"id": number, "refusal": words, "kind": type(error).__name__})

    for line in lines:
        if line.strip():
            request = json.loads(line)
            try:
                threading.Thread(target=answer, args=(request,), daemon=True).start()
            except RuntimeError as error:  # as many threads as this host allows
                say({"id": request["id"], "refusal": str(error), "kind": "RuntimeError"})


def main(modules: Iterable[Any]) -> None:
    """Serve what all modules answer, over standard input and output."""
    questions: dict[str, Callable[..., Any]] = {}
    for module in modules:
        questions.update(getattr(module, "QUESTIONS", {}))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write among the answers
    out.write(b'{"ready": true}\n')
    out.flush()
    serve(questions, sys.stdin.buffer, out)
    os._exit(0)  # threads that still wait end here
