"""The program of sites/onsite as it is sent to a host, and the first words that receive it."""

import json
from importlib import resources

BOOTSTRAP = """\
import json, sys, types
made = []
for name, text in json.loads(sys.stdin.buffer.readline()):
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, name + ".py", "exec"), module.__dict__)
    made.append(module)
sys.modules["serve"].main(made)
"""
"""What the host's Python runs first: it reads one line with all modules, and starts them."""


READY = b'{"ready": true}\n'
"""What the program says first (`serve.main`)."""


def words(python: str = "python3") -> list[str]:
    """Return the command that waits for the program on a host."""
    return [python, "-I", "-u", "-c", BOOTSTRAP]


def text() -> bytes:
    """Return the line that the command waits for: every module, `serve` first."""
    found = [
        (entry.name.removesuffix(".py"), entry.read_text(encoding="utf-8"))
        for entry in resources.files("whimbrel.sites.onsite").iterdir()
        if entry.name.endswith(".py") and entry.name != "__init__.py"
    ]
    found.sort(key=lambda module: (module[0] != "serve", module[0]))
    return json.dumps(found).encode() + b"\n"
