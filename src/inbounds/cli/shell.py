"""`inbounds shell`: a person's command inside exactly the jail that a role would get."""

from pathlib import Path

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@click.option("--role", default="coder", type=click.Choice(["coder", "tester"]), help="Whose jail.")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def command(directory: Path, role: str, argv: tuple[str, ...]) -> int:
    """Run ARGV (after --; a shell by default) in ROLE's jail over HEAD of DIRECTORY's thread; exit code passed on."""
    from inbounds.run.home import open_home
    from inbounds.run.visit import visit

    return visit(open_home(), directory, role, argv or ("/bin/sh",))
