"""What a supervisor looks at, without the run around it: a person's word is not lost between its file and the journal."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inbounds.contracts.bound import Contract
from inbounds.contracts.limits import CEILING
from inbounds.kernel.state import State
from inbounds.run import requests
from inbounds.run.crew import Crew
from inbounds.run.observing import Observer
from inbounds.store.store import Store


class Journal:
    """Takes what is handed in; `disk` says when it is there."""

    def __init__(self) -> None:
        self.handed: list[tuple[str, dict[str, Any]]] = []
        self.disk: list[SimpleNamespace] = []

    def hand_in(self, kind: str, data: Mapping[str, Any]) -> Any:
        self.handed.append((kind, dict(data)))
        self.disk.append(SimpleNamespace(kept=False, is_set=lambda: True))
        return self.disk[-1]


def observer(run_dir: Path, journal: Journal) -> Observer:
    contract = SimpleNamespace(encode=lambda: b"{}", conducted=lambda: SimpleNamespace(snapshot_every_ms=10**9))
    (run_dir / "contract.json").write_bytes(b"{}")
    return Observer(
        run_dir, cast("Contract", contract), cast("Store", None), cast("Crew", None), post=lambda *_: None,
        hand_in=journal.hand_in, state=State, limits=lambda: CEILING, volume=lambda: None,
        jobs=lambda: run_dir, now_ms=lambda: 1,
    )  # fmt: skip


def test_a_request_stays_until_the_journal_holds_it_and_is_handed_in_once(tmp_path: Path) -> None:
    journal = Journal()
    seen = observer(tmp_path, journal)
    requests.ask_stop(tmp_path, who="dana", why="enough", hold=(7, "record"), incident_id="i")
    seen.look()
    seen.look()
    assert [data["why"] for _, data in journal.handed] == ["enough"]
    assert "hold" not in journal.handed[0][1]
    assert seen.hold == (7, "record")
    # what a supervisor that is killed now leaves is found by the next one
    assert requests.find_stop(tmp_path) is not None
    second = Journal()
    observer(tmp_path, second).look()
    assert len(second.handed) == 1
    journal.disk[0].kept = True
    seen.look()
    assert requests.find_stop(tmp_path) is None
    assert len(journal.handed) == 1


def test_a_word_that_takes_anothers_place_is_heard_too(tmp_path: Path) -> None:
    journal = Journal()
    seen = observer(tmp_path, journal)
    requests.ask_stop(tmp_path, who="dana", why="one")
    seen.look()
    requests.ask_stop(tmp_path, who="eli", why="two", incident=True)
    journal.disk[0].kept = True
    seen.look()
    assert [data["why"] for _, data in journal.handed] == ["one", "two"]
    journal.disk[1].kept = True
    seen.look()
    assert requests.find_stop(tmp_path) is None


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_what_cannot_be_read_or_removed_is_one_stop_and_not_one_a_look(tmp_path: Path, kind: str) -> None:
    journal = Journal()
    seen = observer(tmp_path, journal)
    if kind == "directory":
        (tmp_path / requests.STOP).mkdir()
    else:
        (tmp_path / "elsewhere").write_text("{}")
        (tmp_path / requests.STOP).symlink_to(tmp_path / "elsewhere")
    for _ in range(4):
        seen.look()
        for written in journal.disk:
            written.kept = True
    assert [data["who"] for _, data in journal.handed] == ["unknown"]
