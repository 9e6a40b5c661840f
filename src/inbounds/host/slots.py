"""A slot: number, owner, limits and phase on disk; what is made for it, in order, and undone, in the other order.

The phase is written before a step and behind it, so that a service that died anywhere knows what to undo: what no
client has seen yet is destroyed, every image that one may have written to is kept for its owner. Knows no protocol.
"""

import contextlib
import dataclasses
import errno
import fcntl
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from inbounds.host import accounts, filter, jailer, protocol  # noqa: A004  # the field's word; the builtin is not used here
from inbounds.host.groups import Group
from inbounds.host.image import Image
from inbounds.host.protocol import SLOTS, Flag, Mechanism, Phase

SLOTS_PER_USER = 40  # one user cannot take all; a user with forty runs at once has other limits before
DISK_SHARE_USER = 2  # one user's images may take half of the file system that holds them,
DISK_LEFT_PART = 10  # and all of them together leave a tenth of it
ALLOCATION = SLOTS  # the byte of the lock file that stands for choosing a number; the others for a slot each
NO_FILTER = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)  # what such a kernel answers
RECORD = struct.Struct("!II12Q")
RECORD_MAGIC = 0x494E5331
DIRECTORY_MODE = 0o755


class Refused(OSError):
    """An answer to a client, not a fault: the slot cannot be had, and why; errno goes into the reply."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the service has its things. No client can name one."""

    state: str = protocol.STATE_DIRECTORY
    run: str = protocol.RUN_DIRECTORY

    def of(self, number: int) -> str:
        """A slot's own directory: its record, and its image."""
        return f"{self.state}/slots/{number}"

    def raw(self, number: int) -> str:
        """Where root mounts a slot's volume."""
        return f"{self.run}/slots/{number}/raw/volume"

    def halted(self, number: int) -> str:
        """The file that says that no further jail begins in a slot before it is attached again."""
        return f"{self.run}/slots/{number}/halted"

    @property
    def socket(self) -> str:
        """Where clients connect."""
        return f"{self.run}/{protocol.SOCKET_NAME}"

    @property
    def pid(self) -> str:
        """The file with the service's pid, of use only while its lock is held."""
        return f"{self.state}/pid"

    @property
    def mark(self) -> str:
        """What tells this service's accounts from another's on the same host."""
        return f"inbounds slot of {self.state}"


@dataclass(frozen=True, slots=True)
class Record:
    """What is written about a slot: integers only."""

    phase: int
    owner: int
    owner_gid: int
    size: int
    inodes: int
    memory_bytes: int
    processes: int
    cpu_percent: int
    deadline_ms: int
    flags: int
    io_bytes_per_second: int

    def pack(self) -> bytes:
        """The file's content: magic, check sum, integers, one to spare."""
        numbers = struct.pack("!12Q", *dataclasses.astuple(self), 0)
        return struct.pack("!II", RECORD_MAGIC, zlib.crc32(numbers)) + numbers

    @classmethod
    def unpack(cls, data: bytes) -> "Record":
        """OSError EUCLEAN where it is none: such a slot is left alone until somebody has looked."""
        if len(data) == RECORD.size:
            magic, check, *numbers = RECORD.unpack(data)
            if (magic, check) == (RECORD_MAGIC, zlib.crc32(data[8:])):
                return cls(*numbers[:-1])
        raise OSError(errno.EUCLEAN, "a slot's record is damaged")


UNKNOWN = Record(Phase.DISCARDING, *[0] * 10)  # what stands for a damaged one, when all are removed


def load(paths: Paths, number: int) -> Record | None:
    """A slot's record; None where it is free."""
    try:
        with open(f"{paths.of(number)}/state", "rb") as file:
            return Record.unpack(file.read(RECORD.size + 1))
    except FileNotFoundError:
        return None


def records(paths: Paths) -> dict[int, Record]:
    """Every slot that is not free, by number; a damaged record is no reason to refuse the others."""
    found = {}
    for number in range(SLOTS):
        with contextlib.suppress(OSError):
            if record := load(paths, number):
                found[number] = record
    return found


def lock(paths: Paths, byte: int, *, wait: bool = False) -> int | None:
    """A descriptor that holds the byte's lock while it is open; None where somebody else has it."""
    fd = os.open(f"{paths.state}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    asked = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, asked)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return None
        raise
    return fd


def is_held(paths: Paths, number: int) -> bool:
    """Whether a process holds the slot."""
    held = lock(paths, number)
    if held is not None:
        os.close(held)
    return held is None


def owned(paths: Paths, number: int, owner: int) -> Record:
    """A slot's record, for its owner. Refused: ENOENT, EPERM."""
    record = load(paths, number)
    if record is None:
        raise Refused(errno.ENOENT, f"there is no slot {number}")
    if record.owner != owner:
        raise Refused(errno.EPERM, f"slot {number} is another user's")
    return record


def halt(paths: Paths, number: int, user: int, *, kill: bool, seconds: float) -> tuple[int, int]:
    """Stop or kill all that runs in a slot, whoever holds it, for its owner or root; no jail begins behind it.

    Whether the kernel says within `seconds` that all is stopped, and how many processes there are, behind a kill those
    that are left. Refused: ENOENT, EPERM, EAGAIN while it comes up or goes down.
    """
    record = owned(paths, number, user) if user else load(paths, number)
    if record is None:
        raise Refused(errno.ENOENT, f"there is no slot {number}")
    group = Group.find(number) if record.phase == Phase.OPEN else None
    if group is None:
        if record.phase == Phase.KEPT:
            return 0, 0
        raise Refused(errno.EAGAIN, f"slot {number} comes up or goes down")
    # first: a jail that begins now is found by the kill, or finds this
    os.close(os.open(paths.halted(number), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    if kill:
        return 0, group.kill()
    return int(group.freeze(seconds)), group.count()


def foreign(paths: Paths, number: int) -> frozenset[int]:
    """Devices that no source of this slot may be on: the other slots' volumes, and the run directory's own."""
    found = {os.stat(paths.run).st_dev}
    for other in set(range(SLOTS)) - {number}:
        with contextlib.suppress(OSError):
            found.add(os.stat(paths.raw(other)).st_dev)
    return frozenset(found)


@contextlib.contextmanager
def _choosing(paths: Paths) -> Iterator[None]:
    held = lock(paths, ALLOCATION, wait=True)
    assert held is not None
    try:
        yield
    finally:
        os.close(held)


def nothing(_step: str) -> None:
    """What happens at each step in the product; tests pass something that kills."""


class Slot:
    """A slot whose lock this process holds. All errors are OSError."""

    def __init__(
        self, paths: Paths, number: int, record: Record, held: int, step: Callable[[str], None] = nothing
    ) -> None:
        """Use `claim`, `take` or `recover`."""
        self.paths, self.number, self.record = paths, number, record
        self.uid = protocol.uid_of(number)
        self.group: Group | None = Group.find(number)
        self._held, self._step = held, step
        self.image = Image.open(
            f"{paths.of(number)}/volume",
            paths.raw(number),
            protocol.view_of(number, paths.run),
            uid=self.uid,
            gid=self.uid,
            operator_uid=record.owner,
            operator_gid=record.owner_gid,
        )

    # -- up ------------------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """From a claimed number to a slot that can run jails. Behind a fault the caller has to `discard`."""
        self._up(make=True)

    def attach(self) -> None:
        """A kept slot again: all but account and image is made anew. Behind a fault the caller has to `close`."""
        self.save(Phase.ATTACHING)
        self._up(make=False)

    def _up(self, *, make: bool) -> None:
        record = self.record
        self._unhalt()
        self.group = Group.make(
            self.number,
            memory=record.memory_bytes,
            swap=0,
            processes=record.processes,
            cpu_percent=record.cpu_percent,
            io_bytes_per_second=record.io_bytes_per_second,
        )
        self._step("group")
        with without_filter():
            filter.drop(self.number, self.uid, self.group.identity())
        self._step("filter")
        if make:
            self.image = Image.make(
                self.image.directory,
                self.image.raw,
                self.image.view,
                size=record.size,
                inodes=record.inodes,
                uid=self.uid,
                gid=self.uid,
                operator_uid=record.owner,
                operator_gid=record.owner_gid,
                encrypt=bool(record.flags & Flag.ENCRYPT),
            )
            self._step("image")
        os.makedirs(os.path.dirname(os.path.dirname(self.image.raw)), mode=DIRECTORY_MODE, exist_ok=True)
        self.image.mount()
        if record.io_bytes_per_second:
            device = os.stat(self.image.raw).st_dev
            self.group.throttle(f"{os.major(device)}:{os.minor(device)}", record.io_bytes_per_second)
        self._step("mounted")
        self.save(Phase.OPEN)
        self._step("open")

    def mechanisms(self) -> Mechanism:
        """What is in force for it, asked of the kernel now."""
        found = Mechanism.USER | Mechanism.IMAGE | Mechanism.ACL | Mechanism.WATCHDOG
        if self.record.flags & Flag.ENCRYPT:
            found |= Mechanism.ENCRYPTED
        with without_filter():
            found |= Mechanism.FILTER if filter.present(self.number) else Mechanism(0)
        if self.group is not None:
            found |= Mechanism.FREEZE if self.group.unified else Mechanism(0)
            for kind in self.group.limits():
                found |= Mechanism[kind.upper()]
        return found

    # -- down ----------------------------------------------------------------------------------------------------------

    def kill(self) -> int:
        """Kill all that the slot's user runs; how many are left (0)."""
        return self.group.kill() if self.group is not None else len(accounts.leftovers(self.uid))

    def close(self) -> None:
        """Kill, then unmount; the image stays in root's custody for the owner."""
        self.save(Phase.CLOSING)
        self._step("closing")
        self._down()
        self._step("unmounted")
        self.save(Phase.KEPT)
        self._step("kept")

    def _down(self) -> None:
        survivors = self.kill()
        self._step("killed")
        try:
            self.image.unmount(writers_may_live=bool(survivors))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # nothing of the slot's lives, but the operator has a file open: all is written out, then it is cut off
            if not survivors:
                self._write_out()
            self.image.unmount(writers_may_live=True)
        if self.group is not None and not self.group.remove():
            raise OSError(errno.EBUSY, f"{survivors} processes of slot {self.number} do not end")
        self.group = None
        with without_filter():
            filter.lift(self.number)

    def _write_out(self) -> None:
        volume = self.image.raw_fd()
        try:
            jailer.checked("syncfs", jailer.libc.syncfs(volume))
        finally:
            os.close(volume)

    def discard(self) -> None:
        """Nothing is left of it, and its number is free. EBUSY where somebody still holds something: it stays then."""
        self.save(Phase.DISCARDING)
        self._step("discarding")
        # without the account the number is somebody else's, or its turn has come in an earlier try
        mine = accounts.ours(self.number, self.paths.mark)
        if mine:
            self._down()
        self.image.destroy()
        self._step("destroyed")
        if mine and (left := accounts.leftovers(self.uid)):
            raise OSError(errno.EBUSY, f"of slot {self.number} there is left: {', '.join(left[:5])}")
        accounts.remove(self.number, self.paths.mark)
        self._step("removed")
        self._forget()
        self._step("discarded")

    def release(self) -> None:
        """Let the slot go as it is: another session of its owner may have it."""
        os.close(self._held)

    # -- on disk -------------------------------------------------------------------------------------------------------

    def save(self, phase: Phase) -> None:
        """Write the record with this phase; it is on the disk when this returns."""
        self.record = dataclasses.replace(self.record, phase=int(phase))
        write(self.paths, self.number, self.record)

    def set_deadline(self, deadline_ms: int) -> None:
        """Write another deadline down."""
        self.record = dataclasses.replace(self.record, deadline_ms=deadline_ms)
        write(self.paths, self.number, self.record)

    def _unhalt(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.paths.halted(self.number))

    def _forget(self) -> None:
        self._unhalt()
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(f"{self.paths.run}/slots/{self.number}")
        os.unlink(f"{self.paths.of(self.number)}/state")  # from here on it is free
        shutil.rmtree(self.paths.of(self.number))
        _sync(f"{self.paths.state}/slots")


@contextlib.contextmanager
def without_filter() -> Iterator[None]:
    """A kernel without nf_tables has nothing to filter with: the slot's mechanisms say so, its client decides."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_FILTER:
            raise


def write(paths: Paths, number: int, record: Record) -> None:
    """Put a record in the place of the one before it, whole or not at all."""
    directory = paths.of(number)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    new = f"{directory}/state.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(record.pack())
        file.flush()
        os.fsync(fd)
    os.rename(new, f"{directory}/state")
    _sync(directory)
    _sync(os.path.dirname(directory))


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# -- choosing one ------------------------------------------------------------------------------------------------------


def claim(paths: Paths, record: Record, step: Callable[[str], None] = nothing) -> Slot:
    """A free number for this owner, with its account. Refused: EUSERS, EDQUOT or ENOSPC where a ceiling is reached."""
    with _choosing(paths):
        _within_ceilings(paths, record, list(records(paths).values()))
        for number in range(SLOTS):
            there = os.path.lexists(f"{paths.of(number)}/state") or accounts.taken(number)
            if there or accounts.leftovers(protocol.uid_of(number)):
                continue
            held = lock(paths, number)
            if held is None:
                continue
            write(paths, number, record)
            slot = Slot(paths, number, record, held, step)
            step("claimed")
            try:
                accounts.make(number, paths.mark)
            except OSError as error:
                slot.discard()
                slot.release()
                if error.errno != errno.EEXIST:
                    raise
                continue
            step("account")
            return slot
    raise Refused(errno.EUSERS, f"all {SLOTS} slots are taken")


def _within_ceilings(paths: Paths, wanted: Record, there: list[Record]) -> None:
    theirs = [record for record in there if record.owner == wanted.owner]
    if len(theirs) >= SLOTS_PER_USER:
        raise Refused(errno.EDQUOT, f"user {wanted.owner} has {len(theirs)} slots")
    disk = os.statvfs(paths.state)
    whole = disk.f_blocks * disk.f_frsize
    if sum(record.size for record in theirs) + wanted.size > whole // DISK_SHARE_USER:
        raise Refused(errno.EDQUOT, f"user {wanted.owner} would have more than the share of the disk")
    # an image that is being made may not have taken its room yet
    coming = sum(record.size for record in there if record.phase == Phase.OPENING)
    if disk.f_bavail * disk.f_frsize - coming - wanted.size < whole // DISK_LEFT_PART:
        raise Refused(errno.ENOSPC, "the disk has no such room")


def take(paths: Paths, number: int, owner: int, step: Callable[[str], None] = nothing) -> Slot:
    """An existing slot, for its owner alone. Refused: ENOENT, EPERM, or EBUSY where another session has it."""
    owned(paths, number, owner)
    held = lock(paths, number)
    if held is None:
        raise Refused(errno.EBUSY, f"slot {number} is in use")
    try:
        # again: it may have gone meanwhile, and come back as somebody else's
        return Slot(paths, number, owned(paths, number, owner), held, step)
    except BaseException:
        os.close(held)
        raise


def recover(paths: Paths, step: Callable[[str], None] = nothing, *, all_of_them: bool = False) -> list[str]:
    """Undo what was begun by a process that is gone; what could not be undone, in words. Kept slots stay kept.

    `all_of_them`: discard the kept ones too (uninstall).
    """
    problems = []
    for number in range(SLOTS):
        held = None
        try:
            if not os.path.lexists(f"{paths.of(number)}/state") or (held := lock(paths, number)) is None:
                continue
            try:
                record = load(paths, number)
            except OSError:
                if not all_of_them:
                    raise
                record = UNKNOWN
            if record is None:
                continue
            slot = Slot(paths, number, record, held, step)
            if all_of_them or record.phase in (Phase.OPENING, Phase.DISCARDING):
                slot.discard()
            elif record.phase != Phase.KEPT:
                slot.close()
        except OSError as error:
            problems.append(f"slot {number}: {error}")
        finally:
            if held is not None:
                os.close(held)
    return problems
