"""The walls around what a learner wrote: namespaces, another user and limits, as far as the system offers them.

On Linux a learner's code runs in a process tree of its own that ends as a whole, without a network, and sees of all
files only Python's and kdlib's, read-only, and an empty folder. Elsewhere there are limits and an end.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil

import kdlib

PROCESSES = 64  # threads count
FOLDER_MEGABYTES = 64
FILE_MEGABYTES = 16
_OPEN_FILES = 128
_HOME = "/learner"
# Of prctl.
_SET_PARENT_DEATH_SIGNAL, _DROP_FROM_BOUNDING_SET, _SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVILEGES = (
    1,
    24,
    36,
    38,
)
_NEW_MOUNTS, _NEW_HOST, _NEW_IPC, _NEW_USERS, _NEW_PIDS, _NEW_NETWORK = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
_READ_ONLY, _NO_SUID, _NO_DEVICES, _REMOUNT, _BIND, _MOVE, _ALL_BELOW, _PRIVATE = (
    1, 2, 4, 32, 4096, 8192, 16384, 1 << 18,
)  # fmt: skip
# Flags of a file system that somebody without rights there has to keep: as statvfs reports and as mount takes them.
_KEPT = ((2, 2), (4, 4), (8, 8), (1024, 1024), (2048, 2048), (4096, 1 << 21))


@dataclass(frozen=True)
class Walls:
    """Which protections this system offers: found out by trying them."""

    namespaces: bool
    other_user: bool

    def sentences(self, memory: int) -> list[str]:
        """What is in force, and what is not, for whoever starts the grading."""
        yes = [f"limits of time, of memory ({memory} MB) and of the size of files"]
        no = []
        unlimited = _is_root() and not (self.namespaces or self.other_user)  # the kernel sets root none
        (no if unlimited else yes).append("a limit of processes")
        fences = [
            "a process tree of its own, which ends as a whole",
            "no network",
            "no files but those of Python and kdlib, which are read-only, and an empty folder",
        ]
        (yes if self.namespaces else no).extend(fences)
        if self.other_user or self.namespaces:
            yes.append("no rights beyond those of an unknown user")
        else:
            no.append(
                "another user: learners' code has your rights" + (", those of root" if _is_root() else "")
            )
        return [f"in force: {words}" for words in yes] + [f"NOT in force: {words}" for words in no]


def find() -> Walls:
    """Try which walls can be built here."""
    for walls in (Walls(True, _is_root()), Walls(False, _is_root()), Walls(False, False)):
        if not (walls.namespaces or walls.other_user) or _holds(walls):
            return walls


def _is_root() -> bool:
    return os.geteuid() == 0


def _holds(walls: Walls) -> bool:
    """Whether somebody inside gets up, finds kdlib's files, and, where there are namespaces, not those of others."""
    if walls.namespaces and not sys.platform.startswith("linux"):
        return False

    def look() -> None:
        files = [Path(kdlib.__file__), Path(os.__file__)]
        os._exit(0 if all(os.access(path, os.R_OK) for path in files) else 1)

    with tempfile.TemporaryDirectory(prefix="kdlib-grade-") as folder:
        pid = os.fork()
        if pid == 0:
            enter(walls, look, Path(folder), seconds=10, memory=1000, keep=())
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def adopt_orphans() -> None:
    """From now on what descends from this process and has lost its parent becomes its child."""
    if sys.platform.startswith("linux"):
        _call("prctl", _SET_CHILD_SUBREAPER, 1, 0, 0, 0)


# ------------------------------------------------------------------ inside


def enter(
    walls: Walls, work: Callable[[], None], folder: Path, *, seconds: float | int, memory: int, keep: tuple[int, ...],
) -> NoReturn:  # fmt: skip
    """In a process that was just forked: do the work behind the walls, and end.

    Args:
        walls: those that `find` has found.
        work: what is done.
        folder: an empty one, in which the work may write where there are no namespaces.
        seconds: of computing, after which the kernel ends a process that nobody else has ended.
        memory: in MB, beyond what the process has when it begins.
        keep: file descriptors that stay open; all others are closed.
    """
    try:
        os.umask(0o022)
        os.setpgid(0, 0)
        _close_all_but(keep)
        _die_with_parent()
        for kind in (signal.SIGINT, signal.SIGTERM):
            signal.signal(kind, signal.SIG_DFL)
        user = 1_900_000_000 + os.getpid()  # nobody's: no two at a time have the same one
        if walls.namespaces:
            _enter_namespaces(folder)
        else:
            if walls.other_user:
                os.chown(folder, user, user)
            os.chdir(folder)
        _limit(seconds, memory, counts_all=not (walls.namespaces or walls.other_user))
        _lose_rights(user if walls.other_user else None)
        _die_with_parent()  # which a change of user has undone
        _clean_environment(os.getcwd())
        os.dup2(1, 2)  # from here on nothing that is printed goes anywhere
        work()
    except BaseException as error:  # noqa: BLE001 - it must not come back into the loop of the parent
        with contextlib.suppress(Exception):
            os.write(2, f"kdlib grade: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def _close_all_but(keep: tuple[int, ...]) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    last = 2
    for number in sorted(keep):
        os.closerange(last + 1, number)
        last = number
    os.closerange(last + 1, min(max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 4096), 1 << 20))


def _enter_namespaces(folder: Path) -> None:
    """Come out as the child of the first process of new namespaces; whoever came in waits, and ends as it ends."""
    flags = _NEW_MOUNTS | _NEW_HOST | _NEW_IPC | _NEW_PIDS | _NEW_NETWORK
    before = os.getuid(), os.getgid()
    if not _is_root():
        flags |= _NEW_USERS
    _call("unshare", flags)
    if flags & _NEW_USERS:
        Path("/proc/self/setgroups").write_text("deny")
        for file, number in zip(("uid_map", "gid_map"), before, strict=True):
            Path(f"/proc/self/{file}").write_text(f"65534 {number} 1")
    _wait_in_parent()
    _die_with_parent()
    _build_root(folder)
    os.setsid()


def _wait_in_parent() -> None:
    """Go on in a child, the first process of its namespace, with which all others there end."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)


def _build_root(root: Path) -> None:
    """A tree in memory that holds what may be seen, and then is all there is."""
    _mount("none", "/", None, _ALL_BELOW | _PRIVATE)
    _mount(
        "tmpfs", root, "tmpfs", _NO_SUID | _NO_DEVICES, f"size={FOLDER_MEGABYTES}m,mode=755,nr_inodes=4096"
    )
    for path in _readable():
        _show(path, root)
    for device in ("null", "zero", "random", "urandom"):
        place = root / "dev" / device
        place.parent.mkdir(exist_ok=True)
        place.touch()
        _mount(f"/dev/{device}", place, None, _BIND)
    for name in ("dev/shm", "tmp", _HOME[1:]):
        (root / name).mkdir(exist_ok=True)  # Python or kdlib may lie below
        (root / name).chmod(0o777)
    (root / "proc").mkdir()
    with contextlib.suppress(OSError):  # some containers forbid it: then there is none
        _mount("proc", root / "proc", "proc", _NO_SUID | _NO_DEVICES)
    os.chdir(root)
    _mount(root, "/", None, _MOVE)
    os.chroot(".")
    os.chdir(_HOME)


def _readable() -> list[Path]:
    """What Python and kdlib need: the interpreter, its packages, the system's libraries."""
    wanted = ["/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache", "/etc/localtime"]
    wanted += [sys.base_prefix, sys.prefix, Path(kdlib.__file__).parent]
    wanted += [entry for entry in sys.path if "-packages" in entry]
    paths = sorted({Path(entry).absolute() for entry in map(str, wanted) if os.path.lexists(entry)})
    return [path for path in paths if not any(other in path.parents for other in paths)]


def _show(path: Path, root: Path) -> None:
    place = root / path.relative_to("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        place.symlink_to(os.readlink(path))
        return
    place.mkdir() if path.is_dir() else place.touch()
    _mount(path, place, None, _BIND | _ALL_BELOW)
    given = os.statvfs(place).f_flag
    kept = sum(flag for seen, flag in _KEPT if given & seen)
    _mount("none", place, None, _BIND | _REMOUNT | _READ_ONLY | _NO_SUID | _NO_DEVICES | kept)


def _limit(seconds: float | int, memory: int, *, counts_all: bool) -> None:
    """Limits of the kernel. Address space is counted beyond what is there, of which a library only reserves a part."""
    processes = PROCESSES + (_processes_of_this_user() if counts_all else 0)
    limits = {"CORE": 0, "NPROC": processes, "NOFILE": _OPEN_FILES, "FSIZE": FILE_MEGABYTES << 20}
    limits["CPU"] = int(2 * seconds + 5)
    if sys.platform.startswith("linux"):
        pages = (
            int(Path("/proc/self/statm").read_text().split()[0])
            if os.path.exists("/proc/self/statm")
            else 1 << 20
        )
        limits["AS"] = pages * resource.getpagesize() + (memory << 20)
    for name, limit in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        highest = resource.getrlimit(kind)[1]
        limit = limit if highest == resource.RLIM_INFINITY else min(limit, highest)
        resource.setrlimit(kind, (limit, limit))
    os.nice(5)  # whoever watches comes first
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(
            "1000"
        )  # and, where memory runs out, is not the one who ends


def _processes_of_this_user() -> int:
    mine = [one.info for one in psutil.process_iter(["uids", "num_threads"]) if one.info["uids"]]
    return sum(one["num_threads"] or 1 for one in mine if one["uids"].real == os.getuid())


def _lose_rights(user: int | None) -> None:
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    if sys.platform.startswith("linux"):
        _call("prctl", _SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        for capability in range(64):
            _C.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)  # fails where there is none to drop
        header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        _call("capset", header, nothing)


def _clean_environment(home: str) -> None:
    os.environ.update(HOME=home, TMPDIR=home, USER="learner", LOGNAME="learner")
    tempfile.tempdir = None


def _die_with_parent() -> None:
    if sys.platform.startswith("linux"):
        _call("prctl", _SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _mount(
    source: str | Path, target: str | Path, kind: str | None, flags: int, data: str | None = None
) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _call("mount", *texts, ctypes.c_ulong(flags), None if data is None else data.encode())


def _call(name: str, *arguments) -> None:
    if getattr(_C, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


_C = ctypes.CDLL(None, use_errno=True)
