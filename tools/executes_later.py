"""docs/executes-later.md from the table that judges (inbounds/judges/executes_later.py): written, or checked.

Knows how a pattern is shown, not what it matches.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from inbounds.judges.executes_later import TABLE  # noqa: E402 - the checkout's, wherever this is started from

PAGE = ROOT / "docs" / "executes-later.md"
WIDTH = 118
HEAD = """\
# What would execute it later

Made from `src/inbounds/judges/executes_later.py` by `tools/executes_later.py`; edit the former.

A file that an agent wrote does nothing inside its jail that its jail does not allow. Some files wait for somebody else:
for a hook, an editor, a build, the next agent. Each such path that a run wrote is a finding `scope.executes_later`
(high: the run ends with [STOP_SECURITY_VIOLATION](stop-codes/STOP_SECURITY_VIOLATION.md)), and its message says who
would execute it and when. It is none where

- the plan declares that very path, without a wildcard (a broad target such as `src/**` declares none of these); git's
  own data can't be declared at all;
- the file was deleted;
- it is a `package.json` or `pyproject.toml` that was there before, and nothing but what describes the package to people
  changed: version, description, keywords, authors, home page and the like. Any other part is a finding that names the
  part. Where the content can't be read in one way only (damage, doubled keys, more than 1 MiB), the name decides.

A pattern matches a name at any depth; `/` in front anchors it at the repository's root, `/` behind takes everything
below, `*` stays within a name, `{a,b}` are alternatives. Names are compared folded: upper and lower case, Unicode
compatibility forms, invisible characters, trailing dots and spaces, NTFS streams and short names of `.git`.
The first entry that matches gives the reason.

Not classed, since nothing in a name tells: code that a declared build file already includes, a script that a declared
task already calls, and what is imported by tests. That is reviewed as code, in a jail until then.
"""


def page() -> str:
    """The whole document."""
    parts = [HEAD]
    for row in TABLE:
        parts.append(f"\n## {row.reason[0].upper()}{row.reason[1:]}\n")
        line = ""
        for name in row.names:
            shown = f"`{name}`"
            if line and len(line) + len(shown) + 3 > WIDTH:
                parts.append(f"{line} ·\n")
                line = shown
            else:
                line = f"{line} · {shown}" if line else shown
        parts.append(f"{line}\n")
    return "\n".join(part.rstrip("\n") for part in parts) + "\n"


def main() -> int:
    """Write the page; with --check say whether it is current."""
    if "--check" in sys.argv[1:]:
        current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page()
        if not current:
            print(
                f"{PAGE.name} is not what the table says; type: .venv/bin/python tools/executes_later.py",
                file=sys.stderr,
            )
        return int(not current)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
