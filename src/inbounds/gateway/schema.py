"""The ledger's file: its tables by version, how it is opened, and how a transaction on it is made.

Old files are brought up to date when a gateway opens them; reading leaves them as they are. Knows nothing of budgets.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from inbounds.contracts.errors import HostError

VERSION = 2
APPLICATION_ID = 0x1B0B0D5  # marks the file as this program's ledger
BUSY_MS = 10_000  # another gateway's transaction takes under a millisecond; ten seconds is a sick disk

SCHEMA = """
CREATE TABLE run (
    run_id TEXT PRIMARY KEY, thread TEXT NOT NULL, requirements TEXT NOT NULL, organisation TEXT NOT NULL,
    zone TEXT NOT NULL, opened_at_ms INTEGER NOT NULL, closed_at_ms INTEGER, closed_why TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE scope (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('run', 'requirement', 'thread', 'organisation')),
    name TEXT NOT NULL, month TEXT NOT NULL, cap_micro_usd INTEGER, cap_tokens INTEGER,
    settled_micro_usd INTEGER NOT NULL DEFAULT 0 CHECK (settled_micro_usd >= 0),
    reserved_micro_usd INTEGER NOT NULL DEFAULT 0 CHECK (reserved_micro_usd >= 0),
    unknown_micro_usd INTEGER NOT NULL DEFAULT 0 CHECK (unknown_micro_usd >= 0),
    settled_tokens INTEGER NOT NULL DEFAULT 0 CHECK (settled_tokens >= 0),
    reserved_tokens INTEGER NOT NULL DEFAULT 0 CHECK (reserved_tokens >= 0),
    unknown_tokens INTEGER NOT NULL DEFAULT 0 CHECK (unknown_tokens >= 0),
    requests INTEGER NOT NULL DEFAULT 0, tool_calls INTEGER NOT NULL DEFAULT 0,
    UNIQUE (kind, name, month)
) STRICT;
CREATE TABLE reservation (
    id INTEGER PRIMARY KEY, run_id TEXT NOT NULL REFERENCES run, role TEXT NOT NULL, format TEXT NOT NULL,
    model TEXT NOT NULL, upstream TEXT NOT NULL, month TEXT NOT NULL, at_ms INTEGER NOT NULL,
    bound_micro_usd INTEGER NOT NULL CHECK (bound_micro_usd >= 0), bound_tokens INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'unknown', 'settled', 'released')),
    cost_micro_usd INTEGER, input_tokens INTEGER, output_tokens INTEGER, cache_read_tokens INTEGER,
    cache_write_5m_tokens INTEGER, cache_write_1h_tokens INTEGER, tool_calls INTEGER, ended_at_ms INTEGER, why TEXT
) STRICT;
CREATE INDEX reservation_open ON reservation (run_id) WHERE state IN ('reserved', 'unknown');
"""

# Turns outlive a gateway; amendments and anchors are evidence: they are added, and never changed or taken away. Anchors
# repeat where an effect is carried out again, and an INSERT OR REPLACE would delete: both are passed over in silence.
SCHEMA_2 = """
ALTER TABLE run ADD COLUMN iteration INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN turns INTEGER NOT NULL DEFAULT 0;
CREATE TABLE amendment (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL REFERENCES run, at_ms INTEGER NOT NULL,
    run_micro_usd INTEGER, request_micro_usd INTEGER, request_tokens INTEGER, run_tokens INTEGER,
    tool_calls INTEGER, turns INTEGER
) STRICT;
CREATE INDEX amendment_of_run ON amendment (run_id);
CREATE TRIGGER amendment_update BEFORE UPDATE ON amendment
    BEGIN SELECT RAISE(ABORT, 'amendments are only ever added'); END;
CREATE TRIGGER amendment_delete BEFORE DELETE ON amendment
    BEGIN SELECT RAISE(ABORT, 'amendments are only ever added'); END;
CREATE TABLE anchors (
    run_id TEXT NOT NULL REFERENCES run, seq INTEGER NOT NULL CHECK (seq >= 0), hash TEXT NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0), root TEXT NOT NULL, note TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (run_id, seq, hash, note)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER anchors_insert BEFORE INSERT ON anchors WHEN EXISTS (SELECT 1 FROM anchors
    WHERE run_id = NEW.run_id AND seq = NEW.seq AND hash = NEW.hash AND note = NEW.note)
    BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER anchors_update BEFORE UPDATE ON anchors BEGIN SELECT RAISE(ABORT, 'anchors are only ever added'); END;
CREATE TRIGGER anchors_delete BEFORE DELETE ON anchors BEGIN SELECT RAISE(ABORT, 'anchors are only ever added'); END;
"""
MIGRATIONS: Mapping[int, str] = {0: SCHEMA, 1: SCHEMA_2}  # from version n to n + 1


def open_ledger(path: str, *, readonly: bool = False) -> sqlite3.Connection:
    """Open or create the ledger; HostError where it is newer than this program, foreign or unreadable.

    The connection may be used from another thread, by one at a time. Creating files 0600 is left to the umask.
    """
    try:
        uri = f"file:{path.replace('?', '%3f').replace('#', '%23')}?mode={'ro' if readonly else 'rwc'}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        mark = int(connection.execute("PRAGMA application_id").fetchone()[0])
        if version > VERSION:
            connection.close()
            raise HostError(
                f"ledger version {version}", expected=f"{VERSION} or older", fix="pip install -U inbounds", where=path
            )
        if mark not in {0, APPLICATION_ID} or (mark == 0 and version):
            connection.close()
            raise HostError("a database that is no ledger", expected="a ledger of this program", where=path)
        if not readonly:
            _prepare(connection)
    except sqlite3.Error as error:
        raise HostError(f"the ledger can't be used: {error}", where=path, fix=f"ls -l {path}; df {path}") from None
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Write-ahead log, no temporary files (the seal allows none), and the current schema."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    with transaction(connection):
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        for step in range(version, VERSION):
            for statement in MIGRATIONS[step].split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, write lock taken at once so that two gateways never decide on the same figures."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
