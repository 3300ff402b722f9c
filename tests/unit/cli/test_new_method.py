"""`decahub new-method` writes a method whose tests pass at once, and refuses names and folders before it writes."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import decahub
from decahub.cli.main import main
from decahub.cli.new_method import add_method, add_names
from decahub.registry import METHODS, list_new_auto_classes


ROOT = Path(__file__).parents[3]
NEEDED = ("src", "conversion", "examples", "pyproject.toml", "tests/conftest.py", "tests/conformance")
FURTHER = ("tests/parity/golden.py", "tests/parity/__init__.py", "tests/unit/package", "tests/examples/scripts.py")
WORDS = {
    "NewMethod": "MyNet",
    "new_method": "my_net",
    "NEW_TITLE": repr('My "Net"'),
    "NEW_ARXIV": repr("2301.00001"),
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkout")
    for path in (*NEEDED, *FURTHER):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, root / path)
    words = ["--title", 'My Net: "A" Network', "--arxiv", "2301.00001", "--root", str(root)]
    assert main(["new-method", "my_net", *words]) == 0
    return root


def run(checkout, *words):
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    done = subprocess.run(
        [sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


PLANNED = """        Method(
            name="planned_net",
            title="Planned",
            arxiv="2301.00002",
            summary="Nothing yet.",
            tasks=("image-classification",),
            extra="planned_net",
        ),
"""


@pytest.mark.parametrize(("name", "title"), [("my_net", 'My "Net"'), ("planned_net", "Planned")])
def test_table_gets_a_new_method_and_completes_a_planned_one(name, title):
    after = {"__name__": "decahub.registry"}
    text = (ROOT / "src/decahub/registry.py").read_text(encoding="utf-8")
    first = '        Method(\n            name="emo",'
    assert text.count(first) == 1
    text = text.replace(first, PLANNED + first)

    exec(add_method(text, name, {**WORDS, "new_method": name}), after)

    method = after["METHODS"][name]
    assert method.is_ready
    assert method.title == title
    assert list(after["METHODS"]) == list(dict.fromkeys(["planned_net", *METHODS, name]))
    assert after["PUBLIC_NAMES"]["MyNetConfig"] == f"decahub.models.{name}.configuration_{name}"


def test_package_exports_the_new_names():
    text = add_names((ROOT / "src/decahub/__init__.py").read_text(encoding="utf-8"), WORDS)

    names, computed, _ = text.partition("__all__ = ")[2].rpartition("    *list_new_auto_classes(),\n]\n")
    exported = ast.literal_eval(f"{names}]")
    added = {
        f"MyNet{part}" for part in ("Config", "ForImageClassification", "ImageProcessor", "ImageProcessorPil", "Model")
    }
    assert computed
    assert set(exported) == {*decahub.__all__, *added}.difference(list_new_auto_classes())
    assert exported == sorted(exported)
    assert "from decahub.models.my_net.configuration_my_net import MyNetConfig" in text


def test_its_tests_pass(checkout):
    output = run(
        checkout,
        *("-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"),
        *("tests/unit/my_net", "tests/parity/test_my_net.py", "tests/conformance/test_my_net.py"),
    )

    assert " passed" in output
    assert "failed" not in output.replace("failed 0", "")


def test_its_files_are_clean(checkout):
    pytest.importorskip("ruff")
    run(checkout, "-m", "ruff", "check", ".")
    run(checkout, "-m", "ruff", "format", "--check", ".")


def test_its_example_writes_a_folder_that_loads(checkout):
    words = ("my_net/digits", "--max_steps", "2", "--max_eval_samples", "20")

    output = run(checkout, "examples/my_net/train.py", *words)

    assert "Saved to runs/my_net-digits/model" in output
    assert (checkout / "runs/my_net-digits/model/README.md").is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("emo", "`name` must be that of a new method; 'emo' is ready"),
        ("MyNet", "`name` must be words in lower case joined by underscores; got 'MyNet'"),
        ("class", "`name` must be words in lower case joined by underscores; got 'class'"),
        ("my_net", "No file may exist yet; got conversion/convert_my_net.py"),
    ],
)
def test_refuses_name(checkout, name, message, capsys):
    assert main(["new-method", name, "--root", str(checkout)]) == 2

    assert message in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["My-Net", "7Net", "class", "", "myNet", "_Net"])
def test_refuses_a_prefix_that_is_no_name(checkout, prefix, capsys):
    before = (checkout / "src/decahub/__init__.py").read_text()

    assert main(["new-method", "other_net", "--prefix", prefix, "--root", str(checkout)]) == 2

    assert f"`--prefix` must be a name of a class, such as MyNet; got {prefix!r}." in capsys.readouterr().err
    assert (checkout / "src/decahub/__init__.py").read_text() == before


def test_a_write_that_fails_leaves_the_checkout_as_it_was(checkout, monkeypatch):
    before = (checkout / "src/decahub/__init__.py").read_text()
    write, written = Path.write_text, []

    def fill_the_disk(self, *arguments, **options):
        written.append(self)
        if len(written) == 4:
            raise OSError("no space left on device")
        return write(self, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", fill_the_disk)
    assert main(["new-method", "other_net", "--root", str(checkout)]) == 2

    assert (checkout / "src/decahub/__init__.py").read_text() == before
    assert not [path for path in checkout.rglob("*other_net*") if path.is_file()]


@pytest.mark.parametrize(
    ("prefix", "name"), [("Emo", "EmoConfig"), ("Bert", "BertConfig"), ("PreTrained", "PreTrainedConfig")]
)
def test_refuses_a_prefix_that_is_taken(checkout, prefix, name, capsys):
    before = (checkout / "src/decahub/registry.py").read_text()

    assert main(["new-method", "other_net", "--prefix", prefix, "--root", str(checkout)]) == 2

    assert f"names that decahub and transformers do not have yet; {prefix!r} gives {name}." in capsys.readouterr().err
    assert (checkout / "src/decahub/registry.py").read_text() == before


def test_refuses_a_folder_that_is_no_checkout(tmp_path, capsys):
    assert main(["new-method", "my_net", "--root", str(tmp_path)]) == 2

    assert "`--root` must be a checkout of decahub" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
