"""Phrases that prose, docstrings and messages avoid, with what to write; single words are in docs/words.txt."""

import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[3]
FOLDERS = ("src", "docs", "examples", "conversion", "tests", "benchmarks")
SUFFIXES = {".py", ".md", ".yaml"}
PHRASES = {
    r"data[ -]sets?\b": "dataset",
    r"of one's own": "your own, a user's own",
    r"\bso many\b(?! that)": "this many, how many",
    r"which is none": "does not exist, is not a ...",
    r"must be said|is told\b": "requires, gets",
    r"\bhands? out\b": "yields, returns",
    r"\bstands? in (the|its|their|docs|`)": "is in",
    r"proven equal": "checked against",
    r"Who knows|who knows": "if you know",
}
GENERATED = {Path("docs/results.md")}  # from JSON that runs wrote


def find_files():
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    paths += list(ROOT.glob("*.md"))
    names = [path.relative_to(ROOT) for path in paths if path != Path(__file__)]
    return [name for name in names if name not in GENERATED and "fixtures" not in name.parts]


@pytest.mark.parametrize(("phrase", "instead"), PHRASES.items(), ids=PHRASES.values())
def test_phrase_is_not_used(phrase, instead):
    pattern = re.compile(phrase)

    found = [
        f"{name}:{number}: {line.strip()}"
        for name in find_files()
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]

    assert not found, f"Write {instead}:\n" + "\n".join(found)
