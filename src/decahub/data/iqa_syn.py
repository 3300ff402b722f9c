"""`iqa_syn`: distorted versions of pristine images, with scores that full-reference metrics give ("pseudo-MOS").

Twenty distortions of five levels for each reference. Four metrics of `piq` compare each with its reference: FSIMc,
VSI, HaarPSI and -MDSI. Each is mapped to its percentile among the images of the training references, and the score is
the mean of the four percentiles, 0 to 100. It is not a score of people.

Images are made when the dataset is built and kept in the cache of `datasets`; the seed of each is in its name.
"""

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from decahub.models.shared.pixels import read_image, to_rgb

from .catalog import DATASETS
from .distortions import DISTORTIONS, NUM_LEVELS, distort


VERSION = 1  # of the recipe; another one makes other images
SIZE = (320, 384)  # height and width of the crop from the center, as far as the image reaches
METRICS = ("fsimc", "vsi", "haarpsi", "mdsi")
TEST_NUMBERS = ("03", "07", "12", "16", "20")  # of the Kodak images
TEST_STEP = 5  # of other folders every fifth image, by name, is a test image


def crop_center(image: Image.Image, size: tuple[int, int] = SIZE) -> Image.Image:
    """The center of an image, of at most `size`."""
    height, width = min(size[0], image.height), min(size[1], image.width)
    top, left = (image.height - height) // 2, (image.width - width) // 2
    return image.crop((left, top, left + width, top + height))


def find_references(folder: str | os.PathLike) -> list[Path]:
    """Image files in a folder, by name.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If two have the same name but for the suffix, which is the name of a reference.
    """
    suffixes = Image.registered_extensions()
    paths = [path for path in sorted(Path(folder).iterdir()) if path.suffix.lower() in suffixes]
    if not paths:
        raise FileNotFoundError(f"`folder` must hold pristine images; {str(folder)!r} holds none.")
    owners: dict[str, Path] = {}
    for path in paths:
        other = owners.setdefault(path.stem, path)
        if other is not path:
            raise ValueError(
                "`folder` must hold images with different names, without the suffix; got "
                f"{other.name} and {path.name}."
            )
    return paths


def split_paths(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Training and test references: by number for the Kodak images, every fifth for others and for few of Kodak."""
    is_kodak = all(path.stem.startswith("kodim") for path in paths)
    test = [path for path in paths if is_kodak and path.stem[-2:] in TEST_NUMBERS]
    if len(test) in (0, len(paths)):
        test = list(paths[::TEST_STEP])
    train = [path for path in paths if path not in test]
    if not train:
        raise ValueError(f"`folder` must hold at least 2 pristine images; got {len(paths)}.")
    return {"train": train, "test": test}


def compare(reference: Image.Image, distorted: Image.Image) -> list[float]:
    """The four full-reference metrics, the larger the better.

    Raises:
        ImportError: If `piq` is not installed.
    """
    try:
        import piq
    except ImportError as error:
        raise ImportError('The scores of iqa_syn need piq: pip install "decahub[pmt_iqa]".') from error
    first, second = (
        torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255 for image in (distorted, reference)
    )
    with torch.no_grad():
        values = (
            piq.fsim(first, second, data_range=1.0, chromatic=True),
            piq.vsi(first, second, data_range=1.0),
            piq.haarpsi(first, second, data_range=1.0),
            -piq.mdsi(first, second, data_range=1.0),
        )
    return [float(value) for value in values]


def compute_percentiles(values: np.ndarray, population: np.ndarray) -> np.ndarray:
    """Share of a population below each value, in [0, 1], linear between its members."""
    ordered = np.sort(population)
    return np.interp(values, ordered, np.linspace(0, 1, len(ordered)))


def generate_rows(paths: Sequence[str], names: Sequence[str], version: int = VERSION) -> Iterator[dict[str, Any]]:
    """Every distorted version of references, with the metrics of each.

    Args:
        paths (`Sequence[str]`): Files of the references.
        names (`Sequence[str]`): Names and hashes of all references, which the cache knows a dataset by.
        version (`int`): Of the recipe.
    """
    order = {name.rpartition(":")[0]: index for index, name in enumerate(names)}
    for path in tqdm(paths, desc="Distorting images"):
        stem = Path(path).stem
        reference = crop_center(to_rgb(read_image(path)))
        for name in DISTORTIONS:
            for level in range(1, NUM_LEVELS + 1):
                distorted = distort(reference, name, level, stem, order[stem])
                file = io.BytesIO()
                distorted.save(file, "PNG")
                yield {
                    "image": {"bytes": file.getvalue(), "path": f"{stem}_{name}_{level}.png"},
                    "name": f"{stem}_{name}_{level}.png",
                    "reference": stem,
                    "source": name,
                    "level": level,
                    "metrics": compare(reference, distorted),
                }


def build_from_folder(folder: str | os.PathLike) -> datasets.DatasetDict:
    """The dataset of any folder of pristine images.

    Args:
        folder (`str` or path): Holds the images, at least 24 pixels a side; those larger than 384 x 320 are cropped.

    Returns:
        `datasets.DatasetDict` with the splits `train` and `test`, whose references differ; columns `image`, `score`
        (0 to 100, larger is better), `name`, `reference`, `source` (the distortion), `level` (1 to 5) and `metrics`.
    """
    parts = split_paths(find_references(folder))
    known = [f"{path.stem}:{_hash(path)}" for path in find_references(folder)]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "name": datasets.Value("string"),
            "reference": datasets.Value("string"),
            "source": datasets.Value("string"),
            "level": datasets.Value("int64"),
            "metrics": datasets.List(datasets.Value("float64"), length=len(METRICS)),
        }
    )
    splits = {
        split: datasets.Dataset.from_generator(
            generate_rows,
            features=features,
            # Tuples: `datasets` would divide lists among processes.
            gen_kwargs={"paths": tuple(map(str, paths)), "names": tuple(known), "version": VERSION},
        )
        for split, paths in parts.items()
    }
    return add_scores(splits)


def add_scores(splits: Mapping[str, datasets.Dataset]) -> datasets.DatasetDict:
    """The splits with the column `score`, from their column `metrics` and those of the training split."""
    population = np.array(splits["train"]["metrics"][:])
    scored = datasets.DatasetDict()
    for split, rows in splits.items():
        values = np.array(rows["metrics"][:])
        shares = [compute_percentiles(values[:, index], population[:, index]) for index in range(len(METRICS))]
        scored[split] = rows.add_column("score", 100 * np.mean(shares, axis=0))
    return scored


def build_dataset(data_dir: str | os.PathLike | None = None) -> datasets.DatasetDict:
    """`iqa_syn` of the 24 Kodak images in `<data_dir>/iqa_pristine/kodak24`.

    Raises:
        FileNotFoundError: If they are not there.
    """
    directory = data_dir or os.environ.get("DECAHUB_DATA_DIR")
    entry = DATASETS["iqa_syn"]
    folder = Path(directory or ".", entry.folder, "kodak24")
    if not directory or not folder.is_dir():
        raise FileNotFoundError(
            f"`{entry.name}` needs the Kodak images in {folder}. Set `--data-dir` or $DECAHUB_DATA_DIR to a directory "
            f"that holds {entry.folder}/kodak24. Source of the images: {entry.homepage}"
        )
    return build_from_folder(folder)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


__all__ = ["build_dataset", "build_from_folder", "compare", "compute_percentiles", "find_references"]
