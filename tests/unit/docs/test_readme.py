"""The README: one screen, and its example prints what it says."""

import contextlib
import io
import re
from pathlib import Path

import pytest


PROJECT = Path(__file__).parents[3]
MAX_LINES = 80


@pytest.fixture(scope="module")
def readme():
    return (PROJECT / "README.md").read_text(encoding="utf-8")


def test_is_one_screen(readme):
    assert len(readme.splitlines()) <= MAX_LINES


def test_example_prints_what_the_readme_shows(readme, monkeypatch):
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    monkeypatch.chdir(PROJECT)
    output = io.StringIO()

    with contextlib.redirect_stdout(output):
        exec(code, {})

    assert output.getvalue().strip() == re.search(r"# prints (.*)", code)[1]


def test_links_lead_to_files(readme):
    targets = re.findall(r"\]\(((?!https?://)[^)#]+)", readme)

    assert [target for target in targets if not (PROJECT / target).exists()] == []
