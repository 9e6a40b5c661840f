"""Who is at the keyboard, for the journal's records: the account's name, or its number where it has none."""

import getpass
import os


def who() -> str:
    """A name; containers run uids that no file knows, for which getpass raises (KeyError, from 3.13 on OSError)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
