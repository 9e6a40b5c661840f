"""A person's command in exactly the jail that a role would get, over HEAD of a thread; nothing it writes is kept.

For `inbounds shell`. The terminal is passed through as pipes: a jail has no controlling terminal.
"""

import sys
import tempfile
from pathlib import Path

from inbounds.contracts.job import HOME, LAYER, WORK
from inbounds.contracts.paths import below
from inbounds.run import documents, layer
from inbounds.run.base import find_base, place
from inbounds.run.crew import Crew
from inbounds.run.home import Home
from inbounds.run.workbench import read_limited
from inbounds.sandbox.identity import identity
from inbounds.sandbox.spec import Bind, JailSpec
from inbounds.sandbox.volume import Volume
from inbounds.store.descent import delete_tree

DEADLINE_MS = 24 * 3_600_000  # a person may leave a shell open for a day
OUTPUT_BYTES_MAX = 16 << 20
SIGNAL_BASE = 128  # a shell's own convention for a command that a signal ended


def visit(home: Home, directory: Path, role: str, argv: tuple[str, ...]) -> int:
    """Run `argv`; its exit code, or 128 and the signal's number."""
    top, thread = place(directory)
    found = documents.read(top, thread)
    base = find_base(top, found, home)
    who = identity(base.commit)
    scratch = Path(tempfile.mkdtemp(prefix="inbounds-shell-", dir=home.path))
    try:
        volume = Volume.prepare(
            base.store,
            base.tree,
            thread,
            found.config.interfaces.read,
            str(scratch / "workspace"),
            uid=who.uid if who.dropped else None,
            gid=who.gid if who.dropped else None,
            protected=[path for path in found.policy.protected if below(path, thread)],
        )
        built = home.layers / base.layer / layer.ENV
        spec = JailSpec(
            role=role,
            argv=argv,
            cwd=WORK if thread == "." else f"{WORK}/{thread}",
            env={"HOME": HOME, "LANG": "C.UTF-8", "TERM": "dumb"},
            binds=(
                *(Bind(b.source, b.target, writable=b.writable) for b in volume.binds()),
                *((Bind(str(built), LAYER, executable=True),) if built.is_dir() else ()),
            ),
            deadline_ms=DEADLINE_MS,
        )
        ended = Crew(who).run(spec, scratch)
        sys.stdout.buffer.write(read_limited(scratch / "stdout", OUTPUT_BYTES_MAX) or b"")
        sys.stderr.buffer.write(read_limited(scratch / "stderr", OUTPUT_BYTES_MAX) or b"")
        sys.stdout.flush()
        return ended.exit_code or (SIGNAL_BASE + ended.signal if ended.signal else 0)
    finally:
        delete_tree(str(scratch))
