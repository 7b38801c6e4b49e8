"""The two ends of a goodput measurement (sites/onsite/links.py) as a program for the lab's hosts.

    streams.py receive ADDRESS [--streams N] [--warm-up S] [--duration S] [--mptcp] [--as-qemu]
    streams.py send ADDRESS PORT KEY [the same]

The receiver listens on ADDRESS only and prints its port and the key for callers as one line of
JSON, then what it got as one more. The sender prints its figures when it has been hung up on.
Each end gives up by itself when its peer is gone.
"""

import argparse
import json
import signal
import sys
from typing import Any

from whimbrel.sites.onsite import links
from whimbrel.sites.onsite.links import PATIENCE

PROGRAM = __file__
"""Where this program lies."""


def receive(words: argparse.Namespace, wanted: dict[str, Any]) -> None:
    """Be the receiving end."""
    there = links.link_listen(words.address, **wanted)
    _tell(port=there["port"], key=there["key"].hex())
    _tell(**links.link_counted(there["key"]))


def send(words: argparse.Namespace, wanted: dict[str, Any]) -> None:
    """Be the sending end."""
    _tell(**links.link_send(words.address, words.port, bytes.fromhex(words.key), **wanted))


def _tell(**figures: Any) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the words of the command line and be one end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("end", choices=("receive", "send"))
    parser.add_argument("address")
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("key", nargs="?", default="")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--warm-up", type=float, default=0.2)
    parser.add_argument("--duration", type=float, default=1.0)
    parser.add_argument("--mptcp", action="store_true")
    parser.add_argument("--as-qemu", action="store_true")
    words = parser.parse_args()
    # whatever happens to the other end or to who started us: no end lives on
    signal.setitimer(signal.ITIMER_REAL, words.warm_up + words.duration + 3 * PATIENCE)
    wanted = {
        "streams": words.streams,
        "seconds": words.duration,
        "warm_up": words.warm_up,
        "mptcp": words.mptcp,
        "as_qemu": words.as_qemu,
    }
    {"receive": receive, "send": send}[words.end](words, wanted)


if __name__ == "__main__":
    main()
