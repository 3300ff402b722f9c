"""A folder of images with scores: smooth shapes under growing noise, several versions of each scene."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def write_quality_folder(folder: Path, num_scenes: int = 5, num_levels: int = 4, size: int = 40) -> Path:
    """Images with scores from 0 (noisy) to 100 (clean), and their table with references."""
    generator = np.random.RandomState(0)
    rows = []
    for scene in range(num_scenes):
        clean = Image.fromarray(generator.randint(0, 256, (5, 5, 3), dtype=np.uint8)).resize((size + 4, size))
        for level in range(num_levels):
            noise = 25 * level * generator.standard_normal((size, size + 4, 3))
            name = f"scene{scene}_{level}.png"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.uint8(np.clip(np.asarray(clean) + noise, 0, 255))).save(folder / name)
            rows.append((name, 100 - 100 * level / (num_levels - 1), f"scene{scene}", f"level{level % 2}"))
    with (folder / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "score", "reference", "source"), *rows])
    return folder
