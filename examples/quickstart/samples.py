"""Inputs made here, so that no dataset is needed: graphs, a driving scene, shapes, a table of patients."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from decahub.data import DATASETS, build_similarity_edges, mpd_synthetic, refshapes
from decahub.data.driving_scenes import build_frame
from decahub.models.cmt.frame_files import write_frame


SCENE = (29, 3)  # seed of a scene that no split of the dataset holds
NEAR = 2.0  # meters between a found and a true center
PAGE_CLASSES = (0, 2, 3, 4)  # Texas has a single page of class 1
PAGES_PER_CLASS = 6
NUM_OWN_WORDS, NUM_RANDOM_WORDS = 25, 50
NUM_CANDIDATES = 120  # words of each class that own words are drawn from

COLUMNS = [
    "Gender",
    "ForeignWorker",
    "Single",
    "Age",
    "LoanDuration",
    "LoanAmount",
    "LoanRateAsPercentOfIncome",
    "YearsAtCurrentHome",
    "NumberOfOtherLoansAtBank",
    "NumberOfLiableIndividuals",
    "HasTelephone",
    "CheckingAccountBalance_geq_0",
    "CheckingAccountBalance_geq_200",
    "SavingsAccountBalance_geq_100",
    "SavingsAccountBalance_geq_500",
    "MissedPayments",
    "NoCurrentLoan",
    "CriticalAccountOrLoansElsewhere",
    "OtherLoansAtBank",
    "HasCoapplicant",
    "HasGuarantor",
    "OwnsHouse",
    "RentsHouse",
    "Unemployed",
    "YearsAtCurrentJob_lt_1",
    "YearsAtCurrentJob_geq_4",
    "JobClassIsSkilled",
]
NUMBERS = {
    "Age": (19, 75),
    "LoanDuration": (4, 72),
    "LoanAmount": (250, 18_500),
    "LoanRateAsPercentOfIncome": (1, 4),
    "YearsAtCurrentHome": (1, 4),
    "NumberOfOtherLoansAtBank": (1, 4),
    "NumberOfLiableIndividuals": (1, 2),
}  # lowest and highest value; other columns are 0 or 1
# Where men and women differ in German credit: the mean of men, the mean of women.
DIFFERENCES = {
    "Single": (0.79, 0.0),
    "Age": (36.8, 32.8),
    "NumberOfLiableIndividuals": (1.2, 1.05),
    "OwnsHouse": (0.75, 0.63),
    "RentsHouse": (0.12, 0.31),
    "YearsAtCurrentJob_lt_1": (0.12, 0.28),
    "YearsAtCurrentJob_geq_4": (0.48, 0.30),
}
NUM_MEN, NUM_WOMEN = 350, 150
SIMILARITY_THRESHOLD = 0.8


def write_pages(path: Path, classify: Any, seed: int = 0) -> np.ndarray:
    """Writes a graph of pages in which each link joins two classes; returns the class that each page was given.

    What the 1,703 words of Texas mean is not published. The words of a class are therefore those that raise its
    probability most when the model reads a page of this one word.
    """
    num_words = classify.model.config.num_features
    answers = classify((np.eye(num_words, dtype="float32"), np.zeros((2, 0), dtype="int64")))
    names = [f"class {index}" for index in range(classify.model.config.num_labels)]
    scores = np.array([[answer["probabilities"][name] for name in names] for answer in answers])
    candidates = np.argsort(scores.mean(0) - scores, axis=0)[:NUM_CANDIDATES].T

    generator = np.random.default_rng(seed)
    given = np.repeat(PAGE_CLASSES, PAGES_PER_CLASS)
    features = np.zeros((len(given), num_words), dtype="float32")
    edges = set()
    for page, own_class in enumerate(given):
        features[page, generator.choice(candidates[own_class], NUM_OWN_WORDS, replace=False)] = 1
        features[page, generator.choice(num_words, NUM_RANDOM_WORDS, replace=False)] = 1
        others = np.flatnonzero(given != own_class)
        edges |= {(page, int(other)) for other in generator.choice(others, 2, replace=False)}
    np.savez(path, node_features=features, edge_index=np.array(sorted(edges)).T)
    return given


def write_shapes(folder: Path, names: Sequence[str], photos: Sequence[Image.Image], seed: int = 0) -> Path:
    """Writes `scene.png` with one shape of each class, and `<name>.png` with `<name>_mask.png`; returns the folder.

    The shapes lie in front of parts of photographs.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    labels = [refshapes.CLASSES.index(name) for name in names]

    def draw(wanted: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
        drawn: list[int] = []
        while len(drawn) < len(wanted):  # a shape that finds no place is left out
            pixels, drawn, masks = refshapes.draw_scene(wanted, photos, generator)
        return pixels, masks

    folder.mkdir(parents=True, exist_ok=True)
    for name, label in zip(names, labels, strict=True):
        pixels, masks = draw([label])
        Image.fromarray(pixels).save(folder / f"{name}.png")
        Image.fromarray(masks[0]).save(folder / f"{name}_mask.png")
    Image.fromarray(draw(labels)[0]).save(folder / "scene.png")
    return folder


def write_cohort(path: Path) -> dict[str, int]:
    """Writes a table of patients and controls; returns the subtype that each patient was made with, by id."""
    people = mpd_synthetic.build_dataset()["test"]
    people.remove_columns("subtype").to_csv(path)
    return {name: kind for name, kind in zip(people["id"], people["subtype"], strict=True) if kind >= 0}


def write_people(path: Path, extractor: Any, seed: int = 0) -> None:
    """Writes a table of people and the graph of those who are alike.

    Columns are drawn independently of each other around the means that the model's feature extractor knows; those in
    `DIFFERENCES` around one mean for men and one for women.
    """
    generator = np.random.default_rng(seed)
    women = np.arange(NUM_MEN + NUM_WOMEN) >= NUM_MEN
    means, scales = np.array(extractor.feature_means), np.array(extractor.feature_scales)
    table = np.empty((len(women), len(COLUMNS)))
    for index, name in enumerate(COLUMNS):
        men_mean, women_mean = DIFFERENCES.get(name, (means[index], means[index]))
        mean = np.where(women, women_mean, men_mean)
        if name in NUMBERS:
            table[:, index] = generator.normal(mean, scales[index]).round().clip(*NUMBERS[name])
        else:
            table[:, index] = generator.random(len(women)) < mean
    table[:, COLUMNS.index("Gender")] = women
    edges = build_similarity_edges((table - means) / scales, SIMILARITY_THRESHOLD)
    np.savez(path, node_features=table.astype("float32"), edge_index=edges)


def write_scene(path: Path) -> dict[str, Any]:
    """Writes a driving scene as a table with images and points beside it, and returns it."""
    scene = build_frame(SCENE, token="scene")
    write_frame(path, scene, DATASETS["driving_scenes"].label_names)
    return scene


def count_found(boxes: list[dict[str, Any]], scene: dict[str, Any]) -> int:
    """How many objects of a scene have a box of their class near them."""
    names = DATASETS["driving_scenes"].label_names
    found = 0
    for label, (x, y, *_) in zip(scene["labels"], scene["boxes"], strict=True):
        of_class = [item["box"] for item in boxes if item["label"] == names[label]]
        found += any(np.hypot(box["x"] - x, box["y"] - y) < NEAR for box in of_class)
    return found


def write_versions(folder: Path, photo: Image.Image, seed: int = 0) -> Path:
    """Writes a photograph as it is, and with five distortions; returns the folder."""
    pixels = np.asarray(photo).astype(np.float64)
    noise = 30 * np.random.default_rng(seed).standard_normal(pixels.shape)
    coded = io.BytesIO()
    photo.save(coded, "JPEG", quality=6)
    small = photo.resize((photo.width // 6, photo.height // 6), Image.Resampling.BOX)
    versions = {
        "original": photo,
        "blurred": photo.filter(ImageFilter.GaussianBlur(3)),
        "noisy": Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)),
        "JPEG": Image.open(coded),
        "coarse": small.resize(photo.size, Image.Resampling.NEAREST),
        "dark": Image.fromarray((255 * (pixels / 255) ** 3).astype(np.uint8)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, version in versions.items():
        version.save(folder / f"{name}.png")
    return folder
