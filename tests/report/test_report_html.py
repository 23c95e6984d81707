import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from slipstream.report.html import write_report
from tests.report.sample_runs import config_of, sample_lines, sample_runs, write_folder


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write_report(sample_runs(folder / "runs"), folder / "out")


class Links(HTMLParser):
    """Collects everything a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]


def test_the_page_is_self_contained(report):
    text = report.read_text()
    links = Links(text)
    assert len(links.found) >= 12  # six pictures, light and dark
    assert all(link.startswith("data:") for link in links.found)
    assert "script" not in links.tags
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_shows_the_numbers_of_the_runs(report):
    ends, parents = [], []
    for seed in range(3):
        lines = sample_lines(seed)
        switch = next(line["step"] for line in lines if line.get("event") == "switch")
        evals = [line for line in lines if "eval/transformer/return" in line]
        ends.append(evals[-1]["eval/transformer/return"])
        before = [line for line in lines if "eval/accelerator/return" in line]
        parents.append(
            [line["eval/accelerator/return"] for line in before if line["step"] <= switch][-1]
        )
    text = report.read_text()
    assert f"{np.mean(ends):,.0f} against {np.mean(parents):,.0f} at the switch" in text
    for value in (*ends, *parents):
        assert f"{value:,.0f}" in text
    assert "<dd>60,000</dd>" in text
    assert "28,000 to 32,000 accelerate + 28,000 to 32,000 online" in text
    assert "<dd>160,000</dd>" in text  # evaluation steps
    assert "Seed 0 switched to the transformer at step 28,000" in text
    assert "matched: clone 0.97 and 0.96" in text
    assert "Seed 1 went back to its best snapshot at step 44,000" in text
    assert "d_model: 64" in text
    assert "2.13.0" in text
    assert re.search(r"slipstream evaluate \S*seed2-20260101-120000", text)


def test_the_pictures_lie_beside_the_page_and_show_something(report):
    pictures = sorted((report.parent / "figures").glob("*.png"))
    names = [path.stem for path in pictures if not path.stem.endswith("-dark")]
    assert names == [
        "clone-error",
        "learning-steps",
        "learning-time",
        "q-values",
        "times",
        "training-returns",
    ]
    for path in pictures:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
        assert pixels.shape[1] >= 1000
        assert pixels.std() > 5


def test_several_methods_are_compared(tmp_path):
    paths = []
    for preset, stages in (("default", ["accelerate", "online"]), ("scratch", ["online"])):
        for seed in range(2):
            lines = [
                {
                    key: value
                    for key, value in line.items()
                    if not key.startswith(("train", "time", "rollout", "clone"))
                }
                for line in sample_lines(seed, tuple(stages), peak=5500 if preset[0] == "d" else 90)
            ]
            config = config_of(seed, preset=preset, stages=stages)
            paths.append(write_folder(tmp_path / preset / str(seed), config, lines))
    page = write_report(paths, tmp_path / "compared.html")
    text = page.read_text()
    assert "default (two stages) ended highest" in text
    assert text.count('<section id="group-') == 2
    assert (tmp_path / "compared_figures" / "halfcheetah-v5-comparison-steps.png").exists()
    assert (tmp_path / "compared_figures" / "2-learning-steps.png").exists()
    assert not (tmp_path / "compared_figures" / "2-clone-error.png").exists()


def test_names_from_a_run_folder_are_no_markup(tmp_path):
    evil = "</style><script>alert(1)</script>$\\frac{$"
    lines = [
        {"step": 0, "stage": "accelerate", "eval/transformer/return": 1.0},
        {"step": 9, "stage": "accelerate", "event": "switch", "reason": evil},
        {"step": 10, "stage": "online", "eval/transformer/return": 2.0},
    ]
    config = config_of(0, env_id=evil, preset=evil, total_steps=10) | {"seed": evil}
    folder = write_folder(tmp_path / "a b; rm", config, lines)
    (folder / "versions.json").write_text(json.dumps({evil: evil}))
    text = write_report([folder], tmp_path / "out").read_text()
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4
    assert "slipstream evaluate &#39;" in text  # a path with spaces is quoted for the shell


def test_the_report_never_imports_torch():
    code = "import sys, slipstream.report.html; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium found; scripts/install-system-packages installs it"
)
PROBE = """<script>
addEventListener("load", () => {
  const images = [...document.images].map(i => [i.naturalWidth, i.clientWidth]);
  const fetched = performance.getEntriesByType("resource").map(e => e.name.slice(0, 20));
  const wide = document.documentElement.scrollWidth;
  document.title = JSON.stringify({images, fetched, wide, inner: innerWidth});
});
</script>"""


def browse(tmp_path, page, *options, size="1280,1600"):
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={size}",
        *options,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@needs_chromium
def test_a_browser_draws_the_page(report, tmp_path):
    screenshot = tmp_path / "page.png"
    browse(tmp_path, report, f"--screenshot={screenshot}")
    with Image.open(screenshot) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[:2] == (1600, 1280)
    # Both actors' curve colours are on the page: the pictures are drawn, not only the text.
    for colour in ((213, 94, 0), (0, 114, 178)):
        assert (abs(pixels - np.array(colour)).max(axis=2) < 12).sum() > 500


@needs_chromium
@pytest.mark.parametrize("size", ["1280,1600", "600,900"])
def test_every_picture_loads_and_nothing_is_fetched(report, tmp_path, size):
    # The page forbids scripts; the probe goes into a copy without that rule.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report.read_text())
    probed = tmp_path / "probed.html"
    probed.write_text(text.replace("</body>", PROBE + "</body>"))
    dom = browse(tmp_path, probed, "--dump-dom", size=size)
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    seen = json.loads(title.group(1))
    assert len(seen["images"]) == 6
    assert all(natural >= 1000 and shown > 200 for natural, shown in seen["images"])
    assert all(name.startswith("data:") for name in seen["fetched"])
    assert seen["wide"] <= seen["inner"]  # no sideways scrolling of the page
