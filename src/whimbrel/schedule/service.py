"""The systemd unit of the scheduler: written on request, never enabled.

`KillMode=process` is not to be changed: VMs that a move starts on this host lie in the service's
cgroup, and any other mode would end them together with the scheduler.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from whimbrel.errors import ConfigError

NAME = "whimbrel-scheduler.service"
MARK = "# Written by `whimbrel schedule install`; written again when that is run again."

KEPT_VARIABLES = ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK")
"""Variables that decide which store, configuration and keys are used."""


@dataclass(frozen=True)
class Service:
    """A unit and where it belongs.

    Attributes:
        path: Its file.
        text: What stands in it.
        commands: What a person has to run then.
    """

    path: Path
    text: str
    commands: tuple[str, ...]

    def write(self) -> None:
        """Write the file; raises `ConfigError` where that fails or another's would be lost."""
        try:
            if self.path.exists() and MARK not in self.path.read_text(encoding="utf-8"):
                raise ConfigError(
                    f"{self.path} was not written by whimbrel, and was left as it is.",
                    "Move it away, or print the unit: whimbrel schedule install --print",
                )
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(self.text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written: {error.strerror}.",
                "A unit of the system needs root; without --system it is one of your own.",
            ) from error


def service(python: str, variables: Mapping[str, str], home: Path, *, system: bool) -> Service:
    """Return the unit that runs this whimbrel's scheduler.

    Args:
        python: The interpreter that has whimbrel.
        variables: The environment.
        home: The user's home folder.
        system: For the system, started with the machine; else for this user.
    """
    if system:
        folder = Path("/etc/systemd/system")
        control = "systemctl"
    else:
        given = Path(variables.get("XDG_CONFIG_HOME", ""))
        folder = (given if given.is_absolute() else home / ".config") / "systemd" / "user"
        control = "systemctl --user"
    commands = [f"{control} daemon-reload", f"{control} enable --now {NAME}"]
    if not system:
        commands.append("loginctl enable-linger    # so that it also runs while you are logged out")
    text = _text(python, variables, "multi-user.target" if system else "default.target")
    return Service(folder / NAME, text, tuple(commands))


def _text(python: str, variables: Mapping[str, str], wanted_by: str) -> str:
    kept = [name for name in KEPT_VARIABLES if variables.get(name)]
    environment = [f"Environment={_quoted(f'{name}={variables[name]}')}" for name in kept]
    lines = [
        MARK,
        "[Unit]",
        "Description=whimbrel scheduler: moves virtual machines at their time",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        f"ExecStart={_quoted(python)} -m whimbrel scheduler",
        *environment,
        "Restart=on-failure",
        "RestartSec=10",
        "# Only the scheduler is told to stop; it passes that on to its moves and waits for them.",
        "# VMs that were started here lie in this service's cgroup and must not be killed with it.",
        "KillMode=process",
        "TimeoutStopSec=30min",
        "UMask=0077",
        "",
        "[Install]",
        f"WantedBy={wanted_by}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    """Return a word as systemd reads it back: systemd.service(5), "Command lines"."""
    if any(each in word for each in "\n\r\0"):
        raise ConfigError(f"{os.fsencode(word)!r} cannot stand in a systemd unit.")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
