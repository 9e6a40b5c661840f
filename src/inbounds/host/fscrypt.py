"""Encryption at rest with a key per run that no program can read: ext4's own, by a key in the kernel's keyring.

The key is drawn here, handed to the kernel and wiped; it is on no disk, and gone with a reboot or `forget`. What is
encrypted: contents, names and links' targets. What is not: sizes, times, modes, how many files. Source: F8.
"""

import ctypes
import errno
import fcntl
import os
import platform
import struct

_libc = ctypes.CDLL(None, use_errno=True)
# add_key(2) and keyctl(2): those numbers that differ by architecture.
_NUMBERS = {"x86_64": (248, 250), "aarch64": (217, 219), "riscv64": (217, 219)}
_USER_KEYRING = -4  # of root: it outlives the service, so that a restarted one finds its volumes' keys
_SET_PERMISSIONS, _SEARCH, _INVALIDATE = 5, 10, 21
_KIND = b"fscrypt-provisioning"  # a type that user space can never read back
# All for a possessor; for root without possession (a service's own session keyring) view and search, which is use.
_PERMISSIONS = 0x3F090000

_BY_IDENTIFIER = 2
_KEY_BYTES = 64
_ADD_KEY = 0xC0506617  # _IOWR('f', 23, struct fscrypt_add_key_arg of 80 bytes)
_SET_POLICY = 0x800C6613  # _IOR('f', 19, 12 bytes); version 2 is passed through the same number
_AES_256_XTS, _AES_256_CTS, _PAD_32 = 1, 4, 3


def draw(name: str) -> None:
    """A new random key of this name in the kernel; an older one is forgotten. OSError: the kernel has no fscrypt."""
    forget(name)
    payload = bytearray(8 + _KEY_BYTES)
    struct.pack_into("=II", payload, 0, _BY_IDENTIFIER, 0)
    room = (ctypes.c_char * len(payload)).from_buffer(payload)
    try:
        with open("/dev/urandom", "rb", buffering=0) as random:
            random.readinto(memoryview(payload)[8:])
        number = _call(0, _KIND, name.encode(), room, ctypes.c_size_t(len(payload)), _USER_KEYRING)
    finally:
        ctypes.memset(room, 0, len(payload))
    _call(1, _SET_PERMISSIONS, number, _PERMISSIONS)


def held(name: str) -> int | None:
    """The number of the key of this name, or None: never drawn, forgotten, or the machine was started anew."""
    try:
        return _call(1, _SEARCH, _USER_KEYRING, _KIND, name.encode(), 0)
    except OSError as fault:
        # ENOKEY also where the kernel knows no such type of key: there is none then, which is all that is asked.
        if fault.errno in (errno.ENOKEY, errno.EKEYREVOKED, errno.EKEYEXPIRED):
            return None
        raise


def forget(name: str) -> None:
    """The key is gone from the keyring; a mounted file system loses its copy with its unmounting."""
    while (number := held(name)) is not None:
        _call(1, _INVALIDATE, number)


def unlock(mount_fd: int, name: str) -> bytes:
    """Give a mounted file system the key; its identifier there. OSError ENOKEY where the key is gone."""
    if (number := held(name)) is None:
        raise OSError(errno.ENOKEY, "the volume's key is gone, and with it what the volume held")
    asked = struct.pack("=II32sII32x", _BY_IDENTIFIER, 0, b"", 0, number)
    told = fcntl.ioctl(mount_fd, _ADD_KEY, asked)
    return told[8:24]


def encrypt(directory_fd: int, identifier: bytes) -> None:
    """Everything that is ever made below this empty directory is encrypted with that key. Doing it twice is as once."""
    fcntl.ioctl(directory_fd, _SET_POLICY, struct.pack("=4B4x16s", 2, _AES_256_XTS, _AES_256_CTS, _PAD_32, identifier))


def _call(which: int, *arguments: object) -> int:
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None:
        raise OSError(errno.ENOSYS, f"the numbers of keyctl on {platform.machine()} are not known here")
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = _libc.syscall(ctypes.c_long(numbers[which]), *passed)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"keyring: {os.strerror(ctypes.get_errno())}")
    return int(result)
