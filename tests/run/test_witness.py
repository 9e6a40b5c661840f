"""Checkpoints at their outside witnesses: stamped by a real authority, kept beside the anchors, asked by verify."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_timestamp import Authority, answer

from inbounds.cli.witnesses import of_stamps
from inbounds.contracts.errors import OperatorError
from inbounds.journal.anchor import Anchor
from inbounds.journal.signing import open_signer
from inbounds.journal.writer import Journal
from inbounds.run.witness import STAMPS, Witness


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tsa", "one")


@pytest.fixture
def url(authority: Authority) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer(self, authority.reply(self.rfile.read(int(self.headers["Content-Length"]))))

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.mark.req("H14")
def test_a_stamped_checkpoint_is_an_anchor_and_a_changed_one_is_refused(
    authority: Authority, url: str, tmp_path: Path
) -> None:
    stamps, ca = tmp_path / f"run{STAMPS}", authority.at / "ca.pem"
    assert of_stamps(stamps, ca) == [], "nothing was stamped"
    witness = Witness(lambda: None, stamps, url, str(ca))
    made: list[Anchor] = []

    def kept(anchor: Anchor) -> None:
        made.append(anchor)
        witness.take(anchor)

    with Journal.open(
        tmp_path / "j" / "journal.jsonl", signer=open_signer(tmp_path / "keys"), on_anchor=kept
    ) as journal:
        journal.append("run.accepted", {"run_id": "x"})
        journal.append("run.finished", {"code": "DONE", "exit": 0})
    witness.end()
    found = of_stamps(stamps, ca)
    assert [(one.seq, one.hash, one.note) for one in found] == [(one.seq, one.hash, one.note) for one in made]
    assert len(found) == 2
    lines = stamps.read_text().splitlines()
    first, second = (json.loads(line) for line in lines)
    stamps.write_text(json.dumps({**first, "stamp": second["stamp"]}) + "\n")
    with pytest.raises(OperatorError, match="does not hold"):
        of_stamps(stamps, ca)


def test_a_witness_that_does_not_answer_holds_nothing_up(authority: Authority, tmp_path: Path) -> None:
    stamps = tmp_path / f"run{STAMPS}"
    witness = Witness(lambda: None, stamps, "http://127.0.0.1:9/", str(authority.at / "ca.pem"))
    witness.take(Anchor(1, "a" * 64, "", 1, "b" * 64, "a note\n"))
    witness.end()
    (line,) = stamps.read_text().splitlines()
    assert json.loads(line)["stamp"]["why"]
    assert of_stamps(stamps, authority.at / "ca.pem") == []
