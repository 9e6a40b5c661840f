"""A notice on the desktop: notify-send, D-Bus through gdbus, or macOS; an honest "absent" where there is none.

Starts one short-lived program with an argument list; never a shell.
"""

import os
import shutil
import subprocess
import sys
from html import escape

from inbounds.notify.notice import Message, Notice, Settings, plain

CHANNEL = "desktop"
SHOWN_MS = 20_000


def send(settings: Settings, message: Message) -> Notice:
    """Show the message; never raises for a desktop that is not there."""
    env = dict(os.environ if settings.env is None else settings.env)
    argv = _command(message, env)
    if not argv:
        return Notice(CHANNEL, False, "absent: no notifier")
    try:
        done = subprocess.run(argv, capture_output=True, timeout=settings.timeout_s, check=False, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Notice(CHANNEL, False, f"failed: {type(error).__name__}")
    name = os.path.basename(argv[0])
    if done.returncode != 0:
        said = plain(done.stderr.decode("utf-8", "replace").strip())
        return Notice(CHANNEL, False, f"failed: {name}: {said or done.returncode}")
    return Notice(CHANNEL, True, name)


def _command(message: Message, env: dict[str, str]) -> list[str]:
    path = env.get("PATH", os.defpath)
    title = plain(f"inbounds: {message.code}")
    # Notification servers read a little HTML in the body: what a run says must not become a link.
    body = escape(plain(f"{message.why} — {message.needs or message.report}"))
    if sys.platform == "darwin":
        program = shutil.which("osascript", path=path)
        script = "on run argv\ndisplay notification (item 2 of argv) with title (item 1 of argv)\nend run"
        return [program, "-e", script, title, body] if program else []
    # Without a session bus both would fail or, worse, start a bus of their own.
    if not env.get("DBUS_SESSION_BUS_ADDRESS") and not os.path.exists(f"/run/user/{os.getuid()}/bus"):
        return []
    urgency = "normal" if message.code == "DONE" else "critical"
    if program := shutil.which("notify-send", path=path):
        return [program, "-a", "inbounds", "-u", urgency, "-t", str(SHOWN_MS), "--", title, body]
    if program := shutil.which("gdbus", path=path):
        where = ("--session", "--dest", "org.freedesktop.Notifications")
        what = ("--object-path", "/org/freedesktop/Notifications", "--method", "org.freedesktop.Notifications.Notify")
        arguments = ("inbounds", "uint32 0", "", _variant(title), _variant(body), "[]", "{}", f"int32 {SHOWN_MS}")
        return [program, "call", *where, *what, "--", *arguments]
    return []


def _variant(text: str) -> str:
    """A GVariant string literal: gdbus parses its arguments."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
