"""The installed service's start: `python3 -I -S -B /usr/local/lib/inbounds-host [--daemon] [STATE RUN GROUP]`.

Whoever starts it is root and names its places, if any; no client can.
"""

import os
import sys

from inbounds.host.protocol import RUN_DIRECTORY, STATE_DIRECTORY
from inbounds.host.service import GROUP, Service
from inbounds.host.session import say
from inbounds.host.slots import Paths


def become_daemon(log: str) -> None:
    """Leave the starter's session and terminal; return in the process that stays."""
    for _ in range(2):  # the second one can never have a terminal again
        if os.fork():
            os._exit(0)
        if os.getsid(0) != os.getpid():
            os.setsid()
    os.makedirs(os.path.dirname(log), mode=0o700, exist_ok=True)
    null = os.open("/dev/null", os.O_RDWR)
    told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    for fd, number in ((null, 0), (null, 1), (told, 2)):
        os.dup2(fd, number)
    os.closerange(3, 65_536)
    os.chdir("/")


def main(arguments: list[str]) -> int:
    """Serve; the exit code."""
    daemon = arguments[:1] == ["--daemon"]
    words = arguments[daemon:]
    state, run, group = words if len(words) == 3 else (STATE_DIRECTORY, RUN_DIRECTORY, GROUP)  # noqa: PLR2004  # the three
    if daemon:
        become_daemon(f"{state}/log")
    try:
        Service(Paths(state, run), group=group).run()
    except OSError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
