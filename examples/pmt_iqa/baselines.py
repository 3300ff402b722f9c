"""What a score of photographs must be compared with: from the mean of each source to a ridge on a frozen network.

Each function takes the training and the test rows of a dataset and returns a score for each test row.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import laplace
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from tqdm.auto import tqdm

from decahub import PmtIqaImageProcessor
from decahub.procedures import pmt_iqa


RIDGE_PENALTIES = np.logspace(0, 5, 16)
SVR_GRID = {"svr__C": [0.1, 1, 10], "svr__gamma": ["scale", 0.03], "svr__epsilon": [0.05]}


def predict_source_means(train, test) -> np.ndarray:
    """The mean score of the source that an image belongs to."""
    scores, sources = np.array(train["score"]), np.array(train["source"])
    means = {source: scores[sources == source].mean() for source in set(sources)}
    return np.array([means[source] for source in test["source"]])


def compute_statistics(image: np.ndarray) -> list[float]:
    """Brightness, contrast, sharpness and colorfulness of an image `(height, width, 3)` in [0, 1]."""
    gray = image.mean(axis=2)
    edges = laplace(gray)
    first, second = image[..., 0] - image[..., 1], (image[..., 0] + image[..., 1]) / 2 - image[..., 2]
    colorfulness = np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean())
    saturation = (image.max(axis=2) - image.min(axis=2)).mean()
    return [gray.mean(), gray.std(), np.log(edges.var() + 1e-8), np.abs(edges).mean(), colorfulness, saturation]


def predict_by_statistics(train, test) -> np.ndarray:
    """A support vector machine on six statistics of an image, its constants chosen by cross-validation."""
    features = [
        np.array([compute_statistics(np.asarray(row["image"].convert("RGB")) / 255) for row in rows])
        for rows in (train, test)
    ]
    search = GridSearchCV(make_pipeline(StandardScaler(), SVR()), SVR_GRID, cv=5, scoring="r2")
    return search.fit(features[0], train["score"]).predict(features[1])


@torch.no_grad()
def extract_features(backbone: torch.nn.Module, rows, processor: PmtIqaImageProcessor) -> np.ndarray:
    """Mean and deviation of each channel of each stage over the whole image."""
    features = []
    for row in tqdm(rows, desc="Features", leave=False):
        image = np.asarray(row["image"].convert("RGB")) / 255
        pixels = (image - np.array(processor.image_mean)) / np.array(processor.image_std)
        batch = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
        maps = backbone(batch.contiguous(memory_format=torch.channels_last)).feature_maps
        features.append(torch.cat([torch.cat([x.mean((2, 3)), x.std((2, 3))], 1) for x in maps], 1)[0].numpy())
    return np.array(features)


def build_ridge(arguments: pmt_iqa.Arguments) -> Callable:
    """A ridge on the features of the backbone of a run as it is before training."""
    backbone = pmt_iqa.build_model(arguments).eval().pmt_iqa.backbone
    processor = pmt_iqa.build_processor(arguments)

    def predict(train, test) -> np.ndarray:
        features = [extract_features(backbone, rows, processor) for rows in (train, test)]
        ridge = make_pipeline(StandardScaler(), RidgeCV(RIDGE_PENALTIES))
        return ridge.fit(features[0], train["score"]).predict(features[1])

    return predict


def predict_by_brisque(train, test) -> np.ndarray:
    """BRISQUE as its authors trained it, on other photographs.

    It needs the packages `brisque` (0.2.0 asks for numpy before 2.4) and `opencv-python`.
    """
    from brisque import BRISQUE

    model = BRISQUE(url=False)
    return np.array([-model.score(np.asarray(row["image"].convert("RGB"))) for row in tqdm(test, leave=False)])
