"""Telling a person that a run stopped or needs a decision: message, settings, outcome (O3, Q2).

A notice is a pointer, never evidence and never a reason to fail: every outcome is a value for the journal.
"""

from dataclasses import dataclass, field

# What a phone's lock screen shows; also keeps whatever an agent may have put into a reason short.
TEXT_CHARS_MAX = 300


@dataclass(frozen=True, slots=True)
class Message:
    """What is told; `report` is a path or address, `needs` is the decision that is waited for, or ""."""

    run_id: str
    code: str
    why: str
    report: str
    needs: str = ""

    def as_json(self) -> dict[str, str]:
        """The webhook's body: these five, and nothing else ever."""
        return {
            "run_id": plain(self.run_id),
            "code": plain(self.code),
            "why": plain(self.why),
            "report": plain(self.report),
            "needs": plain(self.needs),
        }


@dataclass(frozen=True, slots=True)
class Settings:
    """From the policy: desktop or not, a webhook's address or none, private networks that it may reach."""

    desktop: bool = True
    webhook: str = ""
    private_allowed: tuple[str, ...] = ()  # CIDR, for a chat server in one's own network
    timeout_s: int = 10  # a stop must not wait for a slow chat server
    env: dict[str, str] | None = field(default=None)  # for tests; None: this process's own


@dataclass(frozen=True, slots=True)
class Notice:
    """What came of one channel; goes into the journal as `notice.sent`."""

    channel: str
    ok: bool
    detail: str


def plain(text: str) -> str:
    """One line of printable text, cut: nothing that steers a terminal, a shell or a notification's markup."""
    shown = "".join(char if char.isprintable() else "?" for char in text[: TEXT_CHARS_MAX + 1])
    return shown if len(shown) <= TEXT_CHARS_MAX else shown[: TEXT_CHARS_MAX - 1] + "…"
