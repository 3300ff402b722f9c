"""The site of the documentation builds without warnings, covers the tables of the package, and needs no network."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from decahub.cli.main import COMMANDS
from decahub.registry import METHODS, PUBLIC_NAMES


pytest.importorskip("mkdocstrings", reason="needs the extra `docs`")

ROOT = Path(__file__).parents[3]
LOADING_ATTRIBUTES = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert result.returncode == 0, result.stdout + result.stderr
    return folder


class RequestFinder(HTMLParser):
    """Collects what a browser would load at once from other hosts."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        target = dict(attrs).get(LOADING_ATTRIBUTES.get(tag, ""), "") or ""
        if re.match(r"(https?:)?//", target) and dict(attrs).get("rel") != "canonical":
            self.found.append(target)


def test_every_ready_method_has_its_public_names(site):
    for method in METHODS.values():
        if method.is_ready:
            text = (site / f"api/models/{method.name}.html").read_text(encoding="utf-8")
            names = [name for name, module in PUBLIC_NAMES.items() if f".models.{method.name}." in module]
            assert names
            assert [name for name in names if f'id="{PUBLIC_NAMES[name]}.{name}"' not in text] == []


def test_every_command_is_described(site):
    text = (site / "api/command_line.html").read_text(encoding="utf-8")

    assert [name for name in COMMANDS if f'id="decahub-{name}"' not in text] == []


def test_pages_load_nothing_from_other_hosts(site):
    requests = RequestFinder()

    for path in site.rglob("*.html"):
        requests.feed(path.read_text(encoding="utf-8"))

    assert requests.found == []
