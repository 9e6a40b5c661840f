"""Signed notes and checkpoints: the texts of others read, ours read by the rules, and nothing in two ways."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbounds.journal import note
from inbounds.journal.note import Checkpoint, NoteError, VerifierKey
from inbounds.journal.signing import Signer

# The example of Go's golang.org/x/mod/sumdb/note, which the C2SP specification was made from.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETERS_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETERS_NOTE = (
    PETERS_TEXT
    + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
SIGNER = Signer(bytes(range(32)))
TEXT = str(Checkpoint(note.ORIGIN + "20261120-231500-a1b2c3", 7, bytes(32)))
NOTE = SIGNER.sign(TEXT)
LINE = NOTE.split("\n")[-2]


def test_a_note_of_another_implementation_is_read_and_holds() -> None:
    key = note.parse_key(PETER)
    assert str(key) == PETER
    assert note.opened(PETERS_NOTE, key) == PETERS_TEXT
    with pytest.raises(NoteError, match="does not hold"):
        note.opened(PETERS_NOTE.replace("problem is", "problem was"), key)


def test_what_we_sign_reads_back() -> None:
    key = note.parse_key(f"{SIGNER.key}\n")
    assert key == SIGNER.key
    assert key.name.startswith("inbounds-")
    assert len(key.name) == len("inbounds-") + 16
    assert note.opened(NOTE, key) == TEXT
    assert note.parse_checkpoint(TEXT) == Checkpoint("inbounds.invalid/run/20261120-231500-a1b2c3", 7, bytes(32))
    raw = key.key_id + note.parse(NOTE).signatures[0].signature
    assert f"{TEXT}\n— {key.name} {base64.b64encode(raw).decode()}\n" == NOTE


def test_other_signatures_are_left_alone_and_ours_must_be_there_and_hold() -> None:
    other = Signer(bytes(32))
    both = NOTE + other.sign(TEXT).split("\n")[-2] + "\n"
    assert note.opened(both, SIGNER.key) == note.opened(both, other.key) == TEXT
    with pytest.raises(NoteError, match="not signed by"):
        note.opened(NOTE, other.key)
    raw = base64.b64decode(LINE.split(" ")[2])
    bent = f"— {SIGNER.name} {base64.b64encode(raw[:-1] + bytes([raw[-1] ^ 1])).decode()}"
    for changed in (NOTE.replace(LINE, bent), NOTE + bent + "\n"):
        with pytest.raises(NoteError, match="does not hold"):
            note.opened(changed, SIGNER.key)
    namesake = VerifierKey(SIGNER.name, other.key.public)  # the same name, another key: the id tells them apart
    with pytest.raises(NoteError, match="not signed by"):
        note.opened(NOTE, namesake)


@pytest.mark.parametrize(
    "changed",
    [
        "",
        TEXT,
        NOTE[:-1],
        NOTE + "\n",
        NOTE.replace("\n\n", "\n"),
        "\n" + LINE + "\n",
        NOTE.replace("—", "-"),
        NOTE.replace("— ", "—  "),
        NOTE.replace(SIGNER.name, "a+b"),
        NOTE.replace(SIGNER.name, "a\u00a0b"),
        NOTE.replace(SIGNER.name, ""),
        NOTE.replace(SIGNER.name, "x" * (note.NAME_CHARS_MAX + 1)),
        NOTE.replace("\n\n", "\r\n\r\n"),
        "\x00" + NOTE,
        "\ud800" + NOTE,
        NOTE + "text below\n",
        NOTE + (LINE + "\n") * note.SIGNATURES_MAX,
        "x" * note.NOTE_BYTES_MAX + NOTE,
        f"{TEXT}\n— name AAAA\n",  # shorter than a key's id and a signature
        f"{TEXT}\n— name AAAAAAB=\n",  # bits left over: a second form of the same bytes
        f"{TEXT}\n— name AAAAAAAA!\n",
        f"{TEXT}\n— name {'A' * 12_000}\n",
    ],
)
def test_what_is_no_note_is_refused(changed: str) -> None:
    assert note.parse(NOTE).text == TEXT
    with pytest.raises(NoteError):
        note.parse(changed)


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "origin\n7\n",
        f"origin\n7\n{ROOT}",
        f"origin\n7\n{ROOT}\nextension\n",
        f"origin\n7\n{ROOT}\n\n",
        f"\n7\n{ROOT}\n",
        f"or\tigin\n7\n{ROOT}\n",
        f"{'o' * 300}\n7\n{ROOT}\n",
        f"origin\n07\n{ROOT}\n",
        f"origin\n-7\n{ROOT}\n",
        f"origin\n7 \n{ROOT}\n",
        f"origin\n\u0667\n{ROOT}\n",
        f"origin\n9007199254740992\n{ROOT}\n",
        f"origin\n{'9' * 5000}\n{ROOT}\n",
        f"origin\n7\n{ROOT[:-1]}\n",
        f"origin\n7\n{ROOT[:-2]}B=\n",
        f"origin\n7\n{base64.b64encode(bytes(31)).decode()}\n",
        f"origin\n7\n{'A' * 20_000}\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    assert note.parse_checkpoint(f"origin\n0\n{ROOT}\n").size == 0
    with pytest.raises(NoteError):
        note.parse_checkpoint(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        PETER + "\n\n",
        PETER.upper(),
        PETER.replace("c74f20a3", "c74f20a4"),
        PETER.replace("PeterNeumann", "PeterNewmann"),
        PETER.replace("PeterNeumann", "Peter Neumann"),
        PETER.replace("+ARpc", "+AhpC"),
        PETER[:-4],
        PETER[:-1] + "X",
        "é" * 10_000,
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    assert note.parse_key(PETER).name == "PeterNeumann"
    with pytest.raises(NoteError):
        note.parse_key(text)


def test_a_key_of_another_kind_is_refused_by_name() -> None:
    raw = b"\4" + bytes(32)
    with pytest.raises(NoteError, match="not Ed25519"):
        note.parse_key(f"witness+00000000+{base64.b64encode(raw).decode()}")


@pytest.mark.parametrize("text", ["no newline", "", "a\n\n— name AAAAAAAA", "control \x07\n"])
def test_a_text_that_would_read_back_otherwise_is_not_signed(text: str) -> None:
    with pytest.raises(NoteError):
        SIGNER.sign(text)


@given(
    origin=st.text(min_size=1, max_size=60).filter(str.isprintable),
    size=st.integers(0, 2**53 - 1),
    root=st.binary(min_size=32, max_size=32),
)
def test_every_checkpoint_reads_back(origin: str, size: int, root: bytes) -> None:
    made = Checkpoint(origin, size, root)
    assert note.parse_checkpoint(note.opened(SIGNER.sign(str(made)), SIGNER.key)) == made


@given(data=st.data())
def test_no_changed_note_opens_to_another_text(data: Any) -> None:
    at = data.draw(st.integers(0, len(NOTE) - 1))
    changed = NOTE[:at] + data.draw(st.characters()) + NOTE[at + data.draw(st.integers(0, 1)) :]
    try:
        assert note.opened(changed, SIGNER.key) == TEXT
    except NoteError:
        return
