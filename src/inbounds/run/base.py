"""Where a run starts: the repository around a directory, its HEAD in the trusted store, its dependency layer.

Looks at the person's repository through hardened git only and never writes to it.
"""

from pathlib import Path

from inbounds.contracts.errors import OperatorError
from inbounds.discover import repository
from inbounds.run.bind import Base
from inbounds.run.documents import Documents
from inbounds.run.home import Home, open_home
from inbounds.store.store import Store, object_format_of, repo_key


def place(directory: Path) -> tuple[Path, str]:
    """The repository's top and the thread: the directory's path relative to it."""
    top = Path(repository.top_of(directory))
    relative = directory.resolve().relative_to(top)
    return top, relative.as_posix() or "."


def open_store(home: Home, top: Path) -> Store:
    """The trusted store of one repository, made when it is not there."""
    place = home.stores / repo_key(str(top)) / "store.git"
    return Store.create(str(place), object_format=object_format_of(str(top)))


def find_base(top: Path, documents: Documents | None, home: Home | None = None) -> Base:
    """HEAD, fetched into the store; submodules and LFS are refused by name."""
    home = home or open_home()
    store = open_store(home, top)
    commit = store.fetch(str(top), "HEAD")
    tree = store.tree_of(commit)
    store.refuse_unsupported(tree)
    thread = documents.thread if documents else "."
    if thread != "." and not store.ls(tree, (thread,)):
        raise OperatorError(f"{thread} is not in HEAD", where=str(top), fix=f"git add {thread} && git commit")
    layer, pythonpath = layer_of(home, store, tree, documents)
    return Base(store, commit, tree, layer, pythonpath)


def layer_of(home: Home, store: Store, tree: str, documents: Documents | None) -> tuple[str, tuple[str, ...]]:
    """The key of the dependency layer that this tree needs ("" for none), and what to put on PYTHONPATH."""
    from inbounds.run.layer import needed

    return needed(home, store, tree, documents)
