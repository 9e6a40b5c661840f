"""The page: whole, self-contained, honest, and deaf to whatever an agent wrote."""

import copy
import re
import shutil
import stat
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import evidence
import pytest

from inbounds.console import diff, report
from inbounds.contracts.reasons import MEANING, StopCode

HOSTILE = "x\x1b[2J\x1b]8;;http://evil\x07\u202e\u200b<script>alert(1)</script><img src=//evil onerror=alert(1)>\"'\ny"
PATCH = """diff --git a/billing/src/rounding.py b/billing/src/rounding.py
index 111..222 100644
--- a/billing/src/rounding.py
+++ b/billing/src/rounding.py
@@ -1,3 +1,4 @@
 import decimal
-old = 1
+new = "\x1b[31m</div><script>alert(1)</script>\u202e"
+other = 2
 end
"""


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def made(run: Path) -> Page:
    report.render(run)
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open, "every element is closed"
    return page


def stopped(code: str, why: str, disposal: str) -> list[tuple[str, dict[str, Any]]]:
    done = [
        step
        for step in evidence.good_run()
        if step[0] not in ("promotion.decided", "run.finished", "stop.step", "stop.decided")
    ]
    return [*done, *evidence.stop(code, why, disposal), ("run.finished", {"code": code, "exit": 1})]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made = evidence.write(tmp_path, evidence.good_run())
    (made / "diff.patch").write_text(PATCH)
    return made


@pytest.mark.req("Q1", "Q2")
def test_the_page_says_what_changed_why_what_it_cost_and_what_was_refused(run: Path) -> None:
    words = made(run).words()
    for expected in (
        "Done, and on development",
        f"inbounds rollback {evidence.RUN_ID}",
        "git fetch /srv/store.git agent/billing/round-half-up",
        "5 → 0",
        "$0.246 of $5.00",
        "none but the metered gateway (127.0.0.1:8100 inside), which asks api.anthropic.com",
        "Invoice totals are rounded half up to the cent.",
        "billing/tests/test_round.py::test_half_up",
        "billing/src/rounding.py",
        "pypi.org",
        "unknown model",
        "cgroup memory",
        "absent: no delegated cgroup",
        "Untrusted.",
        f"inbounds verify {evidence.RUN_ID}",
        "no progress",
    ):
        assert expected in words, expected
    assert words.index("Done, and on") < words.index("What it could touch") < words.index("What was asked")


def test_the_file_is_private_and_rendering_is_repeatable(run: Path) -> None:
    made(run)
    first = (run / "report.html").read_bytes()
    made(run)
    assert (run / "report.html").read_bytes() == first
    assert stat.S_IMODE((run / "report.html").stat().st_mode) == 0o600
    assert not list(run.glob(".report-*"))


def test_nothing_is_loaded_from_anywhere(run: Path) -> None:
    page = made(run)
    policy = next(a for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert str(policy["content"]).startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert not {t for t, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"}
    for _, attributes in page.tags:
        assert not {k for k in attributes if k.startswith("on") or k in ("src", "href", "action", "srcdoc")}
    assert "url(" not in (run / "report.html").read_text()


def poisoned() -> list[tuple[str, dict[str, Any]]]:
    """Hostile text in every string that an agent, a model or a repository can influence."""
    steps = copy.deepcopy(evidence.good_run())
    for kind, data in steps:
        if kind == "agent.said":
            data["text"] = HOSTILE
        elif kind == "denial":
            data["detail"] = HOSTILE
        elif kind == "model.usage":
            data.update(model=HOSTILE, host=HOSTILE)
        elif kind == "model.refused":
            data.update(reason=HOSTILE, model=HOSTILE)
        elif kind == "tool.called":
            data["tool"] = HOSTILE
        elif kind == "snapshot.taken":
            data["why"] = HOSTILE
            data["changes"].append(
                {"status": "R", "path": HOSTILE, "old_path": HOSTILE, "old_mode": HOSTILE, "new_mode": HOSTILE}
            )
            data["complete"] = False
        elif kind == "verdict":
            data.update(summary=HOSTILE, judge=HOSTILE)
            data["findings"] = [{"rule": HOSTILE, "severity": HOSTILE, "path": HOSTILE, "message": HOSTILE, "line": 3}]
        elif kind == "iteration.finished":
            data["newly_passing"] = [HOSTILE]
        elif kind == "promotion.decided":
            data["reasons"] = [HOSTILE]
        elif kind == "stop.decided":
            data["why"] = HOSTILE
        elif kind == "run.accepted":
            data["versions"][HOSTILE] = HOSTILE
    return steps


@pytest.mark.without("visible-text")
def test_hostile_text_is_shown_and_never_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    if os.environ.get("INBOUNDS_TEST_WITHOUT") == "visible-text":
        monkeypatch.setattr(report, "visible", lambda text, **_: text)
    run = evidence.write(tmp_path, poisoned())
    (run / "diff.patch").write_text(PATCH.replace("rounding.py", "ro\x1b[2J\u202e<b>.py"))
    page = made(run)
    raw = (run / "report.html").read_text(encoding="utf-8")
    for char in ("\x1b", "\x07", "\u202e", "\u200b"):
        assert char not in raw
    assert not {t for t, _ in page.tags} & {"script", "img"}
    assert not [a for _, a in page.tags if "onerror" in a]
    assert "\\x1b[2J" in raw
    assert "\\u202e" in raw
    assert raw.count("&lt;script&gt;") > 15


@pytest.mark.parametrize("code", list(StopCode))
def test_every_stop_code_has_a_headline_and_a_next_command(tmp_path: Path, code: StopCode) -> None:
    disposal, meaning = MEANING[code]
    words = made(evidence.write(tmp_path, stopped(code, "because", disposal))).words()
    assert code in words
    assert f"inbounds {'review' if code is StopCode.DONE else 'logs'} {evidence.RUN_ID}" in words
    if code is not StopCode.DONE:
        assert f"Stopped: {meaning}" in words
        assert f"inbounds resume {evidence.RUN_ID}" in words


def test_a_refused_promotion_is_a_decision_and_not_a_success(tmp_path: Path) -> None:
    steps = evidence.good_run()
    next(d for k, d in steps if k == "promotion.decided").update(outcome="refused", reasons=["coverage fell by 3 %"])
    words = made(evidence.write(tmp_path, steps)).words()
    assert "Done, but the gate did not let it onto development" in words
    assert "Coverage fell by 3 %." in words


@pytest.mark.parametrize("length", [0, 1, 3, 8, 20, 50])
def test_a_failed_night_has_an_honest_page(tmp_path: Path, length: int) -> None:
    words = made(evidence.write(tmp_path, evidence.good_run()[:length])).words()
    assert "This run has not ended" in words or length == 50
    assert "The evidence of this run does not hold" in words


def test_a_run_that_ended_before_its_first_iteration_says_where_it_started(tmp_path: Path) -> None:
    steps = [*evidence.good_run()[:4], *evidence.stop("STOP_OPERATOR", "Dana: enough", "revert")]
    words = made(evidence.write(tmp_path, [*steps, ("run.finished", {"code": "STOP_OPERATOR", "exit": 1})])).words()
    assert "5 at the start" in words
    assert "No iteration finished." in words


def test_a_tampered_journal_puts_an_alarm_on_top(run: Path) -> None:
    path = run / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"cost_micro_usd":41000', b'"cost_micro_usd":40000', 1))
    words = made(run).words()
    assert words.index("does not hold") < words.index("has not ended")
    assert "edited" in words


def test_a_changed_contract_is_not_shown_as_what_was_asked(run: Path) -> None:
    path = run / "contract.json"
    path.write_bytes(path.read_bytes().replace(b"half up to the cent", b"any way you like it"))
    words = made(run).words()
    assert "any way you like" not in words
    assert "The contract that the run accepted is not at hand." in words


def test_pictures_have_words_and_stay_within_their_frame(run: Path) -> None:
    page = made(run)
    said = [a["aria-label"] for t, a in page.tags if t == "svg"]
    assert said[0] == "Failing tests: before the start 5, iteration 1 3, iteration 2 3, iteration 3 0."
    assert "$0.246" in str(said[1])
    for tag, attributes in page.tags:
        if tag == "rect":
            assert 0 <= int(str(attributes["x"])) <= 340 - int(str(attributes["width"]))
            assert 0 <= int(str(attributes["y"])) <= 190


def test_hundreds_of_iterations_still_make_a_picture(tmp_path: Path) -> None:
    steps = evidence.good_run()[:4]
    for n in range(1, 300):
        steps += [
            ("iteration.started", {"n": n}),
            (
                "iteration.finished",
                {
                    "n": n,
                    "failing_before": 300 - n,
                    "failing_after": 299 - n,
                    "progress": True,
                    "score": 1,
                    "newly_passing": [],
                },
            ),
        ]
    page = made(evidence.write(tmp_path, steps))
    assert 20 < len([t for t, _ in page.tags if t == "rect"]) <= 42


def test_a_huge_diff_is_cut_and_says_so(run: Path) -> None:
    (run / "diff.patch").write_text(PATCH + "".join(f"+line {n}\n" for n in range(50_000)))
    words = made(run).words()
    assert "more lines are not shown" in words
    assert "+50002" in words
    assert (run / "report.html").stat().st_size < 1_000_000


def test_content_cannot_pose_as_a_header() -> None:
    text = b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1,3 @@\n same\n--- a/fake\n+++ b/fake\n+form\x0cfeed\n"
    found = diff.parse(text)
    assert [file.name for file in found.files] == ["x"]
    assert (found.added, found.removed) == (2, 1)
    assert found.files[0].lines[-1].text == "form\x0cfeed"


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xfe\x00", b"diff --git \n@@ \n", b"diff --git a/b b/b\n@@ -x +y @@\n+z", b"\n" * 100]
)
def test_a_diff_that_is_none_breaks_nothing(raw: bytes) -> None:
    diff.parse(raw)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_without_a_sideways_scroll(run: Path, tmp_path: Path, width: int) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    report.render(run)
    # Scripts are forbidden by the page's own policy, so the measuring is done in a frame around a copy without it.
    copy_ = tmp_path / "page.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", (run / "report.html").read_text())
    measure = "<script>onload=()=>{document.title='WIDE '+(document.documentElement.scrollWidth-innerWidth)}</script>"
    frame = "<script>onload=()=>{const d=f.contentDocument;document.title='OVER '+(d.documentElement.scrollWidth-f.clientWidth)}</script>"
    copy_.write_text(text.replace("</body>", measure + "</body>"))
    (tmp_path / "frame.html").write_text(
        f"<iframe id=f src=page.html style='width:{width}px;height:900px;border:0'></iframe>{frame}"
    )
    argv = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path}/profile",
        "--dump-dom",
        f"file://{tmp_path}/frame.html",
    ]
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    over = re.search(r"<title>OVER (-?\d+)</title>", done.stdout)
    if over is None:
        pytest.skip(f"this browser does not run here: {done.stderr[-200:]}")
    assert int(over[1]) <= 0
