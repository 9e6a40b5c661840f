"""What leaves the machine: credentials are found wherever they stand, and what is none is left as it is."""

import html
import json

import betterleaks
import pytest

from inbounds.contracts.errors import HostError
from inbounds.export import redact

TOKEN = "ghp_" + "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5"
AWS = "AKIA" + "QWERTYUIOPASDF23"
BEARER = "b3BlbnNlc2FtZQ.b3BlbnNlc2FtZQ-zz"


def values(text: str) -> set[str]:
    return {secret.value for secret in redact.find(text)}


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"token = '{TOKEN}'\n", TOKEN),
        (f"token = '{TOKEN}'  # gitleaks:allow\n", TOKEN),
        (f"\0\0token = '{TOKEN}'\n", TOKEN),
        (f"key {AWS} is mine\n", AWS),
        (f"\udcff token = '{TOKEN}'\n", TOKEN),
        (f'headers = {{"Authorization": "Bearer {BEARER}"}}\n', BEARER),
    ],
)
def test_credentials_are_found_whatever_stands_beside_them(text: str, secret: str) -> None:
    assert values(text) == {secret}
    told, counts = redact.replaced(text, redact.find(text))
    assert secret not in told
    assert sum(counts.values()) == 1


def test_ordinary_text_stays_as_it_is() -> None:
    text = "def total(lines):\n    return sum(line.amount for line in lines)\n"
    assert redact.find(text) == ()
    assert redact.replaced(text, ()) == (text, {})


def test_a_text_of_many_blocks_is_scanned_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "BLOCK_CHARS", 4_000)
    filler = [f"line {n} of a long file" for n in range(2_000)]
    for at in (0, 700, 1_999):
        lines = [*filler]
        lines[at] = f"token = '{TOKEN}'"
        (found,) = redact.find("\n".join(lines))
        assert (found.value, found.line) == (TOKEN, at + 1)


def test_a_key_of_many_lines_is_found_across_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "BLOCK_CHARS", 4_000)
    body = [("Ab3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5zB7" * 2)[:64] for _ in range(26)]
    key = ["-----BEGIN RSA " + "PRIVATE KEY-----", *body, "-----END RSA " + "PRIVATE KEY-----"]
    lines = [*["x = 1"] * 580, *key, *["x = 1"] * 100]
    assert any("PRIVATE KEY" in secret.value for secret in redact.find("\n".join(lines)))


def test_strings_of_json_are_scanned_as_what_they_stand_for() -> None:
    lines = [json.dumps({"n": n, "text": "a\nb"}) for n in range(50)]
    lines[31] = json.dumps({"text": 'first\n\ttoken = "' + TOKEN + '"\nlast'})
    found = redact.find_in_lines_of_json("\n".join(lines) + "\n")
    assert {(secret.line, secret.value) for secret in found} == {(32, TOKEN)}


def test_every_form_of_a_secret_is_replaced() -> None:
    odd = "pa\"ss<&>wo'rd\\more"
    secret = redact.Secret("test", 1, odd)
    text = "\n".join([odd, html.escape(odd), json.dumps(odd)])
    told, counts = redact.replaced(text, [secret])
    assert counts == {"test": 3}
    assert "wo" not in told


def test_a_secret_within_another_leaves_no_rest() -> None:
    long, short = redact.Secret("a", 1, "abcdefghij-klmnop"), redact.Secret("b", 1, "abcdefghij")
    assert redact.replaced("x abcdefghij-klmnop y", [short, long])[0] == f"x [redacted a {long.mark}] y"


def test_values_of_json_are_replaced_in_place() -> None:
    value = {"k": [TOKEN, 1, None, {"x": f"a {TOKEN}"}]}
    told = redact.replaced_in(value, redact.find(f"token = {TOKEN}\n"))
    assert TOKEN not in json.dumps(told)
    assert told["k"][1:3] == [1, None]


def test_a_secret_shows_itself_nowhere() -> None:
    (secret,) = redact.find(f"token = '{TOKEN}'\n")
    assert TOKEN not in repr(secret)
    assert TOKEN[4:12] not in secret.mark


@pytest.mark.parametrize("fault", ["blind", "broken"])
def test_a_scanner_that_sees_nothing_is_no_scanner(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def scan(_: str) -> list[object]:
        if fault == "broken":
            raise betterleaks.BetterleaksError("no library")
        return []

    monkeypatch.setattr(betterleaks, "scan_string", scan)
    with pytest.raises(HostError, match="secret scanner"):
        redact.find("x = 1\n")
