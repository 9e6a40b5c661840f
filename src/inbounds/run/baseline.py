"""What fails today: a thread's tests run once on HEAD in the tester's jail, before there is any run.

Used by `init` (to pin what is known to fail) and by `run` without --accept. Decides nothing.
"""

import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from inbounds.contracts.documents import Config
from inbounds.contracts.units import duration
from inbounds.judges import tests as suites
from inbounds.judges.tests import Suite
from inbounds.run import layer
from inbounds.run.bind import Base
from inbounds.run.crew import Crew
from inbounds.run.documents import Documents
from inbounds.run.home import Home
from inbounds.run.workbench import Workbench
from inbounds.sandbox.identity import identity
from inbounds.sandbox.spec import JailLimits
from inbounds.store.descent import delete_tree


def failing_today(
    home: Home, top: Path, documents: Documents, say: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Ids of the tests that fail on HEAD, sorted; HostError or OperatorError where they cannot be run."""
    from inbounds.run.base import find_base

    base = find_base(top, documents, home)
    return failing(home, base, documents.config, documents.thread, say)[0]


def failing(
    home: Home, base: Base, config: Config, thread: str, say: Callable[[str], None] = lambda _: None
) -> tuple[list[str], str]:
    """Failing ids of the base tree, and "" or why the tests gave no answer."""
    needed = layer.need(base.store, base.tree, thread)
    layer.ensure(home, needed, say)
    suite = Suite(
        acceptance=(),
        paths=config.tests.paths or (thread,),
        thread="" if thread == "." else thread,
        runner=config.tests.runner,
        command=config.tests.command,
        pythonpath=(*config.tests.pythonpath, *base.layer_pythonpath),
        deadline_ms=duration(config.tests.timeout),
    )
    who = identity(needed.key)
    scratch = Path(tempfile.mkdtemp(prefix="inbounds-baseline-", dir=home.path))
    try:
        bench = Workbench(
            store=base.store,
            scratch=scratch,
            crew=Crew(who),
            identity=who,
            prefixes=(thread, *config.interfaces.read),
            limits=JailLimits(),
            layer=home.layers / needed.key / layer.ENV,
        )
        nonce = secrets.token_hex(16)
        reading = suites.read(suite, nonce, bench.execute(suites.plan(suite, base.tree, nonce)))
    finally:
        delete_tree(str(scratch))
    if reading.report is None:
        return [], reading.problem
    bad = {name for name, outcome in reading.report.outcomes.items() if outcome in {"failed", "error"}}
    return sorted(bad | set(reading.report.broken)), ""
