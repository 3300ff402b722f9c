"""The machinery itself: fetching the suites, naming skips, counting outcomes."""

import ast
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import transformers

from . import suites
from .report import MARK, Tally


REPOSITORY = Path(__file__).parents[2]
MODULE = "def from_archive():\n    return True\n"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a source distribution that needs no download."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DECAHUB_SUITES_DIR", raising=False)
    archive = tmp_path / "source.tar.gz"
    root = f"transformers-{transformers.__version__}"
    with tarfile.open(archive, "w:gz") as tar:
        for name in (
            f"{root}/tests/test_modeling_common.py",
            f"{root}/tests/data/notes.txt",
            f"{root}/tests/deep/test_deep.py",
            f"{root}/src/tests/test_other.py",
            f"{root}/tests/../escaped.py",
        ):
            member = tarfile.TarInfo(name)
            member.size = len(MODULE)
            tar.addfile(member, io.BytesIO(MODULE.encode()))
    monkeypatch.setattr(suites, "_download_archive", lambda folder: archive)
    suites.find_suites.cache_clear()
    yield tmp_path / "cache"
    suites.find_suites.cache_clear()


def list_files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_builds_only_the_suites_and_the_stand_ins(cache):
    found = suites.find_suites()

    assert found.folder == cache / "decahub" / f"transformers-{transformers.__version__}"
    expected = {"DONE", "utils/image.png", "hf_suites/test_modeling_common.py", *suites.STAND_INS}
    assert list_files(found.folder) == expected
    assert list_files(cache / "decahub") == {f"{found.folder.name}/{name}" for name in expected}  # no scratch is left


def test_second_use_takes_the_cache(cache, monkeypatch):
    suites.find_suites()
    suites.find_suites.cache_clear()
    monkeypatch.setattr(suites, "_download_archive", lambda folder: pytest.fail("downloaded again"))

    assert suites.find_suites().folder is not None


@pytest.mark.parametrize("mark", [None, "of another version of suites.py"], ids=["interrupted", "outdated"])
def test_folder_without_the_right_mark_is_built_anew(cache, mark):
    folder = suites.get_cache_folder()
    folder.mkdir(parents=True)
    (folder / "leftover.py").write_text("")
    if mark:
        (folder / "DONE").write_text(mark)

    suites.find_suites()

    assert suites.is_complete(folder)
    assert "leftover.py" not in list_files(folder)


def test_a_build_that_breaks_leaves_nothing_and_gives_the_cause(cache, monkeypatch):
    def fail():
        raise OSError("no space left on device")

    monkeypatch.setattr(suites, "draw_image", fail)

    found = suites.find_suites()

    assert found.folder is None
    assert "no space left on device" in found.reason
    assert list_files(cache) == set()


def test_archive_without_suites_is_refused(cache, tmp_path, monkeypatch):
    empty = tmp_path / "empty.tar.gz"
    tarfile.open(empty, "w:gz").close()
    monkeypatch.setattr(suites, "_download_archive", lambda folder: empty)

    assert "empty.tar.gz holds no tests/test_modeling_common.py" in suites.find_suites().reason


def test_another_process_may_be_faster(cache):
    suites.build_suites(suites.get_cache_folder())

    suites.build_suites(suites.get_cache_folder())  # its copy stands; ours is dropped

    assert suites.is_complete(suites.get_cache_folder())


def test_ready_folder_is_used_as_it_is(cache, tmp_path, monkeypatch):
    (tmp_path / "ready" / "hf_suites").mkdir(parents=True)
    (tmp_path / "ready" / "hf_suites" / "test_modeling_common.py").write_text(
        "@pytest.mark.odd_test\n@mark.even_test\n"
    )
    monkeypatch.setenv("DECAHUB_SUITES_DIR", str(tmp_path / "ready"))

    assert suites.find_suites().folder == tmp_path / "ready"
    assert suites.find_marks() == {"odd_test", "even_test"}


def test_wrong_ready_folder_is_named(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("DECAHUB_SUITES_DIR", str(tmp_path))

    found = suites.find_suites()

    assert found.folder is None
    assert f"`DECAHUB_SUITES_DIR` must name a folder that holds hf_suites/; got {str(tmp_path)!r}" in found.reason


def test_without_the_suites_modules_skip_with_the_cause(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("DECAHUB_SUITES_DIR", str(tmp_path))

    with pytest.raises(pytest.skip.Exception, match=f"{suites.NOT_RUN}: `DECAHUB_SUITES_DIR` must name") as skip:
        suites.load_suite("test_modeling_common")

    assert skip.value.allow_module_level


def test_image_is_smooth_and_colored():
    pixels = np.array(suites.draw_image()).astype(float)

    assert pixels.shape == (480, 640, 3)
    assert max(np.abs(np.diff(pixels, axis=axis)).max() for axis in (0, 1)) < 8
    assert min(pixels[..., channel].std() for channel in range(3)) > 20


# Skips


def find_skips() -> list[tuple[str, str]]:
    """`(file, test in its place)` of every `OurSkip` in this folder."""
    found = []
    for file in sorted(set(Path(__file__).parent.glob("test_*.py")) - {Path(__file__)}):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "OurSkip":
                found.append((file.name, _read_text(node.args[1], constants)))
    return found


def _read_text(node: ast.expr, constants: dict[str, ast.expr]) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_read_text(part, constants) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _read_text(node.value, constants)
    if isinstance(node, ast.Name):
        return _read_text(constants[node.id], constants)
    return ast.literal_eval(node)


@pytest.mark.parametrize(("file", "instead"), find_skips())
def test_every_skip_has_a_test_of_ours_in_its_place(file, instead):
    path, _, name = instead.partition("::")

    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))

    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_skip_of_a_test_that_the_suites_lack_is_refused():
    from .harness import FeatureExtractorConformance, OurSkip

    with pytest.raises(AttributeError, match=r"`Stale.skips` must name tests of the suites; got 'test_gone'"):

        class Stale(FeatureExtractorConformance):
            skips = {"test_gone": OurSkip("It is gone.", "nowhere.py::test_it")}


# The report


def build_report(test: str, outcome: str, when: str = "call", reason: str | None = None, subtest: bool = False):
    report = pytest.TestReport(
        nodeid=test,
        location=(test, 0, test),
        keywords={},
        outcome=outcome,
        longrepr=("file.py", 1, f"Skipped: {reason}") if reason else None,
        when=when,
        user_properties=[(MARK, "SomeTest")],
    )
    if subtest:
        report.context = None
    return report


class Terminal:
    """Stands in for pytest's reporter."""

    def __init__(self):
        self.lines = []

    def section(self, title, **markup):
        self.lines.append(title)

    def write_line(self, line):
        self.lines.append(line)


def test_run_without_the_suites_says_so_loudly():
    tally, terminal = Tally("ours: ", suites.NOT_RUN), Terminal()
    cause = f"{suites.NOT_RUN}: no route to the registry"
    for module in ("test_one.py", "test_two.py"):
        location = (module, 1, f"Skipped: {cause}")
        tally.pytest_collectreport(pytest.CollectReport(module, "skipped", location, []))
    tally.pytest_collectreport(pytest.CollectReport("test_three.py", "skipped", ("x", 1, "Skipped: no scipy"), []))

    tally.pytest_terminal_summary(terminal)

    assert terminal.lines == ["CONFORMANCE NOT RUN", cause]


def test_tally_counts_each_test_once_by_its_worst_outcome():
    tally = Tally("ours: ", "not run")
    for report in (
        build_report("a", "passed", "setup"),
        build_report("a", "passed"),
        build_report("a", "passed", "teardown"),
        build_report("b", "passed", subtest=True),
        build_report("b", "failed", subtest=True),
        build_report("b", "passed"),
        build_report("c", "skipped", "setup", reason="no accelerator"),
        build_report("d", "skipped", reason="ours: It wants text. Instead: x.py::test_y"),
        build_report("e", "passed"),
        build_report("e", "failed", "teardown"),
        build_report("f", "failed", "setup"),
    ):
        tally.pytest_runtest_logreport(report)
    elsewhere = build_report("g", "failed")
    elsewhere.user_properties = []
    tally.pytest_runtest_logreport(elsewhere)

    summary = tally.summarize()

    assert (summary["run"], summary["passed"], summary["failed"]) == (4, 1, 3)
    assert summary["our_skips"] == {"d": "It wants text. Instead: x.py::test_y"}
    assert summary["library_skips"] == {"no accelerator": 1}
    assert (summary["skipped_by_us"], summary["skipped_by_the_library"]) == (1, 1)
    assert summary["subtests"] == {"passed": 1, "failed": 1}
