"""`mpd_synthetic`: cohorts of patients and controls whose subtypes, or their absence, are known.

A feature is 1 + 0.2 (0.45 t g + F L + 0.5 u + e + effects of age, sex and site): a person's score t times a pattern g
that is positive in frontal and negative in posterior features, eight factors F with loadings L, a level u of the whole
person, and noise e. Controls have t ~ N(0, 1). The kind of a cohort says what scores patients have; two thirds of the
kinds have no subtypes, and are there to be mistaken for such.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np


GAPS = {"easy": 5.0, "medium": 3.5, "hard": 2.5}
"""Distance of the two centers of the score, in standard deviations within a subtype."""
DIAGNOSES, DIAGNOSIS_SHARES = ("SZ", "BD", "MDD"), (0.33, 0.29, 0.38)
CONTROL = "control"
FEATURE_PATTERNS = ("frontal_*", "posterior_*", "other_*")
NUM_FACTORS, FACTOR_SPREADS = 8, (0.5, 0.15)
EFFECT, SCALE, LEVEL_SPREAD = 0.45, 0.2, 0.5
AGE_RANGE, AGE_CENTER, AGE_UNIT = (15.0, 55.0), 35.0, 12.0
COVARIATE_SPREAD, SITE_SPREAD = 0.25, 0.4
ARC_RADIUS, ARC_JITTER, ARC_LOADING, ARC_NOISE = 2.0, 0.15, 0.6, 0.7
SKEW = (1.5, 1.6)  # shape and scale of a gamma distribution
SEVERITY_EFFECT = 0.4
KINDS = (
    "subtypes", "null", "gaussian_continuum", "uniform_continuum", "skew_continuum", "site_artifact",
    "diagnosis_clusters", "nonlinear", "product", "saturating",
)  # fmt: skip
CURVED = ("nonlinear", "product", "saturating")
WITHOUT_SUBTYPES = ("null", "gaussian_continuum", "uniform_continuum", "skew_continuum", "site_artifact")
"""Kinds in which no discrete subtypes of patients exist."""


@dataclass(frozen=True)
class CohortSettings:
    """How a cohort is made.

    Args:
        kind: One of `KINDS`.
        gap: Distance of the centers of two subtypes, in standard deviations within a subtype; or "easy", "medium" or
            "hard".
        num_controls: Number of controls.
        num_patients: Number of patients.
        num_features: Number of features; 30 % are frontal, 30 % posterior.
        num_sites: Number of sites.
        num_subtypes: Of the kind "subtypes"; with more than two each has a pattern of its own.
        share: Share of the patients in the largest subtype.
        net_shift: What the scores of all patients are raised by.
        overlap: Share of patients halfway between the subtypes.
        missing: Share of values that are missing.
        clinical_effect: Standardized difference of severity between subtypes.
    """

    kind: str = "subtypes"
    gap: float | str = "medium"
    num_controls: int = 250
    num_patients: int = 400
    num_features: int = 120
    num_sites: int = 4
    num_subtypes: int = 2
    share: float = 0.6
    net_shift: float = 0.35
    overlap: float = 0.0
    missing: float = 0.0
    clinical_effect: float = SEVERITY_EFFECT

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"`kind` must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        if isinstance(self.gap, str) and self.gap not in GAPS:
            raise ValueError(f"`gap` must be one of {', '.join(GAPS)}, or a number; got {self.gap!r}.")
        for name, lowest in (("num_controls", 1), ("num_patients", 1), ("num_features", 10), ("num_sites", 2)):
            if getattr(self, name) < lowest:
                raise ValueError(f"`{name}` must be at least {lowest}; got {getattr(self, name)}.")
        if not 2 <= self.num_subtypes <= 6:
            raise ValueError(f"`num_subtypes` must be from 2 to 6; got {self.num_subtypes}.")
        for name in ("share", "overlap", "missing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1); got {getattr(self, name)}.")

    @property
    def distance(self) -> float:
        """`gap` as a number."""
        return GAPS[self.gap] if isinstance(self.gap, str) else float(self.gap)

    @property
    def group_sizes(self) -> tuple[int, int, int]:
        """Number of frontal, posterior and other features."""
        pattern = round(0.3 * self.num_features)
        return pattern, pattern, self.num_features - 2 * pattern


@dataclass(frozen=True)
class Cohort:
    """A table of people.

    Args:
        columns: Columns by name: `id`, `group` ("control" or a diagnosis), `age`, `sex`, `site`, `scanner`,
            `severity`, `medication`, `motion`, and the features.
        subtypes: True subtype of each patient, or -1 where there are none; patients come first in the table.
        settings: How it was made.
    """

    columns: dict[str, np.ndarray]
    subtypes: np.ndarray
    settings: CohortSettings


def make_cohort(seed: int = 0, **settings: Any) -> Cohort:
    """A cohort, determined by its seed and settings.

    Args:
        seed (`int`): Of every draw.
        settings: Fields of [`CohortSettings`].
    """
    chosen = CohortSettings(**settings)
    generator = np.random.default_rng([seed, KINDS.index(chosen.kind)])
    number = chosen.num_patients + chosen.num_controls
    group = np.full(number, CONTROL, dtype=object)
    group[: chosen.num_patients] = generator.choice(DIAGNOSES, chosen.num_patients, p=DIAGNOSIS_SHARES)
    age, sex = generator.uniform(*AGE_RANGE, number), generator.integers(0, 2, number)
    scanner = generator.integers(0, chosen.num_sites, number)
    subtypes = _draw_subtypes(chosen, group[: chosen.num_patients], generator)
    values = _draw_pattern(chosen, subtypes, generator)
    values += _draw_covariates(chosen, age, sex, scanner, generator)
    features = 1 + SCALE * values
    if chosen.missing:
        features[generator.random(features.shape) < chosen.missing] = np.nan
    # The last scanner is recorded under the name of the one before: its effect cannot be regressed out.
    site = np.minimum(scanner, chosen.num_sites - 2) if chosen.kind == "site_artifact" else scanner
    columns = {
        "id": np.array([f"person-{index:05d}" for index in range(number)]),
        "group": group.astype(str),
        "age": age.round(2),
        "sex": np.where(sex == 1, "M", "F"),
        "site": np.array([f"site-{index + 1}" for index in site]),
        "scanner": np.array([f"scanner-{index + 1}" for index in scanner]),
        **_draw_clinical(chosen, subtypes, generator),
        **dict(zip(name_features(chosen), features.T, strict=True)),
    }
    return Cohort(columns, subtypes, chosen)


def name_features(settings: CohortSettings) -> list[str]:
    """Names of the features: frontal, posterior, other."""
    kinds = zip(("frontal", "posterior", "other"), settings.group_sizes, strict=True)
    return [f"{kind}_{index + 1:03d}" for kind, size in kinds for index in range(size)]


def _draw_subtypes(settings: CohortSettings, diagnoses: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """True subtype of each patient, -1 where there are none."""
    number = settings.num_patients
    if settings.kind in WITHOUT_SUBTYPES:
        return np.full(number, -1)
    if settings.kind == "diagnosis_clusters":
        return (diagnoses != DIAGNOSES[0]).astype(np.int64)
    rest = (1 - settings.share) / (settings.num_subtypes - 1)
    shares = [settings.share] + [rest] * (settings.num_subtypes - 1)
    return generator.choice(settings.num_subtypes, number, p=shares)


def _draw_scores(settings: CohortSettings, subtypes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Scores t of patients."""
    number, gap, share = settings.num_patients, settings.distance, settings.share
    spread = np.sqrt(1 + gap**2 * share * (1 - share))  # of the kind "subtypes"
    if settings.kind == "gaussian_continuum":
        scores = spread * generator.normal(size=number)
    elif settings.kind == "uniform_continuum":
        scores = spread * np.sqrt(3) * generator.uniform(-1, 1, number)
    else:
        scores = generator.normal(size=number)
    if settings.kind == "skew_continuum":
        scores += generator.gamma(*SKEW, size=number)
    if settings.kind in ("subtypes", "diagnosis_clusters", "saturating") and settings.num_subtypes == 2:
        centers = np.array([gap * (1 - share), -gap * share])
        between = generator.random(number) < settings.overlap
        scores += np.where(between, centers.mean(), centers[subtypes])
    return scores + settings.net_shift


def _draw_pattern(settings: CohortSettings, subtypes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """What differs between people beside covariates, `(people, features)`."""
    number, num_features = settings.num_patients + settings.num_controls, settings.num_features
    patients = slice(0, settings.num_patients)
    if settings.kind in CURVED[:2]:
        return _draw_curved(settings, subtypes, generator)
    scores = generator.normal(size=number)
    scores[patients] = _draw_scores(settings, subtypes, generator)
    values = EFFECT * np.outer(scores, draw_direction(settings, generator))
    if settings.num_subtypes > 2:
        directions = np.stack([draw_direction(settings, generator) for _ in range(settings.num_subtypes)])
        values[patients] += EFFECT * settings.distance / np.sqrt(2) * directions[subtypes]
    if settings.kind == "saturating":
        nuisance = np.tanh(3 * generator.normal(size=number))
        values += 2 * np.outer(nuisance, generator.normal(size=num_features))
    loadings = generator.normal(size=(NUM_FACTORS, num_features))
    loadings /= np.sqrt(np.square(loadings).mean(1, keepdims=True))
    factors = generator.normal(size=(number, NUM_FACTORS)) * np.linspace(*FACTOR_SPREADS, NUM_FACTORS)
    levels = LEVEL_SPREAD * generator.normal(size=(number, 1))
    return values + factors @ loadings + levels + generator.normal(size=(number, num_features))


def draw_direction(settings: CohortSettings, generator: np.random.Generator) -> np.ndarray:
    """A pattern g: positive in frontal, negative in posterior features, root mean square 1 over both."""
    frontal, posterior, _ = settings.group_sizes
    direction = np.zeros(settings.num_features)
    direction[: frontal + posterior] = generator.uniform(0.5, 1.5, frontal + posterior)
    direction[frontal : frontal + posterior] *= -1
    return direction / np.sqrt(np.square(direction[: frontal + posterior]).mean())


def _draw_curved(settings: CohortSettings, subtypes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Two factors in which subtypes are two interleaved arcs, or the sign of a product."""
    number = settings.num_patients + settings.num_controls
    factors = 0.5 * generator.normal(size=(number, 2))
    if settings.kind == "nonlinear":
        angle = np.pi * generator.random(settings.num_patients)
        first = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        second = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
        arcs = ARC_RADIUS * (np.where(subtypes[:, None] == 0, first, second) - [0.5, 0.25])
        factors[: settings.num_patients] = arcs + ARC_JITTER * generator.normal(size=arcs.shape)
    else:
        drawn = np.abs(2 * generator.normal(size=(settings.num_patients, 2)))
        drawn[:, 1] *= np.where(subtypes == 0, 1, -1)
        factors[: settings.num_patients] = drawn * generator.choice([-1, 1], (settings.num_patients, 1))
    loadings = ARC_LOADING * generator.normal(size=(2, settings.num_features))
    return factors @ loadings + ARC_NOISE * generator.normal(size=(number, settings.num_features))


def _draw_covariates(
    settings: CohortSettings, age: np.ndarray, sex: np.ndarray, scanner: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    num_features = settings.num_features
    by_age = COVARIATE_SPREAD * generator.normal(size=num_features)
    by_sex = COVARIATE_SPREAD * generator.normal(size=num_features)
    by_site = SITE_SPREAD * generator.normal(size=(settings.num_sites, num_features))
    return np.outer((age - AGE_CENTER) / AGE_UNIT, by_age) + np.outer(sex - 0.5, by_sex) + by_site[scanner]


def _draw_clinical(
    settings: CohortSettings, subtypes: np.ndarray, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Severity, medication and motion; the first two are missing in controls."""
    number = settings.num_patients + settings.num_controls
    severity, medication = np.full(number, np.nan), np.full(number, np.nan)
    patients = slice(0, settings.num_patients)
    severity[patients] = 20 + 6 * (
        generator.normal(size=settings.num_patients) + settings.clinical_effect * (subtypes == 0)
    )
    medication[patients] = generator.gamma(2.0, 100.0, settings.num_patients)
    motion = np.exp(generator.normal(np.log(0.15), 0.5, number))
    return {"severity": severity.round(1), "medication": medication.round(), "motion": motion.round(4)}


def build_dataset(seed: int = 0, **settings: Any) -> datasets.DatasetDict:
    """A training cohort and a test cohort of the same design, with `subtype` (-1: none) as a column.

    Both come from one draw of the patterns: the test cohort is a random half of the patients and controls.

    Args:
        seed (`int`): Of every draw.
        settings: Fields of [`CohortSettings`]; the gap is "easy" by default, and sizes are those of each split.
    """
    settings = {"gap": "easy", **settings}
    chosen = CohortSettings(**settings)
    double = {**settings, "num_controls": 2 * chosen.num_controls, "num_patients": 2 * chosen.num_patients}
    cohort = make_cohort(seed, **double)
    return split_columns({**cohort.columns, "subtype": _spread(cohort)}, seed)


def _spread(cohort: Cohort) -> np.ndarray:
    subtypes = np.full(len(cohort.columns["id"]), -1)
    subtypes[: len(cohort.subtypes)] = cohort.subtypes
    return subtypes


def split_columns(columns: Mapping[str, np.ndarray], seed: int) -> datasets.DatasetDict:
    """Random halves of patients and of controls as the splits train and test."""
    generator = np.random.default_rng(seed)
    is_control = columns["group"] == CONTROL
    first = np.zeros(len(is_control), dtype=bool)
    for rows in (np.flatnonzero(is_control), np.flatnonzero(~is_control)):
        first[generator.permutation(rows)[: len(rows) // 2]] = True
    return datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict({key: values[rows].tolist() for key, values in columns.items()})
            for name, rows in (("train", first), ("test", ~first))
        }
    )


__all__ = [
    "GAPS",
    "KINDS",
    "WITHOUT_SUBTYPES",
    "Cohort",
    "CohortSettings",
    "build_dataset",
    "draw_direction",
    "make_cohort",
    "name_features",
]
