"""What `inbounds init` does: survey, layer, failing tests, files; each fact with its source.

Writes contract files into the person's repository, and nothing else there.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from inbounds.contracts.documents import Config, Tests
from inbounds.contracts.errors import InboundsError
from inbounds.contracts.paths import CONTRACT_DIRECTORY, joined
from inbounds.run import baseline, choose, documents, layer, response_plan, setup
from inbounds.run.base import open_store, place
from inbounds.run.bind import Base
from inbounds.run.home import Home
from inbounds.sandbox.probe import probe


def begin(home: Home, directory: Path, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Set a repository up; returns what was found and written. Where a jail is impossible, tests are not run."""
    top, thread = place(directory)
    host = probe()
    store = open_store(home, top)
    commit = store.fetch(str(top), "HEAD")
    tree = store.tree_of(commit)
    store.refuse_unsupported(tree)
    needed = layer.need(store, tree, thread)
    found = setup.survey(directory, layer.sources(needed))
    config = Config(
        version=1,
        owner=found.owner,
        tests=Tests(
            runner="junit" if found.runner == "junit" else "pytest",
            command=found.command,
            paths=found.paths,
            pythonpath=found.pythonpath,
        ),
        dependencies=found.manifests,
    )
    base = Base(store, commit, tree, needed.key, layer.pythonpath(needed))
    failing, problem = _failing(home, base, config, thread, say) if not host.problem else ([], host.problem)
    tested = f"not known: {problem}" if problem else f"found by running them on {commit[:12]}"
    policy = setup.write_policy(found)
    wrote = setup.write_config(found, failing, tested)
    config_path = joined(thread, f"{CONTRACT_DIRECTORY}/{documents.CONFIG}")
    plan = setup.write_new(found.top, response_plan.PLAN, response_plan.write(thread, _people(found)))
    names = [(documents.POLICY, policy), (config_path, wrote), (response_plan.PLAN, plan)]
    agents = {name: install.version for name, install in choose.found().items() if install}
    return {
        "repository": str(top),
        "thread": thread,
        "written": [name for name, made in names if made],
        "kept": [name for name, made in names if not made],
        "operator": found.operator,
        "operator_key_from": found.operator_key_from,
        "owner": found.owner,
        "owner_from": found.owner_from,
        "command": list(found.command),
        "tests_from": found.tests_from,
        "layer": needed.key,
        "manifests": list(layer.sources(needed)),
        "agents": agents,
        "level": host.level,
        "problem": host.problem,
        "fix": host.fix,
        "failing": failing,
        "tests_problem": problem,
    }


def _people(found: setup.Survey) -> response_plan.People:
    try:
        policy = documents.read(found.top, found.thread).policy
    except InboundsError:
        policy = None  # it was there before, and `inbounds check` says what is wrong with it
    return response_plan.people(found.owner, found.operator, policy)


def _failing(home: Home, base: Base, config: Config, thread: str, say: Callable[[str], None]) -> tuple[list[str], str]:
    say("running today's tests in the tester's jail")
    try:
        return baseline.failing(home, base, config, thread, say)
    except InboundsError as error:
        return [], error.one_line()
