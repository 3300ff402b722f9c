"""`import decahub` is cheap, and its names are there for people and for type checkers."""

import ast
import re
from pathlib import Path

import pytest

import decahub
from decahub.registry import PUBLIC_NAMES


SECONDS_OF_IMPORT = 0.3
RUNS = 7  # the best of them counts: a busy machine slows a process, nothing speeds it up
HEAVY = (
    "accelerate",
    "datasets",
    "evaluate",
    "huggingface_hub",
    "numpy",
    "PIL",
    "torch",
    "torchvision",
    "transformers",
)

TIME_IMPORT = """
import time
start = time.perf_counter()
import decahub
print(time.perf_counter() - start)
"""
LIST_MODULES = "import sys, decahub; decahub.METHODS; dir(decahub); print(*sys.modules)"


def test_import_is_quick(run_python):
    best = min(float(run_python(TIME_IMPORT)) for _ in range(RUNS))

    assert best <= SECONDS_OF_IMPORT


def test_import_loads_no_heavy_library(run_python):
    loaded = run_python(LIST_MODULES).split()

    assert not {name.partition(".")[0] for name in loaded}.intersection(HEAVY)
    assert not [name for name in loaded if name.startswith("decahub.models.")]


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_public_name_resolves(name):
    value = getattr(decahub, name)

    assert value.__name__ == name
    assert value.__module__.startswith(PUBLIC_NAMES[name])


def test_all_and_dir_list_the_public_names():
    assert set(decahub.__all__) == {"METHODS", "__version__", *PUBLIC_NAMES}
    assert set(decahub.__all__) <= set(dir(decahub))


def test_type_checkers_see_what_resolves_at_run_time():
    tree = ast.parse(Path(decahub.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))

    declared = {alias.name: node.module for node in block.body for alias in node.names}

    assert ast.unparse(block.test) == "TYPE_CHECKING"
    # Auto classes of new tasks are made from the table of tasks.
    assert declared == {name: module for name, module in PUBLIC_NAMES.items() if module != "decahub.auto"}


def test_misspelled_name_is_answered_with_the_nearest():
    with pytest.raises(AttributeError, match=r"no attribute 'EmoBackbon'\. Did you mean 'EmoBackbone'\?"):
        decahub.EmoBackbon  # noqa: B018


def test_far_off_name_is_refused_without_a_guess():
    with pytest.raises(AttributeError, match=r"no attribute 'xyzzy'\.$"):
        decahub.xyzzy  # noqa: B018


def test_citation_names_this_version():
    citation = (Path(__file__).parents[3] / "CITATION.cff").read_text(encoding="utf-8")

    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == decahub.__version__
