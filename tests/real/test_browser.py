"""The report in a real browser: it fits, it can be read in light and in dark, it prints, and it asks for nothing."""

from __future__ import annotations

import html as markup
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from matrix.report import html, page
from tests.story import contradicted
from tests.test_report import WHOLE, material

pytestmark = pytest.mark.browser

_PROBE = """
<script>
const rgb = (text) => text.match(/[0-9.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (node) => { while (node) { const c = rgb(getComputedStyle(node).backgroundColor);
  if (c.length < 4 || c[3] > 0) return c; node = node.parentElement; } return [255, 255, 255]; };
const contrast = (node) => { const [a, b] = [light(rgb(getComputedStyle(node).color)), light(behind(node))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
const shown = [...document.querySelectorAll("p, h1, h2, h3, td, th, .mark, .note, figcaption, pre")]
  .filter((node) => node.getBoundingClientRect().width > 0);
const found = { wide: document.documentElement.scrollWidth, window: innerWidth, marks: document.querySelectorAll(".mark").length,
  paper: getComputedStyle(document.body).backgroundColor, contrast: Math.min(...shown.map(contrast)),
  hidden: [...document.querySelectorAll(".mark")].filter((node) => node.getBoundingClientRect().width === 0).length,
  fetched: performance.getEntriesByType("resource").map((entry) => entry.name),
  plots: [...document.querySelectorAll("svg")].map((node) => node.getBoundingClientRect().height) };
document.body.innerHTML = "<output></output>"; document.querySelector("output").textContent = JSON.stringify(found);
</script>
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on disk."""
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(html.render(page.build(material([WHOLE]))), encoding="utf-8")
    return path


def browse(path: Path, *options: str) -> str:
    """What headless Chromium prints when it opens `path`."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "MATRIX_REQUIRE asks for a browser: install chromium"
    always = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [program, *always, profile, *options, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


def probed(written: Path, *options: str) -> dict[str, Any]:
    """What a script finds in the page: a copy of it, for the page itself forbids scripts."""
    copy = written.with_name("probed.html")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", written.read_text(encoding="utf-8"))
    copy.write_text(text.replace("</body>", f"{_PROBE}</body>"), encoding="utf-8")
    told = re.search(r"<output>(.*)</output>", browse(copy, "--dump-dom", *options), re.DOTALL)
    assert told
    found: dict[str, Any] = json.loads(markup.unescape(told[1]))
    return found


def test_a_page_of_doubts_and_signatures_fits_its_window(tmp_path: Path) -> None:
    """Three targets, a contradiction, a revocation, a waiver: long reasons wrap, and can be read."""
    story, names = contradicted(tmp_path)
    story.revoked(names[2], "TF32 was on: its products were rounded")
    story.waived("mps-*", "nobody ships from a Mac before the next release")
    path = tmp_path / "index.html"
    path.write_text(html.render(page.build(story.material())), encoding="utf-8")
    found = probed(path, "--window-size=1240,1000")
    assert found["wide"] <= found["window"]
    assert (found["hidden"], found["fetched"]) == (0, [])
    assert found["contrast"] >= 4.5


@pytest.mark.parametrize("width", [1240, 800])
def test_the_page_fits_its_window(written: Path, width: int) -> None:
    """Nothing but a table's own box scrolls sideways; every badge and every plot has a size; nothing is fetched."""
    found = probed(written, f"--window-size={width},1000")
    assert found["wide"] <= found["window"]
    assert found["marks"] > 100
    assert found["hidden"] == 0
    assert len(found["plots"]) == 3
    assert min(found["plots"]) > 50
    assert found["fetched"] == []


@pytest.mark.parametrize(("scheme", "paper"), [(1, "rgb(255, 255, 255)"), (0, "rgb(13, 17, 23)")])
def test_text_can_be_read_in_light_and_in_dark(written: Path, scheme: int, paper: str) -> None:
    """At least 4.5 to 1 everywhere (WCAG 2.2, 1.4.3)."""
    found = probed(written, f"--blink-settings=preferredColorScheme={scheme}")
    assert found["paper"] == paper
    assert found["contrast"] >= 4.5


def test_it_prints(written: Path) -> None:
    """A PDF of a few pages."""
    out = written.with_name("page.pdf")
    browse(written, f"--print-to-pdf={out}", "--no-pdf-header-footer")
    pdf = out.read_bytes()
    assert pdf.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20
