"""Network namespaces by name, as `ip netns` keeps them: files under /run/netns.

A namespace is entered by one short-lived thread only, so that the rest of the process, its
event loop and its other threads never leave the machine's own network.
"""

import ctypes
import fcntl
import os
import select
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from whimbrel.errors import LabError

FOLDER = Path("/run/netns")

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET, linux/sched.h
_BIND, _RECURSIVE, _SHARED = 4096, 16384, 1 << 20  # MS_*, linux/mount.h
_DETACH = 2  # MNT_DETACH, linux/fs.h
_END_TIMEOUT = 10.0
"""Seconds that a killed process is given to end."""

_libc = ctypes.CDLL(None, use_errno=True)
_Result = TypeVar("_Result")


def create_namespace(name: str) -> None:
    """Create a network namespace that lives until `delete_namespace`.

    Raises:
        LabError: This process may not, or the name is taken. Nothing is left behind.
    """
    with _explained(f"The network namespace {name} cannot be made"):
        _prepare_folder()
        path = FOLDER / name
        path.touch(mode=0, exist_ok=False)
        try:
            uninterrupted(lambda: _make_and_bind(path))
        except OSError:
            path.unlink()
            raise


def in_namespace(name: str, work: Callable[[], _Result]) -> _Result:
    """Return what `work` returns when it is done by a thread inside a namespace.

    Sockets that it opens stay in the namespace wherever they are used later.

    Raises:
        LabError: The namespace cannot be entered.
        Exception: Whatever `work` raises.
    """

    def inside() -> _Result:
        _enter(name)
        return work()

    return uninterrupted(inside)


def uninterrupted(work: Callable[[], _Result]) -> _Result:
    """Return what `work` returns when a short-lived thread does it.

    An interrupt (Ctrl-C) waits until `work` has ended, so that nothing stays half made.
    """
    interrupt: KeyboardInterrupt | None = None
    with ThreadPoolExecutor(1) as thread:
        # a thread whose start is interrupted runs, but nobody waits for it: no signal just then
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            future = thread.submit(work)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        while not future.done():
            try:
                wait([future])
            except KeyboardInterrupt as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt
    return future.result()


def namespace_names() -> tuple[str, ...]:
    """Return the names of all network namespaces that have one."""
    try:
        return tuple(sorted(path.name for path in FOLDER.iterdir()))
    except FileNotFoundError:
        return ()


def inhabitants(name: str) -> tuple[int, ...]:
    """Return the pids of the processes that live in a namespace; none when it is gone.

    Processes that this user may not look at are not seen.
    """
    home = _identity(FOLDER / name)
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return tuple(pid for pid in pids if home and _network_of(pid) == home)


def delete_namespace(name: str) -> tuple[int, ...]:
    """Delete a namespace with everything in it; return the pids that had to be killed.

    Its links end with it. Deleting what is already gone is not an error.

    Raises:
        LabError: A process in it does not end, or this process may not.
    """
    path = FOLDER / name
    with _explained(f"The network namespace {name} cannot be removed"):
        killed: list[int] = []
        while pids := inhabitants(name):  # again, for what was forked in the meantime
            for pid in pids:
                _kill(pid, path)
            killed.extend(pids)
        _libc.umount2(bytes(path), _DETACH)  # fails harmlessly when never mounted
        path.unlink(missing_ok=True)
    return tuple(killed)


def _prepare_folder() -> None:
    """Make /run/netns a shared mount, as iproute2 does: removals then reach every mount."""
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two labs that start together must not both bind
        if _mount(b"", FOLDER, _SHARED | _RECURSIVE):
            return
        if not _mount(bytes(FOLDER), FOLDER, _BIND | _RECURSIVE):
            raise _last_error()
        if not _mount(b"", FOLDER, _SHARED | _RECURSIVE):
            raise _last_error()
    finally:
        os.close(folder)


def _make_and_bind(path: Path) -> None:
    """Give the calling thread a new network, and the network a name."""
    if _libc.unshare(_NEW_NETWORK) != 0:
        raise _last_error()
    if not _mount(b"/proc/thread-self/ns/net", path, _BIND):
        raise _last_error()


def _enter(name: str) -> None:
    with _explained(f"The network namespace {name} cannot be entered"):
        namespace = os.open(FOLDER / name, os.O_RDONLY)
        try:
            if _libc.setns(namespace, _NEW_NETWORK) != 0:
                raise _last_error()
        finally:
            os.close(namespace)


def _mount(source: bytes, goal: Path, flags: int) -> bool:
    return bool(_libc.mount(source, bytes(goal), b"none", ctypes.c_ulong(flags), None) == 0)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:  # ended between listing and looking, or not ours to see
        return None
    return found.st_dev, found.st_ino


def _network_of(pid: int) -> tuple[int, int] | None:
    return _identity(Path(f"/proc/{pid}/ns/net"))


def _kill(pid: int, home: Path) -> None:
    """End a process that lives at `home` and wait until it has (its parent collects it)."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if _network_of(pid) != _identity(home):
                return  # it ended, and the pid is somebody else's already
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            if not select.select([handle], [], [], _END_TIMEOUT)[0]:
                raise LabError(
                    f"Process {pid} in the lab's network was killed and does not end.",
                    "The kernel holds it (state D in ps); look at its disk or device.",
                )
        finally:
            os.close(handle)


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Translate the kernel's refusals."""
    try:
        yield
    except PermissionError as error:
        raise LabError(
            f"{what}: this user may not.",
            "The lab makes network namespaces (CAP_SYS_ADMIN, CAP_NET_ADMIN): run with sudo.",
        ) from error
    except FileExistsError as error:
        raise LabError(
            f"{what}: the name is taken.", "A process holds one lab at a time."
        ) from error
    except OSError as error:
        raise LabError(f"{what}: {error.strerror}.") from error
