"""`mpd_semireal`: real brains, made-up subtypes.

Controls of `abide_anatomy` are split at random into controls and pseudo-patients, and a pattern is added to frontal
and posterior features of the pseudo-patients. Noise, correlations and sites are real, and the truth is known. The
design is that of arXiv 2503.12066.
"""

import os
from typing import Any

import datasets
import numpy as np

from .abide_anatomy import FRONTAL, POSTERIOR, find_regions, find_table, list_features, read_table
from .mpd_synthetic import split_columns


def make_cohort(
    seed: int = 0,
    *,
    effect: float = 1.0,
    num_subtypes: int = 2,
    share: float = 0.6,
    overlap: float = 0.0,
    patient_share: float = 0.5,
    data_dir: str | os.PathLike | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns of a cohort, and the true subtype of each person (-1: control or between subtypes).

    Args:
        seed (`int`): Of every draw.
        effect (`float`): Distance of two subtypes in each altered feature, in standard deviations of controls.
        num_subtypes (`int`): With two, one is high in frontal and low in posterior features, the other the reverse;
            with more, each alters a random half of them.
        share (`float`): Share of pseudo-patients in the first subtype.
        overlap (`float`): Share of pseudo-patients who are left unaltered.
        patient_share (`float`): Share of the controls who become pseudo-patients.
        data_dir (`str` or path, *optional*): Directory of the datasets.

    Raises:
        FileNotFoundError: If the table is not there.
        ValueError: If a share lies outside [0, 1), or there are fewer than two subtypes.
    """
    if num_subtypes < 2:
        raise ValueError(f"`num_subtypes` must be at least 2; got {num_subtypes}.")
    for name, value in (("share", share), ("overlap", overlap), ("patient_share", patient_share)):
        if not 0 <= value < 1:
            raise ValueError(f"`{name}` must lie in [0, 1); got {value}.")
    columns = read_table(find_table(data_dir))
    is_control = columns["group"] == "control"
    columns = {name: values[is_control] for name, values in columns.items() if name != "split"}
    names = list_features(list(columns))
    features = np.stack([columns[name] for name in names], axis=1).astype(np.float64)
    generator = np.random.default_rng(seed)
    number = len(features)
    patients = generator.permutation(number)[: round(patient_share * number)]
    rest = (1 - share) / (num_subtypes - 1)
    drawn = generator.choice(num_subtypes, len(patients), p=[share] + [rest] * (num_subtypes - 1))
    drawn[generator.random(len(patients)) < overlap] = -1
    patterns = _draw_patterns(names, num_subtypes, share, generator)
    spread = features.std(0, ddof=1)
    altered = drawn >= 0
    features[patients[altered]] += effect * spread * patterns[drawn[altered]]
    columns |= dict(zip(names, features.T, strict=True))
    subtypes = np.full(number, -1)
    subtypes[patients] = drawn
    group = np.full(number, "control", dtype=object)
    group[patients] = "pseudo-patient"
    return {**columns, "group": group.astype(str)}, subtypes


def _draw_patterns(names: list[str], num_subtypes: int, share: float, generator: np.random.Generator) -> np.ndarray:
    frontal, posterior = find_regions(names, FRONTAL), find_regions(names, POSTERIOR)
    if num_subtypes == 2:
        direction = frontal.astype(float) - posterior
        return np.stack([(1 - share) * direction, -share * direction])
    signs = generator.choice([-1.0, 1.0], (num_subtypes, len(names)))
    return signs * (generator.random(signs.shape) < 0.5) * (frontal | posterior) / np.sqrt(2)


def build_dataset(data_dir: str | os.PathLike | None = None, seed: int = 0, **settings: Any) -> datasets.DatasetDict:
    """Random halves of a cohort as the splits train and test, with `subtype` as a column."""
    columns, subtypes = make_cohort(seed, data_dir=data_dir, **settings)
    return split_columns({**columns, "subtype": subtypes}, seed)


__all__ = ["build_dataset", "make_cohort"]
