"""scikit-learn's handwritten digits, which ship inside that package, as a dataset with a fixed split."""

import datasets
import numpy as np
from PIL import Image


TEST_SHARE = 0.2
SPLIT_SEED = 0
LARGEST_VALUE = 16  # the images count black pixels of 4x4 blocks


def build_dataset() -> datasets.DatasetDict:
    """1,797 gray images of 8x8 pixels, 1,437 to train on and 360 to test on, the classes equally frequent in both."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = np.round(digits.images / LARGEST_VALUE * 255).astype(np.uint8)
    rows = train_test_split(
        np.arange(len(pixels)), test_size=TEST_SHARE, random_state=SPLIT_SEED, stratify=digits.target
    )
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[str(name) for name in digits.target_names])}
    )
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict(
                {"image": [Image.fromarray(pixels[row]) for row in indices], "label": digits.target[indices]},
                features=features,
            )
            for split, indices in zip(("train", "test"), rows, strict=True)
        }
    )


__all__ = ["build_dataset"]
