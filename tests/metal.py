"""A guest that needs no operating system: one boot sector, which heeds the power button.

It says "up" on its serial console, sends back whatever is typed, and powers itself off when ACPI
tells it that the button was pressed. Between two ticks of the clock it sleeps.
"""

from pathlib import Path

from whimbrel.model.units import MIB


def write_disk(path: Path) -> Path:
    """Write a raw disk image that boots this guest; SeaBIOS boots from none that is tiny."""
    path.write_bytes((_code().ljust(510, b"\0") + b"\x55\xaa").ljust(MIB, b"\0"))
    return path


def _code() -> bytes:
    # ICH9: PM1a_STS, _EN and _CNT at 0x600, 0x602, 0x604 (SeaBIOS's PMBASE). UART at 0x3f8.
    code = _set_port16(0x602, 0x0100)  # PWRBTN_EN
    code += _set_port8(0x3FA, 0x01)  # the UART's FIFO
    code += b"".join(_set_port8(0x3F8, byte) for byte in b"up\r\n")
    tick = len(code)
    code += b"\xfb\xf4"  # sti; hlt
    typed = len(code)
    code += b"\xba\xfd\x03\xec\xa8\x01\x74\x07"  # LSR: nothing there? over the next two lines
    code += b"\xba\xf8\x03\xec\xee"  # in al, dx; out dx, al
    code += _jump(b"\xeb", code, typed)
    code += b"\xba\x00\x06\xed\xf6\xc4\x01"  # PWRBTN_STS
    code += _jump(b"\x74", code, tick)
    return code + _set_port16(0x604, 0x2000) + b"\xf4"  # SLP_EN: off


def _set_port8(port: int, value: int) -> bytes:
    return b"\xba" + port.to_bytes(2, "little") + b"\xb0" + bytes([value]) + b"\xee"


def _set_port16(port: int, value: int) -> bytes:
    return b"\xba" + port.to_bytes(2, "little") + b"\xb8" + value.to_bytes(2, "little") + b"\xef"


def _jump(how: bytes, code: bytes, to: int) -> bytes:
    return how + ((to - len(code) - 2) & 0xFF).to_bytes(1, "little")
