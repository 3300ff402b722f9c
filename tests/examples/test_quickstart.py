"""The quickstart shows every method with weights, and its page works in a browser without a network."""

import json
import re
import shutil
import subprocess

import pytest

from decahub.registry import METHODS

from .scripts import EXAMPLES, run


CARDS = EXAMPLES.parent / "model_cards"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chromium-browser on the path")
RELOADED_ATOL = 1e-5  # equal weights, but loaded ones are aligned otherwise in memory, which changes the kernels' sums
MIN_CONTRAST = 4.5  # WCAG 2, level AA
# Runs in the page, before anything else, and leaves what it saw in the document.
PROBE = """<script>
const errors = [];
addEventListener("error", event => errors.push(event.message || String(event.target.outerHTML).slice(0, 80)), true);
addEventListener("load", () => {
  const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const luminance = color => rgb(color).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const background = element => {
    const color = getComputedStyle(element).backgroundColor;
    return color === "rgba(0, 0, 0, 0)" && element.parentElement ? background(element.parentElement) : color;
  };
  const contrast = element => {
    const pair = [getComputedStyle(element).color, background(element)].map(luminance).sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  };
  const texts = [...document.querySelectorAll("h1, h2, p, a, dt, dd, figcaption, pre, li span, th, td")];
  const answer = document.createElement("script");
  answer.type = "application/json";
  answer.id = "probe";
  answer.textContent = JSON.stringify({
    errors,
    images: [...document.images].map(image => [image.alt, image.naturalWidth]),
    sounds: [...document.querySelectorAll("audio")].map(audio => audio.error === null),
    requests: performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith("data:")),
    paper: getComputedStyle(document.body).backgroundColor,
    lowest_contrast: Math.min(...texts.map(contrast)),
    overflow: document.documentElement.scrollWidth - innerWidth,
  });
  document.body.append(answer);
});
</script>"""


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """Folder of one short run, and what it printed."""
    folder = tmp_path_factory.mktemp("quickstart")
    return folder, run(EXAMPLES / "quickstart", "--output_dir", folder, "--max_steps", "2")


@pytest.fixture(scope="module")
def html(quickstart):
    return (quickstart[0] / "index.html").read_text()


@pytest.fixture
def look(html, tmp_path):
    """Opens the page in Chromium, by color scheme and width, and returns what the probe saw."""

    def run_chromium(scheme: str, width: int) -> dict:
        page = tmp_path / f"{scheme}-{width}.html"
        page.write_text(html.replace("<head>", "<head>" + PROBE, 1))
        dumped = subprocess.run(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--no-first-run", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
             "--virtual-time-budget=5000", f"--blink-settings=preferredColorScheme={ {'dark': 0, 'light': 1}[scheme]}",
             f"--window-size={width},900", "--enable-logging=stderr", "--dump-dom", page.as_uri()],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        seen = json.loads(re.search(r'id="probe">(.*?)</script>', dumped.stdout, re.DOTALL)[1])
        seen["console"] = [line for line in dumped.stderr.splitlines() if "CONSOLE" in line]
        return seen

    return run_chromium


def test_every_method_with_weights_has_a_panel(html):
    shown = re.findall(r'<article id="([\w-]+)"', html)
    configs = [json.loads(path.read_text()) for path in CARDS.glob("*/config.json")]
    model_types = {config["model_type"] for config in configs}
    published = {
        name for name, method in METHODS.items() if model_types & {entry.model_type for entry in method.models}
    }

    assert set(shown) == published | {"fine-tuning"}


def test_fine_tuned_model_reloads_unchanged(quickstart):
    folder, printed = quickstart

    assert float(re.search(r"difference of a logit after reloading ([\d.e+-]+)", printed)[1]) <= RELOADED_ATOL
    assert (folder / "emo-1m-handwritten-digits" / "README.md").is_file()


def test_page_needs_no_other_file(html):
    loaded = re.findall(r'<(?!a\b)\w+[^>]*\b(?:src|href|srcset|poster|data)="([^"]*)"', html)

    assert all(address.startswith("data:") for address in loaded)
    assert not re.search(r"url\(|@import", html)
    assert html.count("data:audio/wav") == 1


def test_links_lead_to_files(quickstart, html):
    targets = [target for target in re.findall(r'<a href="([^"#]+)"', html) if not target.startswith("https://")]

    missing = [target for target in targets if not (quickstart[0] / target).exists()]

    assert targets
    assert not missing


@needs_chromium
def test_page_works_in_light_and_dark(look):
    seen = {scheme: look(scheme, 1280) for scheme in ("light", "dark")}

    assert seen["light"]["paper"] != seen["dark"]["paper"]
    for page in seen.values():
        assert page["errors"] == page["console"] == page["requests"] == []
        assert page["images"]
        assert all(alt and width > 0 for alt, width in page["images"])
        assert page["sounds"] == [True]
        assert page["lowest_contrast"] >= MIN_CONTRAST


@needs_chromium
def test_page_fits_a_narrow_window(look):
    assert look("light", 500)["overflow"] <= 0
