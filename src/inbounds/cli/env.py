"""`inbounds env`: the dependency layer of a thread, built or shown."""

from pathlib import Path

import click

from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds env build .    build what HEAD's lock files ask for; nothing happens where it is there
  inbounds env show .     what is in it

The build runs in a jail that sees manifests only and reaches the package index through a GET-only proxy. The layer is
read-only afterwards and shared by all runs with the same lock files."""


@click.group(epilog=EPILOG)
def command() -> None:
    """Build or show the dependency layer."""


@command.command("build")
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def build(directory: Path, as_json: bool) -> None:
    """Build the layer that HEAD's manifests ask for; nothing happens where it is there."""
    from inbounds.run import layer
    from inbounds.run.base import open_store, place
    from inbounds.run.home import open_home

    home = open_home()
    top, thread = place(directory)
    store = open_store(home, top)
    wanted = layer.need(store, store.tree_of(store.fetch(str(top), "HEAD")), thread)
    facts = layer.ensure(home, wanted, (lambda _: None) if as_json else say)
    _show(facts, as_json=as_json)


@command.command("show")
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def show(directory: Path, as_json: bool) -> None:
    """What is in the layer of DIRECTORY's thread."""
    from inbounds.contracts.errors import OperatorError
    from inbounds.run import layer
    from inbounds.run.base import open_store, place
    from inbounds.run.home import open_home

    home = open_home()
    top, thread = place(directory)
    store = open_store(home, top)
    wanted = layer.need(store, store.tree_of(store.fetch(str(top), "HEAD")), thread)
    facts = layer.built(home, wanted.key)
    if facts is None:
        raise OperatorError(f"the layer {wanted.key[:12]} is not built", fix=f"inbounds env build {directory}")
    _show(facts, as_json=as_json)


def _show(facts: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        emit(facts)
        return
    resolved = facts["resolved"]
    assert isinstance(resolved, list)
    say(f"layer {str(facts['key'])[:12]}: {len(resolved)} packages" + ("" if facts["locked"] else ", not all by hash"))
    for package in resolved:
        say(f"  {package['name']} {package['version']}")
