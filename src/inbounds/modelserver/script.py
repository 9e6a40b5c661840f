"""The scripted conversation that the model server plays: turns, usage figures, delays and faults to order.

Parsed once from JSON into frozen values; an unknown key is an error. Knows nothing of wire formats or sockets.
"""

from pathlib import Path
from typing import Any, Literal

import msgspec

from inbounds.contracts.errors import OperatorError

# A script is written by a person or a test; ten megabytes hold thousands of turns with whole files in them.
SCRIPT_BYTES_MAX = 10 << 20
# A provider that thinks longer than this is a hang, which has its own fault.
DELAY_MS_MAX = 600_000
TOKENS_PER_PRICE = 1_000_000

FaultKind = Literal["status", "hang", "cut", "malformed", "no_usage"]


class Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tokens of one reply in four disjoint classes: `input` counts neither cache reads nor cache writes."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Micro-dollars for a million tokens of each class."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    def cost(self, usage: Usage) -> int:
        """Micro-dollars for one reply, rounded up once per reply."""
        total = (
            usage.input * self.input
            + usage.output * self.output
            + usage.cache_read * self.cache_read
            + usage.cache_write * self.cache_write
        )
        return -(-total // TOKENS_PER_PRICE)


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool the model asks for. `arguments` is an object, or a string for a free-form tool."""

    name: str
    arguments: dict[str, Any] | str = {}


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes wrong with a turn, at its first `times` requests (0: at every one).

    status: answer `status` with `body` (or the format's own error shape); hang: accept and never answer; cut: close
    the connection in the middle; malformed: send what is no JSON; no_usage: leave the usage figures out.
    """

    kind: FaultKind
    status: int = 500
    body: str = ""
    times: int = 0


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One reply of the model. Without `usage` the figures follow from the sizes (four bytes make a token)."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    delay_ms: int = 0
    chunk_delay_ms: int = 0  # between the events of a streamed reply
    fault: Fault | None = None


class Conversation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Turns for the requests that match: all of `match` occur in what the user said, and `model` is a prefix.

    The request's own history says which turn comes next, so each new agent process starts at the first. After the last
    one, `loop` repeats it for ever; otherwise the model says that it is done. Requests that offer no tools are an
    agent's asides (titles, summaries) and get a short answer, unless `without_tools` lets them in.
    """

    turns: tuple[Turn, ...]
    match: tuple[str, ...] = ()
    model: str = ""
    loop: bool = False
    without_tools: bool = False


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that one server plays: the first conversation that matches a request serves it."""

    conversations: tuple[Conversation, ...]
    key: str = "sk-inbounds-model-server"
    prices: dict[str, Price] = {}
    aside: Turn = Turn(text="Task", usage=Usage(input=100, output=5))
    over: Turn = Turn(text="Nothing is left to do.", usage=Usage(input=100, output=10))

    def turn(self, *, said: str, model: str, offers_tools: bool, taken: int) -> tuple[str, Turn]:
        """Give the reply after `taken` turns, with its name "conversation/turn" for the bill."""
        for number, talk in enumerate(self.conversations):
            if not (offers_tools or talk.without_tools):
                continue
            if not model.startswith(talk.model) or not all(part in said for part in talk.match):
                continue
            if taken < len(talk.turns):
                return f"{number}/{taken}", talk.turns[taken]
            if talk.loop and talk.turns:
                return f"{number}/{len(talk.turns) - 1}", talk.turns[-1]
            return f"{number}/over", self.over
        return "aside", self.aside


def parse(raw: bytes, *, where: str = "script") -> Script:
    """Parse a script; OperatorError names what is wrong with it."""
    if len(raw) > SCRIPT_BYTES_MAX:
        raise OperatorError(f"{len(raw)} bytes", expected=f"a script of at most {SCRIPT_BYTES_MAX} bytes", where=where)
    try:
        script = msgspec.json.decode(raw, type=Script)
    except msgspec.DecodeError as fault:
        raise OperatorError(str(fault), expected="a scripted conversation in JSON", where=where) from None
    for talk in script.conversations:
        for turn in talk.turns:
            if not (0 <= turn.delay_ms <= DELAY_MS_MAX and 0 <= turn.chunk_delay_ms <= DELAY_MS_MAX):
                raise OperatorError(
                    f"a delay of {turn.delay_ms} ms", expected=f"0 to {DELAY_MS_MAX}, or a hang", where=where
                )
    return script


def load(path: str) -> Script:
    """Read a script file; OperatorError if it can't be read."""
    try:
        raw = Path(path).read_bytes()
    except OSError as fault:
        raise OperatorError(f"{path}: {fault.strerror}", expected="a script file that can be read") from None
    return parse(raw, where=path)


def of(source: "Script | dict[str, Any] | list[Any] | bytes") -> Script:
    """Take a script as tests write it: parsed, JSON bytes, an object, or a bare list of turns."""
    if isinstance(source, Script):
        return source
    if isinstance(source, bytes):
        return parse(source)
    whole = {"conversations": [{"turns": source, "without_tools": True}]} if isinstance(source, list) else source
    return parse(msgspec.json.encode(whole))
