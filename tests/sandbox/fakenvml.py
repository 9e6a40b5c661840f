"""A stand-in for NVML, compiled from a page of C: it says what a file says at that moment, errors and crashes included.

It has two GPUs whose order is not that of their numbers: /dev/nvidia0 is its second, the first is full and busy.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from inbounds.sandbox.gpu import Device, Grant

NOT_SUPPORTED = 3
OTHER_MINOR = 7

SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
typedef unsigned long long u64;
typedef struct { unsigned pid; u64 used; unsigned gi, ci; } process;
typedef struct { unsigned pid; u64 at; unsigned sm, memory, encoder, decoder; } sample;
static int init, memory, rate, listed, shared, n;
static long used;
static struct { char kind; unsigned pid; long used; int share; } all[64];
static void read_figures(void) {
    char mode = 'n';
    FILE *file = fopen(FIGURES, "r");
    if (!file) _exit(9);
    if (fscanf(file, " %c %d %d %ld %d %d %d", &mode, &init, &memory, &used, &rate, &listed, &shared) != 7) _exit(8);
    for (n = 0; n < 64; n++)
        if (fscanf(file, " %c %u %ld %d", &all[n].kind, &all[n].pid, &all[n].used, &all[n].share) != 4) break;
    fclose(file);
    if (mode == 'c') abort();
    if (mode == 'h') sleep(600);
    if (mode == 'w') { FILE *evil = fopen(FIGURES ".written", "w"); if (evil) { fputs("x", evil); fclose(evil); } }
}
int nvmlInit_v2(void) { read_figures(); return init; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetMinorNumber(void *handle, unsigned *minor) { *minor = handle == (void *)1 ? 7 : 0; return 0; }
int nvmlDeviceGetMemoryInfo(void *handle, u64 *figures) {
    read_figures();
    figures[2] = (u64)(handle == (void *)1 ? 900000 : used) << 20;
    return memory;
}
int nvmlDeviceGetUtilizationRates(void *handle, unsigned *rates) {
    read_figures();
    if (rate < 0) return 3;
    rates[0] = handle == (void *)1 ? 100 : rate;
    return 0;
}
static int list(char kind, unsigned *count, process *room) {
    read_figures();
    unsigned found = 0;
    for (int i = 0; i < n && found < *count; i++)
        if (all[i].kind == kind && all[i].used != -2) {
            room[found].pid = all[i].pid;
            room[found++].used = all[i].used < 0 ? ~0ULL : (u64)all[i].used << 20;
        }
    *count = found;
    return listed;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *h, unsigned *c, process *r) { return list('c', c, r); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *h, unsigned *c, process *r) { return list('g', c, r); }
int nvmlDeviceGetProcessUtilization(void *handle, sample *room, unsigned *count, u64 since) {
    read_figures();
    if (shared) return shared;
    unsigned found = 0;
    for (int i = 0; i < n; i++) {  /* an older sample of each, too: the newest counts */
        room[found++] = (sample){all[i].pid, since + 1, 100, 0, 0, 0};
        room[found++] = (sample){all[i].pid, since + 2, all[i].share, 0, 0, 0};
    }
    *count = found;
    return found ? 0 : 6;
}
"""


@dataclass(frozen=True, slots=True)
class FakeNvml:
    """The library's path, and the file that it reads its figures from."""

    library: Path
    figures: Path

    def says(
        self, mode: str = "n", *, init: int = 0, memory: int = 0, used: int = 100, rate: int = 0, listed: int = 0,
        shares: int = 0, processes: tuple[tuple[str, int, int, int], ...] = (),
    ) -> None:  # fmt: skip
        """From now on. used: MiB; rate: per cent, -1 not supported; listed, shares: return codes.

        processes: ("c" or "g", pid, MiB or -1 not available or -2 not listed, per cent).
        """
        lines = [f"{mode} {init} {memory} {used} {rate} {listed} {shares}", *(" ".join(map(str, p)) for p in processes)]
        new = self.figures.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.chmod(0o644)
        new.rename(self.figures)

    def grant(self, numbers: tuple[int, ...]) -> Grant:
        """As a host's: /dev/zero plays the GPU, /dev/null the driver's control node."""
        devices = (*(Device("/dev/zero", f"/dev/nvidia{number}", 1, 5) for number in numbers),
                   Device("/dev/null", "/dev/nvidiactl", 1, 3))  # fmt: skip
        return Grant(devices, numbers, str(self.library))


@contextmanager
def built() -> Iterator[FakeNvml]:
    """Compiled where a process without rights can read it, and removed again."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler, and a stand-in for NVML is a shared library")
    place = Path(tempfile.mkdtemp(prefix="inbounds-nvml-"))
    try:
        place.chmod(0o755)
        fake = FakeNvml(place / "libfake-ml.so", place / "figures")
        source = place / "fake.c"
        source.write_text(SOURCE)
        arguments = ["-shared", "-fPIC", "-O1", f'-DFIGURES="{fake.figures}"', "-o", str(fake.library), str(source)]
        subprocess.run([compiler, *arguments], check=True, timeout=120)
        os.chmod(fake.library, 0o755)
        fake.says()
        yield fake
    finally:
        shutil.rmtree(place)
