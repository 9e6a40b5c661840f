"""What was spent, reserved and is in doubt, per run, requirement, thread and month: one SQLite file, many gateways.

A reservation is reserved, unknown, settled or released; all but released count as spent (G9). Totals stand in the
scope rows and change in the same transaction, so that a request's cost does not grow with the history. Knows nothing
of HTTP or prices.
"""

import os
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from inbounds.contracts.errors import HostError
from inbounds.gateway.schema import open_ledger
from inbounds.gateway.usage import Usage

# What an amendment may change of a running lease, as columns; a month's ceilings belong to the organisation.
AMENDABLE = ("run_micro_usd", "request_micro_usd", "request_tokens", "run_tokens", "tool_calls", "turns")
ANCHORS_MAX = 100_000  # of one run, read at once: a checkpoint a second for a day

T = TypeVar("T")


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
    the per-request caps. A `patient` one would rather wait than be clamped by what others hold. `iteration` is whose
    turn it takes.
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
    iteration: int = 0

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


@dataclass(frozen=True, slots=True)
class Anchor:
    """A journal's head as the supervisor handed it over; `note` is a signed checkpoint, or "" where there was none."""

    seq: int
    hash: str
    size: int
    root: str
    note: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger knows of one run. `open` requests are reserved, `in_doubt` ones stay charged at their bound.

    `turns` are those of `iteration`; `amended` holds the ceilings that amendments have set, by their names in Caps.
    """

    totals: Totals
    open: int
    in_doubt: int
    iteration: int
    turns: int
    amended: Mapping[str, int]
    opened_at_ms: int
    closed_at_ms: int | None
    closed_why: str


_TOTALS = ", ".join(Totals.__slots__)
_OPEN_STATES = frozenset({"reserved", "unknown"})


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
        self._db.execute(
            "UPDATE run SET turns = CASE iteration WHEN ?1 THEN turns + 1 ELSE 1 END, iteration = ?1 WHERE run_id = ?2",
            (ask.iteration, self._run.run_id),
        )
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

    def turns(self) -> tuple[int, int]:
        """The last iteration that a request was admitted in, and how many were."""
        query = "SELECT iteration, turns FROM run WHERE run_id = ?"
        iteration, turns = self._db.execute(query, (self._run.run_id,)).fetchone()
        return int(iteration), int(turns)

    def amended(self) -> dict[str, int]:
        """The ceilings that amendments have set so far, by their names in Caps; the latest word on each counts."""
        return _amended(self._db, self._run.run_id)

    def amend(self, ceilings: Mapping[str, int], now_ms: int) -> None:
        """Keep an amendment (names of AMENDABLE); it binds here from `cap_run` on, and every later gateway."""
        assert set(ceilings) <= set(AMENDABLE), "the caller has checked the names"
        self._db.execute(
            f"INSERT INTO amendment (run_id, at_ms, {', '.join(ceilings)}) VALUES (?, ?{', ?' * len(ceilings)})",  # noqa: S608 - names checked above
            (self._run.run_id, now_ms, *ceilings.values()),
        )

    def cap_run(self, micro_usd: int | None, tokens: int | None) -> None:
        """The run's own ceilings from now on; what counts toward them stays."""
        scopes = (replace(s, micro_usd=micro_usd, tokens=tokens) if s.kind == "run" else s for s in self._run.scopes)
        self._run = replace(self._run, scopes=tuple(scopes))

    def anchor(self, head: Anchor) -> None:
        """Keep a journal's head; one that stands there already is passed over."""
        self._db.execute(
            "INSERT INTO anchors (run_id, seq, hash, size, root, note, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self._run.run_id, head.seq, head.hash, head.size, head.root, head.note, head.at_ms),
        )


def _amended(connection: sqlite3.Connection, run_id: str) -> dict[str, int]:
    query = f"SELECT {', '.join(AMENDABLE)} FROM amendment WHERE run_id = ? ORDER BY id"  # noqa: S608 - literal names above
    found: dict[str, int] = {}
    for row in connection.execute(query, (run_id,)):
        found |= {name: value for name, value in zip(AMENDABLE, row, strict=True) if value is not None}
    return found


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
    query = (
        f"SELECT {_TOTALS} FROM scope WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR name = ?2) "  # noqa: S608 - column names of our own class
        "AND (?3 IS NULL OR month = ?3) ORDER BY id DESC LIMIT ?4"
    )
    rows = _read(path, lambda db, _: db.execute(query, (kind, name, month, limit)).fetchall())
    return [Totals(*row) for row in rows or ()]


def anchors(path: str | os.PathLike[str], run_id: str) -> list[Anchor]:
    """The journal heads that the ledger holds of a run, in the order of their records; [] where it keeps none.

    Two of one `seq` that differ are two journals: nothing here chooses between them. HostError past ANCHORS_MAX.
    """
    query = "SELECT seq, hash, size, root, note, at_ms FROM anchors WHERE run_id = ? ORDER BY seq, at_ms LIMIT ?"

    def ask(db: sqlite3.Connection, version: int) -> list[Anchor]:
        if version < 2:  # noqa: PLR2004 - the version that brought them
            return []
        return [Anchor(*row) for row in db.execute(query, (run_id, ANCHORS_MAX + 1))]

    found = _read(path, ask) or []
    if len(found) > ANCHORS_MAX:
        raise HostError(f"more than {ANCHORS_MAX} anchors of {run_id}", where=os.fspath(path))
    return found


def standing(path: str | os.PathLike[str], run_id: str) -> Standing | None:
    """What the ledger knows of a run, for whoever comes after a crash; None where it never heard of it.

    Reads only, in one transaction, whether or not a gateway is at work.
    """

    def ask(db: sqlite3.Connection, version: int) -> Standing | None:
        later = "iteration, turns" if version >= 2 else "0, 0"  # noqa: PLR2004 - the version that brought them
        query = f"SELECT opened_at_ms, closed_at_ms, closed_why, {later} FROM run WHERE run_id = ?"  # noqa: S608 - literal names above
        run = db.execute(query, (run_id,)).fetchone()
        scope = db.execute(f"SELECT {_TOTALS} FROM scope WHERE kind = 'run' AND name = ?", (run_id,)).fetchone()  # noqa: S608 - column names of our own class
        if run is None or scope is None:
            return None
        counted = (
            "SELECT state, COUNT(*) FROM reservation WHERE run_id = ? AND state IN ('reserved', 'unknown') GROUP BY 1"
        )
        states = dict(db.execute(counted, (run_id,)).fetchall())
        amended = _amended(db, run_id) if version >= 2 else {}  # noqa: PLR2004 - as above
        opened, closed, why, iteration, turns = run
        doubted = states.get("unknown", 0)
        return Standing(
            Totals(*scope), states.get("reserved", 0), doubted, iteration, turns, amended, opened, closed, why or ""
        )

    return _read(path, ask)


def _read(path: str | os.PathLike[str], ask: Callable[[sqlite3.Connection, int], T]) -> T | None:
    """Ask a ledger something, given its version, in one read transaction; None where there is no ledger."""
    if not os.path.exists(path):
        return None
    connection = open_ledger(os.fspath(path), readonly=True)
    try:
        connection.execute("BEGIN")
        return ask(connection, int(connection.execute("PRAGMA user_version").fetchone()[0]))
    except sqlite3.Error as error:
        raise HostError(f"the ledger can't be read: {error}", where=os.fspath(path)) from None
    finally:
        connection.close()
