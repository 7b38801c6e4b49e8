"""Files that people write: `whimbrel.toml` with hosts and policy, and VMs as small TOML files.

reading   TOML and its keys into checked tables; every complaint in one shape
lines     on which line a value stands
keys      the tables of whimbrel.toml
settled   what holds in the end, each value with its origin
load      which file counts, and what it says
vm        a VM's file
"""

from whimbrel.config.load import FILE, find, load
from whimbrel.config.settled import Config, Setting
from whimbrel.config.vm import load_vm

__all__ = ["FILE", "Config", "Setting", "find", "load", "load_vm"]
