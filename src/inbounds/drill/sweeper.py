"""Deletes a drill's scratch directory, and slots, once the drill is gone: `python -m inbounds.drill.sweeper DIR`.

However it went. Its stdin is a pipe from the drill; an ordinary drill has deleted everything before it closes that.
"""

import os
import sys
import time
from pathlib import Path

from inbounds.contracts.errors import HostError
from inbounds.drill.holdings import BOOK, release
from inbounds.drill.mode import give_back
from inbounds.store.descent import delete_tree

ATTEMPTS, PAUSE_S = 20, 0.25  # keepers and the warden need a moment to end what still writes there


def main() -> None:
    """Wait for the end, then delete until nothing is left."""
    directory = sys.argv[1]
    sys.stdin.read()
    for book in Path(directory).glob(f"*/{BOOK}"):
        release(book)
    for _ in range(ATTEMPTS):
        if not os.path.lexists(directory):
            return
        try:
            give_back(Path(directory))
            delete_tree(directory)
        except (OSError, ValueError, HostError) as error:
            sys.stderr.write(f"inbounds: {directory}: {error}\n")
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
