"""transformers' own test suites, of the installed version, taken from its source distribution.

    python -m tests.conformance.suites          # fetch them once; `make install` does so

Nothing of them is kept in this repository. They land in `$XDG_CACHE_HOME/decahub/transformers-<version>/` (without
that variable under `~/.cache`); `DECAHUB_SUITES_DIR` names a ready folder instead, for a machine that reaches no
package registry:

    hf_suites/                           the suites, in a package whose name is not `tests`, and stand-ins for what the
                                         source distribution lacks
    utils/fetch_hub_objects_for_ci.py    answers the suites' wish for images from the Hub with a drawn one
    DONE                                 written last, names this file's content: a folder without it is built anew
"""

import functools
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import transformers
from PIL import Image


PACKAGE = "hf_suites"
DOWNLOAD_SECONDS = 900  # 5 on a quiet machine; pip itself gives a registry up long before this
NOT_RUN = "transformers' test suites could not be had"  # begins the reason of every skip for that cause
OUR_SKIP = "skipped by decahub: "  # begins the reason of every skip that is ours

FETCH_STAND_IN = '''"""Instead of fetching an image from the Hub, name the drawn one beside this file."""

from pathlib import Path


def url_to_local_path(url, *args, **kwargs):
    return str(Path(__file__).with_name("image.png")) if url.endswith((".jpg", ".png")) else url
'''

# What a config must take in common with all others; the values differ from the defaults.
COMMON_ARGUMENTS_STAND_IN = """config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "chunk_size_feed_forward": 3,
    "dtype": "float16",
    "architectures": ["SomeModel"],
    "id2label": {0: "drum", 1: "bass"},
    "label2id": {"drum": 0, "bass": 1},
    "problem_type": "multi_label_classification",
}
"""

STAND_INS = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/exporters/__init__.py": "",
    f"{PACKAGE}/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    f"{PACKAGE}/generation/__init__.py": "",
    f"{PACKAGE}/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    f"{PACKAGE}/utils/__init__.py": "",
    f"{PACKAGE}/utils/test_configuration_utils.py": COMMON_ARGUMENTS_STAND_IN,
    "utils/fetch_hub_objects_for_ci.py": FETCH_STAND_IN,
}


@dataclass(frozen=True)
class Suites:
    """Where the suites are, or why they are not: `folder` is `None` exactly if `reason` is given."""

    folder: Path | None
    reason: str = ""


def get_cache_folder() -> Path:
    """The folder that holds, or will hold, the suites of the installed transformers."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "decahub" / f"transformers-{transformers.__version__}"


def is_complete(folder: Path) -> bool:
    """Whether `folder` was laid out to its end, and by this very version of this file."""
    mark = folder / "DONE"
    return mark.is_file() and mark.read_text(encoding="utf-8") == _compute_mark()


@functools.cache
def find_suites() -> Suites:
    """The suites of the installed transformers: the folder that the user named, else the cache, else a download."""
    named = os.environ.get("DECAHUB_SUITES_DIR")
    if named:
        if (Path(named) / PACKAGE / "test_modeling_common.py").is_file():
            return Suites(Path(named))
        return Suites(None, f"`DECAHUB_SUITES_DIR` must name a folder that holds {PACKAGE}/; got {named!r}")
    folder = get_cache_folder()
    if is_complete(folder):
        return Suites(folder)
    try:
        build_suites(folder)
    except (OSError, subprocess.SubprocessError, tarfile.TarError) as error:
        return Suites(None, f"transformers=={transformers.__version__} was not downloaded: {_describe(error)}")
    return Suites(folder)


def build_suites(folder: Path) -> None:
    """Download the source distribution and lay its suites out in `folder`, which appears only when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".suites-", dir=folder.parent) as scratch:
        archive = _download_archive(Path(scratch))
        draft = Path(scratch) / "draft"
        _unpack_suites(archive, draft / PACKAGE)
        for name, text in STAND_INS.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_text(text, encoding="utf-8")
        draw_image().save(draft / "utils" / "image.png")
        (draft / "DONE").write_text(_compute_mark(), encoding="utf-8")
        _move_into_place(draft, folder)


def draw_image() -> Image.Image:
    """A smooth colored image: like a photo, and unlike noise, any good resampling leaves it nearly the same."""
    rows, columns = np.mgrid[0:480, 0:640] / 480
    waves = [np.sin(9 * rows + 4 * columns), np.cos(7 * columns - 3 * rows), np.sin(5 * rows * columns + 1)]
    return Image.fromarray(np.uint8(128 + 100 * np.stack(waves, axis=-1)))


def load_suite(name: str) -> ModuleType:
    """Import one module of the suites, e.g. `"test_modeling_common"`; skips the calling test module without them."""
    suites = find_suites()
    if suites.folder is None:
        pytest.skip(f"{NOT_RUN}: {suites.reason}", allow_module_level=True)
    if str(suites.folder) not in sys.path:
        sys.path.append(str(suites.folder))
    return importlib.import_module(f"{PACKAGE}.{name}")


def find_marks() -> set[str]:
    """Names of the pytest marks that the suites use; a strict pytest wants each to be known."""
    suites = find_suites()
    files = sorted((suites.folder / PACKAGE).glob("*.py")) if suites.folder else []
    return {mark for file in files for mark in re.findall(r"@(?:pytest\.)?mark\.(\w+)", file.read_text("utf-8"))}


def _download_archive(folder: Path) -> Path:
    """pip checks the archive's hash; `--no-build-isolation` spares a second environment for reading its name."""
    requirement = f"transformers=={transformers.__version__}"
    options = ["--no-deps", "--no-binary", "transformers", "--no-build-isolation", "--quiet", "--retries", "1"]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", requirement, *options, "--dest", str(folder)],
        check=True,
        capture_output=True,
        text=True,
        timeout=DOWNLOAD_SECONDS,
    )
    archives = list(folder.glob("transformers-*.tar.gz"))
    if not archives:
        raise FileNotFoundError(f"pip brought no source distribution of {requirement}")
    return archives[0]


def _unpack_suites(archive: Path, folder: Path) -> None:
    """Copy `<root>/tests/*.py`; only base names are used, so that no member can leave `folder`."""
    folder.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if member.isfile() and len(parts) == 3 and parts[1] == "tests" and parts[2].endswith(".py"):
                (folder / parts[2]).write_bytes(tar.extractfile(member).read())
    if not (folder / "test_modeling_common.py").is_file():
        raise FileNotFoundError(f"{archive.name} holds no tests/test_modeling_common.py")


def _move_into_place(draft: Path, folder: Path) -> None:
    if folder.exists() and not is_complete(folder):
        shutil.rmtree(folder)
    try:
        os.replace(draft, folder)
    except OSError:
        if not is_complete(folder):  # else another process was faster: its copy is as good
            raise


def _compute_mark() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _describe(error: Exception) -> str:
    lines = (getattr(error, "stderr", None) or "").strip().splitlines()
    return lines[-1] if lines else str(error)


def main() -> None:
    suites = find_suites()
    if suites.folder is None:
        print(f"{NOT_RUN}: {suites.reason}. The conformance tests will skip.", file=sys.stderr)
    else:
        print(f"transformers' test suites are in {suites.folder}")


if __name__ == "__main__":
    main()
