"""`abide_anatomy`: brain measures of people with autism and controls at 34 sites, for tests and plots only.

The table is read from a user's own copy. Its terms are non-commercial; weights that were fitted on it share them.
"""

import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from .catalog import DATASETS


SPLITS = ("discovery", "heldout_subject", "external_site")
SUBCORTICAL = ("Thalamus-Proper", "Caudate", "Putamen", "Pallidum", "Hippocampus", "Amygdala")
TOTALS = ("WhiteSurfArea", "MeanThickness")  # sums over the regions, which would count twice
GOOD_QUALITY = (1, 2)
HEAD_SIZE = "eTIV"
FRONTAL = (
    "caudalmiddlefrontal", "lateralorbitofrontal", "medialorbitofrontal", "parsopercularis", "parsorbitalis",
    "parstriangularis", "rostralmiddlefrontal", "superiorfrontal", "frontalpole",
)  # fmt: skip
POSTERIOR = (
    "cuneus", "inferiorparietal", "lateraloccipital", "lingual", "pericalcarine", "precuneus", "superiorparietal",
)  # fmt: skip


def list_features(names: list[str]) -> list[str]:
    """Regional thickness and area and the main subcortical volumes; totals, which add these up, are left out."""
    regional = [
        name for name in names if name.endswith(("_area", "_thickness")) and not any(total in name for total in TOTALS)
    ]
    return regional + [f"{side}-{part}" for side in ("Left", "Right") for part in SUBCORTICAL]


def find_regions(names: list[str], regions: tuple[str, ...]) -> np.ndarray:
    """Which features belong to some regions, as a mask."""
    return np.array([len(parts := name.split("_")) == 3 and parts[1] in regions for name in names])


def read_table(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Columns of the parquet file with good image quality: `id`, `split`, `group`, covariates and features."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    columns: dict[str, Any] = {name: table.column(name).to_numpy() for name in table.column_names}
    kept = np.isin(columns["anatomy_qc"], GOOD_QUALITY)
    columns = {name: values[kept] for name, values in columns.items()}
    columns["group"] = np.where(columns.pop("asd") == 1, "autism", "control")
    columns["site"] = np.array([f"site-{site}" for site in columns["site"]])
    features = list_features(table.column_names)
    further = ["id", "split", "group", "age", "sex", "site", "mean_fd", "anatomy_qc", HEAD_SIZE]
    return {name: columns[name] for name in [*further, *features]}


def build_dataset(data_dir: str | os.PathLike | None = None) -> datasets.DatasetDict:
    """The splits `discovery`, `heldout_subject` and `external_site` of `<data_dir>/abide_anatomy`.

    Raises:
        FileNotFoundError: If the table is not there.
    """
    columns = read_table(find_table(data_dir))
    splits = columns.pop("split")
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict(
                {name: values[splits == split].tolist() for name, values in columns.items()}
            )
            for split in SPLITS
        }
    )


def find_table(data_dir: str | os.PathLike | None = None) -> Path:
    """The file in the directory of the datasets."""
    entry = DATASETS["abide_anatomy"]
    directory = data_dir or os.environ.get("DECAHUB_DATA_DIR")
    path = Path(directory or ".", entry.folder, "abide_anatomy.parquet")
    if not directory or not path.is_file():
        raise FileNotFoundError(
            f"`{entry.name}` was not found; tried {path}. Set `--data-dir` or $DECAHUB_DATA_DIR to a directory that "
            f"holds {entry.folder}/abide_anatomy.parquet. Source of the data: {entry.homepage}"
        )
    return path


__all__ = ["FRONTAL", "POSTERIOR", "build_dataset", "find_regions", "find_table", "list_features", "read_table"]
