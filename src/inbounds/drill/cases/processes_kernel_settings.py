"""/proc/sys: core_pattern and modprobe name programs that the kernel starts as root outside (CVE-2022-0492's kin)."""

CLASS = "processes"
REQUIREMENT = "F1"
SOURCE = """
NAMES = ("kernel/core_pattern", "kernel/modprobe", "kernel/hotplug", "kernel/randomize_va_space", "kernel/hostname",
         "kernel/domainname", "net/ipv4/ip_forward", "user/max_user_namespaces", "fs/binfmt_misc/register",
         "vm/drop_caches", "kernel/sysrq")
opened = [name for name in NAMES if outcome(lambda: os.close(os.open(f"/proc/sys/{name}", os.O_WRONLY))) == "done"]
more = [path for path in ("/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/mtrr", "/proc/timer_stats")
        if outcome(lambda: os.close(os.open(path, os.O_WRONLY))) == "done"]
say(opened=opened + more)
"""
CONTROL = (
    "libc.unshare(0x10000000 | 0x04000000 | 0x40000000)  # user, UTS and network namespaces give an ordinary user some of them\n"
    + SOURCE
)
ATTACK = SOURCE


def observe(_, after):
    opened = after["said"]["opened"]
    return ("ESCAPED", f"writable: {', '.join(opened)}") if opened else ("BLOCKED", "none can be opened for writing")
