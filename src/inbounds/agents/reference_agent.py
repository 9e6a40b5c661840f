"""The reference agent: a small loop that runs inside a jail with nothing but the standard library.

Its tools are wrappers: list, read, search, write (in the workspace only), and the broker's run_tests. It reads its task
from a JSON file, speaks OpenAI chat completions, and prints one JSON line for each thing that it does; the last one is
the result. It bounds nothing: the jail does. It must not import inbounds, which is not in there.
"""

import http.client
import json
import os
import re
import stat
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

READ_CHARS_MAX = 48_000  # of one file; more would crowd the model's context
ENTRIES_MAX = 500
HITS_MAX = 200
SEARCH_FILES_MAX = 5_000
SEARCH_BYTES_MAX = 1 << 20  # a larger file is no source
LINE_CHARS_MAX = 300
REPLY_BYTES_MAX = 32 << 20
MODEL_SECONDS_MAX = 600
TOOL_SECONDS_MAX = 900
TRIES_MAX = 3
LIMIT_STATUSES = (402, 403)
PASSING_STATUSES = (429, 500, 502, 503, 504, 529)
OK = 200

RULES = (
    "You are a coding agent. Work in the current directory with the tools you are given. Read before you write; write "
    "whole files; run the tests; stop calling tools when the task is done, and say in a few words what you did."
)


def declared(name: str, description: str, **arguments: str) -> dict[str, Any]:
    """Describe one tool in the chat format; every argument is a string."""
    properties = {key: {"type": "string", "description": text} for key, text in arguments.items()}
    schema = {"type": "object", "properties": properties, "required": list(arguments), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    declared("list", "List a directory, one entry a line.", path="directory, relative to the workspace"),
    declared("read", "Read a text file.", path="file, relative to the workspace"),
    declared("search", "Search files for a regular expression.", pattern="Python regular expression", path="directory"),
    declared("write", "Write a whole file, made if it is not there.", path="file in the workspace", content="its text"),
    declared("run_tests", "Run the thread's tests and give their output."),
]


class Refused(Exception):
    """A tool did not do what was asked; the message goes to the model."""


class Ended(Exception):
    """The model can't be asked any more; `status` is the gateway's, 0 where it did not answer."""

    def __init__(self, status: int, why: str) -> None:
        """Say why, for the result line."""
        super().__init__(why)
        self.status = status


def tell(kind: str, **fields: Any) -> None:
    """Print one event."""
    print(json.dumps({"type": kind} | fields), flush=True)


def post(base: str, path: str, token: str, body: dict[str, Any], seconds: int) -> tuple[int, Any]:
    """Send JSON and give (status, parsed reply); OSError or ValueError if there is none."""
    parts = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
    try:
        headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
        connection.request("POST", parts.path + path, json.dumps(body), headers)
        response = connection.getresponse()
        raw = response.read(REPLY_BYTES_MAX)
        return response.status, (json.loads(raw) if raw else {})
    except http.client.HTTPException as fault:
        raise OSError(str(fault) or type(fault).__name__) from None
    finally:
        connection.close()


class Workspace:
    """The wrappers around one directory."""

    def __init__(self, root: str) -> None:
        """Take the directory, links resolved."""
        self.root = os.path.realpath(root)

    def entries(self, path: str) -> str:
        """List a directory, sorted, directories with a slash."""
        found = sorted(os.scandir(self._place(path)), key=lambda entry: entry.name)
        lines = [entry.name + ("/" if entry.is_dir(follow_symlinks=False) else "") for entry in found[:ENTRIES_MAX]]
        rest = len(found) - ENTRIES_MAX
        return "\n".join(lines + ([f"[{rest} more]"] if rest > 0 else [])) or "[empty]"

    def read(self, path: str) -> str:
        """Read a file's text; what may be read is the jail's business."""
        place = self._place(path)
        if not stat.S_ISREG(os.stat(place).st_mode):
            raise Refused(path + " is no file")
        with open(place, encoding="utf-8", errors="replace") as held:
            text = held.read(READ_CHARS_MAX + 1)
        return text if len(text) <= READ_CHARS_MAX else text[:READ_CHARS_MAX] + "\n[cut]"

    def search(self, pattern: str, path: str) -> str:
        """Search below a directory, file by file, hidden ones left out."""
        try:
            wanted = re.compile(pattern)
        except re.error as fault:
            raise Refused("no regular expression: " + str(fault)) from None
        hits = []
        for place in self._sources(self._place(path)):
            with open(place, encoding="utf-8", errors="replace") as held:
                for number, line in enumerate(held, 1):
                    if wanted.search(line[:LINE_CHARS_MAX]):
                        hits.append(f"{os.path.relpath(place, self.root)}:{number}:{line[:LINE_CHARS_MAX].rstrip()}")
                        if len(hits) >= HITS_MAX:
                            return "\n".join([*hits, "[cut]"])
        return "\n".join(hits) or "[nothing]"

    def write(self, path: str, content: str) -> str:
        """Write a file in the workspace; a link on the way out of it is refused."""
        place = os.path.join(self.root, path)
        parent = os.path.realpath(os.path.dirname(place))
        if os.path.commonpath([parent, self.root]) != self.root:
            raise Refused(path + " is not in the workspace")
        os.makedirs(parent, exist_ok=True)
        target = os.path.join(parent, os.path.basename(place))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(target, flags, 0o644), "w", encoding="utf-8") as held:
            held.write(content)
        return f"{len(content.encode())} bytes written"

    def _place(self, path: str) -> str:
        return os.path.realpath(os.path.join(self.root, os.path.expanduser(path)))

    def _sources(self, top: str) -> Iterator[str]:
        count = 0
        for base, directories, names in os.walk(top):
            directories[:] = sorted(name for name in directories if not name.startswith("."))
            for name in sorted(names):
                place = os.path.join(base, name)
                found = os.lstat(place)
                if stat.S_ISREG(found.st_mode) and found.st_size <= SEARCH_BYTES_MAX and not name.startswith("."):
                    count += 1
                    if count > SEARCH_FILES_MAX:
                        return
                    yield place


class Agent:
    """One conversation with the model about one task."""

    def __init__(self, task: dict[str, Any], token: str) -> None:
        """Begin with the rules and the task."""
        self.task = task
        self.token = token
        self.workspace = Workspace(task["workspace"])
        self.messages: list[dict[str, Any]] = [
            {"role": "system", "content": RULES},
            {"role": "user", "content": task["prompt"]},
        ]

    def run(self) -> str:
        """Work until the model calls no more tools; give its last words."""
        for _ in range(self.task["turns_max"]):
            message = self.ask()
            calls = message.get("tool_calls") or []
            said = message.get("content") or ""
            if said:
                tell("said", text=said)
            self.messages.append(
                {"role": "assistant", "content": said or None} | ({"tool_calls": calls} if calls else {})
            )
            if not calls:
                return said
            for call in calls:
                text = self.use(call)
                self.messages.append({"role": "tool", "tool_call_id": call.get("id", ""), "content": text})
        raise Ended(0, f"no end after {self.task['turns_max']} turns")

    def ask(self) -> dict[str, Any]:
        """Ask the model for its next turn, again where a failure passes by itself."""
        body = {
            "model": self.task["model"],
            "messages": self.messages,
            "tools": TOOLS,
            "max_tokens": self.task["output_tokens_max"],
        }
        why, status = "", 0
        for attempt in range(TRIES_MAX):
            time.sleep(attempt)
            try:
                status, reply = post(
                    self.task["gateway_url"], "/v1/chat/completions", self.token, body, MODEL_SECONDS_MAX
                )
            except (OSError, ValueError) as fault:
                status, why = 0, f"{type(fault).__name__}: {fault}"
                continue
            if status == OK:
                return self.message_of(reply)
            why = f"status {status}: {json.dumps(reply)[:2000]}"
            if status not in PASSING_STATUSES:
                break
        raise Ended(status, why)

    def message_of(self, reply: Any) -> dict[str, Any]:
        """Take the message out of a reply; Ended if it has none."""
        try:
            message: dict[str, Any] = reply["choices"][0]["message"]
            calls = message.get("tool_calls") or []
            if all(isinstance(call["function"]["name"], str) for call in calls):
                return message
        except (KeyError, IndexError, TypeError, AttributeError):
            pass
        raise Ended(OK, "a reply that is no chat completion")

    def use(self, call: dict[str, Any]) -> str:
        """Carry out one tool call; whatever goes wrong is told to the model."""
        name = call["function"]["name"]
        try:
            given = json.loads(call["function"].get("arguments") or "{}")
            text = self.tool(name, given)
            fine = True
        except (Refused, OSError, ValueError, TypeError) as fault:
            text, fine = f"{type(fault).__name__}: {fault}", False
        tell("tool", name=name, ok=fine, chars=len(text))
        return text if fine else "error: " + text

    def tool(self, name: str, given: Any) -> str:
        """Find the wrapper and check its arguments' names and types."""
        wanted = next((tool["function"] for tool in TOOLS if tool["function"]["name"] == name), None)
        if wanted is None:
            raise Refused(f"there is no tool {name!r}")
        expected = set(wanted["parameters"]["properties"])
        if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
            raise Refused("expected an object of strings")
        if name in ("list", "search"):
            given.setdefault("path", ".")
        if set(given) != expected:
            raise Refused(f"expected {sorted(expected)}, found {sorted(given)}")
        if name == "run_tests":
            return self.run_tests()
        space = self.workspace
        wrappers: dict[str, Callable[..., str]] = {
            "list": space.entries,
            "read": space.read,
            "search": space.search,
            "write": space.write,
        }
        return wrappers[name](**given)

    def run_tests(self) -> str:
        """Have the broker run the tests outside of this jail."""
        status, reply = post(self.task["broker_url"], "/tools/run_tests", self.token, {}, TOOL_SECONDS_MAX)
        if status != OK or reply.get("is_error"):
            raise Refused(str(reply.get("text") or reply.get("error") or f"status {status}"))
        return str(reply["text"])


def main(argv: list[str]) -> int:
    """Run the task in the file named; exit code 0 only for a run that came to its own end."""
    with open(argv[1], encoding="utf-8") as held:
        task = json.load(held)
    try:
        said = Agent(task, os.environ["INBOUNDS_TOKEN"]).run()
    except Ended as end:
        refused = end.status in LIMIT_STATUSES
        tell("result", ok=False, said="", refused=refused, status=end.status, detail=str(end))
        return 1
    tell("result", ok=True, said=said, refused=False, status=OK, detail="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
