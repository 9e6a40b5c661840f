"""What was spent, reserved and is in doubt, per run, requirement, thread and month: one SQLite file, many gateways.

A reservation is reserved, unknown, settled or released; all but released count as spent (G9). Totals stand in the
scope rows and change in the same transaction, so that a request's cost does not grow with the history. Knows nothing
of HTTP or prices.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from inbounds.contracts.errors import HostError
from inbounds.gateway.usage import Usage

VERSION = 1
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
MIGRATIONS: Mapping[int, str] = {0: SCHEMA}  # from version n to n + 1


@dataclass(frozen=True, slots=True)
class ScopeCap:
    """One ceiling that every request of a run counts toward; None is "not capped"."""

    kind: str
    name: str
    monthly: bool
    micro_usd: int | None
    tokens: int | None


@dataclass(frozen=True, slots=True)
class RunAccount:
    """A run as the ledger knows it: whose money it spends, and under which ceilings."""

    run_id: str
    thread: str
    requirements: tuple[str, ...]
    organisation: str
    zone: str
    scopes: tuple[ScopeCap, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request's worst case. Output is granted between `output_min` and `output_wanted` tokens, as money allows.

    `input_pico` and `output_pico` are pico-dollars per token at their dearest; `micro_usd_max` and `tokens_max` are
    the per-request caps. A `patient` one would rather wait than be clamped by what others hold.
    """

    role: str
    format: str
    model: str
    upstream: str
    input_tokens: int
    input_pico: int
    output_pico: int
    output_min: int
    output_wanted: int
    micro_usd_max: int | None = None
    tokens_max: int | None = None
    patient: bool = True

    def bound(self, output_tokens: int) -> int:
        """Micro-dollars that this request costs at most with so much output, rounded up."""
        return -(-(self.input_tokens * self.input_pico + output_tokens * self.output_pico) // 1_000_000)

    def affordable(self, micro_usd: int | None, tokens: int | None) -> int:
        """The most output tokens that fit into what is left; below zero where the input alone does not."""
        most = self.output_wanted
        if micro_usd is not None:
            left = micro_usd * 1_000_000 - self.input_tokens * self.input_pico
            if left < 0:
                return -1
            most = min(most, left // self.output_pico) if self.output_pico else most
        if tokens is not None:
            most = min(most, tokens - self.input_tokens)
        return most


@dataclass(frozen=True, slots=True)
class Grant:
    """A reservation, durable by the time it is seen."""

    reservation: int
    output_tokens: int
    bound_micro_usd: int
    bound_tokens: int
    month: str


@dataclass(frozen=True, slots=True)
class Shortage:
    """Nothing was reserved. `cap` is the ceiling in the way; `busy` says that it would fit once others settle."""

    cap: str
    busy: bool
    left_micro_usd: int | None


@dataclass(frozen=True, slots=True)
class Totals:
    """One scope's row: ceilings, and what counts toward them."""

    kind: str
    name: str
    month: str
    cap_micro_usd: int | None
    cap_tokens: int | None
    settled_micro_usd: int
    reserved_micro_usd: int
    unknown_micro_usd: int
    settled_tokens: int
    reserved_tokens: int
    unknown_tokens: int
    requests: int
    tool_calls: int

    @property
    def spent_micro_usd(self) -> int:
        """All that counts as spent: a reservation is spent until a figure says otherwise."""
        return self.settled_micro_usd + self.reserved_micro_usd + self.unknown_micro_usd

    @property
    def spent_tokens(self) -> int:
        """The same in tokens."""
        return self.settled_tokens + self.reserved_tokens + self.unknown_tokens


_TOTALS = ", ".join(Totals.__slots__)
_OPEN_STATES = frozenset({"reserved", "unknown"})


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


class Account:
    """One run's view of the ledger. Methods run inside the caller's `transaction` and raise sqlite3.Error only."""

    def __init__(self, connection: sqlite3.Connection, run: RunAccount) -> None:
        """Bind a connection to a run; nothing is written before `open`."""
        self._db = connection
        self._run = run

    def open(self, now_ms: int) -> int:
        """Register the run. What an earlier, dead gateway left reserved becomes unknown; returns how many."""
        self._db.execute(
            "INSERT INTO run (run_id, thread, requirements, organisation, zone, opened_at_ms) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (run_id) DO UPDATE SET closed_at_ms = NULL, closed_why = NULL",
            (
                self._run.run_id,
                self._run.thread,
                " ".join(self._run.requirements),
                self._run.organisation,
                self._run.zone,
                now_ms,
            ),
        )
        for scope in self._run.scopes:
            if not scope.monthly:
                self._scope(scope, "")
        return self.doubt_all(now_ms, "the gateway ended before the reply did")

    def close(self, now_ms: int, why: str) -> None:
        """Note the run's end; whatever is still reserved becomes unknown and stays charged."""
        self.doubt_all(now_ms, why)
        self._db.execute(
            "UPDATE run SET closed_at_ms = ?, closed_why = ? WHERE run_id = ?", (now_ms, why, self._run.run_id)
        )

    def _scope(self, scope: ScopeCap, month: str) -> Totals:
        """The scope's row, made or given today's ceilings where they changed."""
        key = (scope.kind, scope.name, month if scope.monthly else "")
        query = f"SELECT {_TOTALS} FROM scope WHERE kind = ? AND name = ? AND month = ?"  # noqa: S608 - column names of our own class
        row = self._db.execute(query, key).fetchone()
        if row is None or row[3:5] != (scope.micro_usd, scope.tokens):
            self._db.execute(
                "INSERT INTO scope (kind, name, month, cap_micro_usd, cap_tokens) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (kind, name, month) DO UPDATE "
                "SET cap_micro_usd = excluded.cap_micro_usd, cap_tokens = excluded.cap_tokens",
                (*key, scope.micro_usd, scope.tokens),
            )
            row = self._db.execute(query, key).fetchone()
        return Totals(*row)

    def reserve(self, ask: Ask, month: str, now_ms: int) -> Grant | Shortage:
        """Take the worst case of a request out of every scope at once, or say which ceiling is in the way."""
        scopes = [self._scope(scope, month) for scope in self._run.scopes]
        granted, cap, busy, left = ask.affordable(ask.micro_usd_max, ask.tokens_max), "request", False, None
        for totals in scopes:
            fits, left_here = _fits(ask, totals, in_flight=True)
            if fits < granted:
                granted, cap, left = fits, totals.kind if not totals.month else f"{totals.kind}-month", left_here
                busy = _fits(ask, totals, in_flight=False)[0] > fits
        # A tight clamp is no answer while others hold money that they will give back: waiting gives a whole reply.
        if busy and granted < (ask.output_wanted if ask.patient else ask.output_min):
            return Shortage(cap, busy=True, left_micro_usd=left)
        if granted < ask.output_min:
            return Shortage(cap, busy=False, left_micro_usd=left)
        bound, tokens = ask.bound(granted), ask.input_tokens + granted
        made = self._db.execute(
            "INSERT INTO reservation (run_id, role, format, model, upstream, month, at_ms, bound_micro_usd, "
            "bound_tokens, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'reserved')",
            (self._run.run_id, ask.role, ask.format, ask.model, ask.upstream, month, now_ms, bound, tokens),
        )
        self._add(month, {"reserved_micro_usd": bound, "reserved_tokens": tokens, "requests": 1})
        assert made.lastrowid is not None
        return Grant(made.lastrowid, granted, bound, tokens, month)

    def _add(self, month: str, changes: Mapping[str, int]) -> None:
        """Add to the running totals of every scope of this run."""
        columns = ", ".join(f"{name} = {name} + ?" for name in changes)
        for scope in self._run.scopes:
            self._db.execute(
                f"UPDATE scope SET {columns} WHERE kind = ? AND name = ? AND month = ?",  # noqa: S608 - literal names above
                (*changes.values(), scope.kind, scope.name, month if scope.monthly else ""),
            )

    def _move(self, reservation: int, state: str, micro_usd: int, tokens: int, calls: int) -> bool:
        """Take the bound out of the state it is in and put the charge into `state`; False where it had ended."""
        row = self._db.execute(
            "SELECT state, month, bound_micro_usd, bound_tokens FROM reservation WHERE id = ? AND run_id = ?",
            (reservation, self._run.run_id),
        ).fetchone()
        if row is None or row[0] not in _OPEN_STATES or row[0] == state:
            return False
        before, month, bound, bound_tokens = row
        changes = {f"{before}_micro_usd": -bound, f"{before}_tokens": -bound_tokens, "tool_calls": calls}
        if state != "released":
            changes |= {f"{state}_micro_usd": micro_usd, f"{state}_tokens": tokens}
        self._add(month, changes)
        return True

    def settle(self, reservation: int, usage: Usage, cost_micro_usd: int, tool_calls: int, now_ms: int) -> bool:
        """Replace the bound by the truth, also where it was in doubt; False where it had ended already."""
        if not self._move(reservation, "settled", cost_micro_usd, usage.total, tool_calls):
            return False
        self._db.execute(
            "UPDATE reservation SET state = 'settled', cost_micro_usd = ?, input_tokens = ?, output_tokens = ?, "
            "cache_read_tokens = ?, cache_write_5m_tokens = ?, cache_write_1h_tokens = ?, tool_calls = ?, "
            "ended_at_ms = ? WHERE id = ?",
            (
                cost_micro_usd,
                usage.input_tokens,
                usage.output_tokens,
                usage.cache_read_tokens,
                usage.cache_write_5m_tokens,
                usage.cache_write_1h_tokens,
                tool_calls,
                now_ms,
                reservation,
            ),
        )
        return True

    def release(self, reservation: int, why: str, now_ms: int) -> bool:
        """Give the money back: only where nothing can have been billed."""
        if not self._move(reservation, "released", 0, 0, 0):
            return False
        self._db.execute(
            "UPDATE reservation SET state = 'released', cost_micro_usd = 0, ended_at_ms = ?, why = ? WHERE id = ?",
            (now_ms, why, reservation),
        )
        return True

    def doubt(self, reservation: int, why: str, tool_calls: int, now_ms: int) -> bool:
        """Charge the bound: what the provider billed is not known. Only a bill or a signature changes this later."""
        row = self._db.execute(
            "SELECT bound_micro_usd, bound_tokens FROM reservation WHERE id = ?", (reservation,)
        ).fetchone()
        if row is None or not self._move(reservation, "unknown", row[0], row[1], tool_calls):
            return False
        self._db.execute(
            "UPDATE reservation SET state = 'unknown', tool_calls = ?, ended_at_ms = ?, why = ? WHERE id = ?",
            (tool_calls, now_ms, why, reservation),
        )
        return True

    def doubt_all(self, now_ms: int, why: str) -> int:
        """Every reservation of this run that nobody settles any more becomes unknown."""
        rows = self._db.execute(
            "SELECT id FROM reservation WHERE run_id = ? AND state = 'reserved'", (self._run.run_id,)
        ).fetchall()
        return sum(self.doubt(row[0], why, 0, now_ms) for row in rows)

    def totals(self) -> Totals:
        """The run's own scope."""
        return next(self._scope(scope, "") for scope in self._run.scopes if scope.kind == "run")


def _fits(ask: Ask, totals: Totals, *, in_flight: bool) -> tuple[int, int | None]:
    """Output tokens that still fit under a scope's ceilings, with or without what others hold; and the money left."""
    money = tokens = None
    if totals.cap_micro_usd is not None:
        money = totals.cap_micro_usd - totals.spent_micro_usd + (0 if in_flight else totals.reserved_micro_usd)
    if totals.cap_tokens is not None:
        tokens = totals.cap_tokens - totals.spent_tokens + (0 if in_flight else totals.reserved_tokens)
    return ask.affordable(money, tokens), money


def spend(
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    name: str | None = None,
    month: str | None = None,
    limit: int = 1_000,
) -> list[Totals]:
    """What each run, requirement, thread and month has spent, newest first, at most `limit` rows; [] without a ledger.

    Reads only, while gateways write. `month` is "YYYY-MM"; runs and requirements have none.
    """
    if not os.path.exists(path):
        return []
    connection = open_ledger(os.fspath(path), readonly=True)
    try:
        rows = connection.execute(
            f"SELECT {_TOTALS} FROM scope WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR name = ?2) "  # noqa: S608 - column names of our own class
            "AND (?3 IS NULL OR month = ?3) ORDER BY id DESC LIMIT ?4",
            (kind, name, month, limit),
        ).fetchall()
    except sqlite3.Error as error:
        raise HostError(f"the ledger can't be read: {error}", where=os.fspath(path)) from None
    finally:
        connection.close()
    return [Totals(*row) for row in rows]
