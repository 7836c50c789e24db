"""The report as a browser sees it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from run_folder import EXAMPLES, write_run

from transduce.report import write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed"),
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --enable-logging=stderr"
)


def browse(path: Path, *more: str) -> tuple[str, list[str], list[str]]:
    """Open a page; return its DOM, its console messages and the addresses it asked for."""
    assert CHROMIUM
    log = path.parent / "net.json"
    profile = path.parent / "profile"
    shutil.rmtree(profile, ignore_errors=True)
    own = [f"--user-data-dir={profile}", f"--log-net-log={log}"]
    none = "--host-resolver-rules=MAP * ~NOTFOUND"
    done = subprocess.run(
        [CHROMIUM, *FLAGS.split(), *own, none, "--dump-dom", *more, path.as_uri()],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    events = [event.get("params", {}) for event in json.loads(log.read_bytes())["events"]]
    asked = [e["url"] for e in events if "file://" in str(e.get("network_isolation_key"))]
    console = [row for row in done.stderr.decode().split("\n") if "CONSOLE" in row]
    return done.stdout.decode(), console, [url for url in asked if not url.startswith("file:")]


def test_in_a_browser(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://example.invalid/a'><script>console.error('oops')</script>")
    _, console, asked = browse(bad)
    assert "oops" in console[0]  # so an error would be seen,
    assert asked  # and so would a request

    report = write(write_run(tmp_path / "run"))
    dom, console, asked = browse(report)
    assert console == []
    assert asked == []
    assert re.findall(r'<section id="(\w+)"', dom) == [
        "scores", "training", "predictions", "attention", "data", "configuration", "environment",
    ]  # fmt: skip
    assert EXAMPLES[4][1][0] in dom


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_the_screen(tmp_path: Path, width: int) -> None:
    """In a frame of that width, since a window cannot be narrower than 500 pixels."""
    page = write(write_run(tmp_path / "run")).read_text(encoding="utf-8")
    page = re.sub("<meta http-equiv.*?>", "", page).replace("<details", "<details open")
    tell = "parent.postMessage(`${innerWidth} ${document.documentElement.scrollWidth}`, '*')"
    page = page.replace("</body>", f"<script>{tell}</script></body>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<!DOCTYPE html><script>onmessage = event => { document.title = event.data }</script>"
        f'<iframe src="page.html" width="{width}" height="4000" style="border:0"></iframe>'
    )
    picture = tmp_path / "picture.png"
    dom, _, _ = browse(frame, "--window-size=1300,4000", f"--screenshot={picture}")
    assert f"<title>{width} {width}</title>" in dom
    assert picture.stat().st_size > 20_000
