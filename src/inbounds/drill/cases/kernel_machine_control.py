"""The machine's switches: reboot (with a wrong magic number), swap, accounting, quotas, terminals; reached or refused."""

CLASS = "kernel"
REQUIREMENT = "F1"
CONTROL = """
REBOOT, SWAPON, ACCT, QUOTACTL = {"x86_64": (169, 167, 163, 179), "aarch64": (142, 224, 89, 60)}[os.uname().machine]
Q_SYNC = 0x800001 << 8
say(answers={"reboot": call(REBOOT, 0, 0, 0, 0), "swapon": call(SWAPON, b"/nonexistent", 0),
             "acct": call(ACCT, b"/nonexistent"), "quotactl": call(QUOTACTL, Q_SYNC, 0, 0, 0),
             "quotactl_fd": call(443, -1, 0x800007 << 8, 0, 0)})
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    reached = [name for name, answer in answers.items() if answer not in ("EPERM", "ENOSYS")]
    return ("ESCAPED", f"reached: {reached}") if reached else ("BLOCKED", f"they say: {answers}")
