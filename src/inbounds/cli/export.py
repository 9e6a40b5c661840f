"""`inbounds export`: a run's evidence for somebody else, as one file that verifies elsewhere, or as traces."""

import json
from pathlib import Path
from typing import Any

import click

from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds export                              the latest run, as inbounds-RUN.tar.gz
  inbounds export RUN -o audit.tar.gz
  inbounds export RUN --otlp http://127.0.0.1:4318
  inbounds export RUN --otlp-file run.otlp.jsonl

Whoever gets the bundle unpacks it and types inbounds verify --dir DIR, or runs the
script in it with Python alone. Secrets are replaced in diff and report. Evidence that
holds one is refused, as it verifies only unchanged: revoke the secret, then --force.

Exit code: 0 written or sent, 1 refused and why."""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False),
              help="The bundle's file (default: inbounds-RUN.tar.gz here); never overwritten.")  # fmt: skip
@click.option("--otlp", "url", metavar="URL", help="POST OpenTelemetry traces to a collector instead (OTLP/HTTP).")
@click.option("--otlp-file", type=click.Path(path_type=Path, dir_okay=False),
              help="Write the traces to a file instead, one OTLP/JSON request a line.")  # fmt: skip
@click.option("--force", is_flag=True, help="Pack evidence although it holds what looks like a secret.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(
    run: str | None, output: Path | None, url: str | None, otlp_file: Path | None, force: bool, as_json: bool
) -> int:
    """Pack the evidence of RUN (the latest by default) for an audit, or send its traces to a collector.

    With --otlp or --otlp-file a bundle is made only if -o asks for one, too.
    """
    from inbounds.contracts.errors import EXIT_KEPT
    from inbounds.export import send
    from inbounds.run import exporting
    from inbounds.run.home import open_home

    address = send.endpoint(url) if url else ""
    home = open_home()
    run_id = home.find(run)
    facts: dict[str, Any] = {"run_id": run_id}
    if output or not (url or otlp_file):
        path = output or Path(f"inbounds-{run_id}.tar.gz")
        facts["bundle"] = exporting.write(exporting.collect(home, run_id, force=force), path)
        if not as_json:
            _told(facts["bundle"])
    if url or otlp_file:
        requests = list(exporting.traces(home, run_id))
        if otlp_file:
            facts["otlp_file"] = _written(otlp_file, requests)
        if url:
            facts["otlp"] = {"url": address, "requests": send.post(address, requests)}
        spans = sum(len(scope["spans"]) for request in requests for scope in request["resourceSpans"][0]["scopeSpans"])
        facts["spans"] = spans
        if not as_json:
            say(f"{spans} spans: {' and '.join(str(place) for place in (otlp_file, address) if place)}")
    if as_json:
        emit(facts)
    return EXIT_KEPT


def _told(made: dict[str, Any]) -> None:
    say(f"{made['file']}: {len(made['members'])} members, {made['bytes']} bytes, {made['state']}")
    say(f"SHA-256 {made['sha256']}")
    for name, counts in made["redacted"].items():
        say(f"redacted in {name}: {', '.join(f'{times} {rule}' for rule, times in sorted(counts.items()))}")
    if made["secrets_in_evidence"]["count"]:
        say(f"IN THE EVIDENCE, unchanged: {made['secrets_in_evidence']['count']} credential(s) by their form")
    for name, why in sorted(made["missing"].items()):
        say(f"not in it: {name}: {why}")


def _written(path: Path, requests: list[dict[str, Any]]) -> str:
    from inbounds.contracts.errors import OperatorError

    try:
        with path.open("x", encoding="utf-8") as file:
            for request in requests:
                file.write(json.dumps(request, separators=(",", ":")) + "\n")
    except FileExistsError:
        raise OperatorError("there is a file of this name", where=str(path), expected="a new file") from None
    except OSError as error:
        raise OperatorError(f"the traces cannot be written: {error.strerror}", where=str(path)) from error
    return str(path)
