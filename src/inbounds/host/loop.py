"""Loop devices: an image as a block device, and which devices an image still stands behind.

A device made here is released by the kernel with its last user, so that a killed service leaves none of its own.
Knows nothing of file systems or slots.
"""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

_CONFIGURE, _GET_STATUS64, _GET_FREE = 0x4C0A, 0x4C05, 0x4C82  # linux/loop.h
_AUTOCLEAR, _DIRECT_IO = 4, 16  # direct: no second cache below that of the file system on it, and no second copying
_BLOCK_BYTES = 4096  # of the file system on it: what a disk with large sectors needs for direct access
_INFO = struct.Struct("=5Q4I64s64s32s2Q")  # struct loop_info64
_NAME_BYTES_MAX = 63  # lo_file_name with its end
# Somebody else may take the free device between the kernel's answer and our use of it; not this often in a row.
_TRIES = 64


def attach(image_fd: int, name: str) -> int:
    """A descriptor of a new loop device over the image; it is released when nothing has it open or mounted."""
    with contextlib.closing(_Descriptor("/dev/loop-control", os.O_RDWR)) as control:
        for _ in range(_TRIES):
            number = fcntl.ioctl(control.fd, _GET_FREE)
            device = os.open(path_of(os.makedev(7, number)), os.O_RDWR | os.O_CLOEXEC)
            label = name.encode()[:_NAME_BYTES_MAX]
            info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR | _DIRECT_IO, label, b"", b"", 0, 0)
            try:
                fcntl.ioctl(device, _CONFIGURE, struct.pack("=II", image_fd, _BLOCK_BYTES) + info + bytes(64))
            except OSError as fault:
                os.close(device)
                if fault.errno != errno.EBUSY:
                    raise
            else:
                return device
    raise OSError(errno.EBUSY, f"no loop device was free {_TRIES} times in a row")


def path_of(device: int) -> str:
    """The device node of a loop device's number."""
    return f"/dev/loop{os.minor(device)}"


@contextlib.contextmanager
def behind(*images: os.stat_result) -> Iterator[list[int]]:
    """Descriptors of the loop devices that these files stand behind; while they are open, no device changes files."""
    wanted = {(one.st_dev, one.st_ino) for one in images}
    with contextlib.ExitStack() as opened:
        found = []
        for name in _bound():
            try:
                device = opened.enter_context(contextlib.closing(_Descriptor(f"/dev/{name}", os.O_RDONLY))).fd
                told = fcntl.ioctl(device, _GET_STATUS64, bytes(_INFO.size))
            except OSError as fault:
                if fault.errno not in (errno.ENXIO, errno.ENOENT):  # released meanwhile
                    raise
                continue
            if _INFO.unpack(told)[:2] in wanted:
                found.append(device)
        yield found


def _bound() -> list[str]:
    """The names of loop devices with a file behind them: only these are opened, since opening delays a release."""
    names = [name for name in os.listdir("/sys/block") if name.startswith("loop")]
    return sorted(name for name in names if os.path.exists(f"/sys/block/{name}/loop/backing_file"))


class _Descriptor:
    def __init__(self, path: str, flags: int) -> None:
        self.fd = os.open(path, flags | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.fd)
