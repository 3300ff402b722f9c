"""A small COCO folder of rectangles: two base classes, one novel class, one instance or two in each image."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


NAMES = ("bar", "dot", "kite")
NOVEL = ("kite",)
CATEGORY_IDS = (7, 3, 12)  # of NAMES; the ids of classes follow their order: dot, bar, kite
ORDERED = ("dot", "bar", "kite")
HEIGHT, WIDTH = 64, 96
SPLITS = {"train": 9, "test": 4}


def draw_rectangle(category: int, generator: np.random.Generator) -> list[int]:
    """A box `[x, y, width, height]`: wide, square or tall."""
    width, height = ((30, 12), (18, 18), (10, 34))[category]
    return [int(generator.integers(0, WIDTH - width)), int(generator.integers(0, HEIGHT - height)), width, height]


def write_coco_folder(folder: Path) -> Path:
    """`<split>.json` and `<split>/<number>.png`; every image has one class, in turn."""
    generator = np.random.default_rng(5)
    categories = [{"id": number, "name": name} for number, name in zip(CATEGORY_IDS, NAMES, strict=True)]
    for split, num_images in SPLITS.items():
        (folder / split).mkdir(parents=True)
        images, annotations = [], []
        for index in range(num_images):
            pixels = generator.integers(0, 60, size=(HEIGHT, WIDTH, 3), dtype=np.uint8)
            category = index % len(NAMES)
            for _ in range(1 + index % 2):
                x, y, width, height = draw_rectangle(category, generator)
                pixels[y : y + height, x : x + width] = [(220, 40, 40), (40, 220, 40), (40, 40, 220)][category]
                annotations.append(
                    {
                        "id": 100 + len(annotations) + 1000 * (split == "test"),
                        "image_id": index,
                        "category_id": CATEGORY_IDS[category],
                        "segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]],
                        "area": width * height,
                        "bbox": [x, y, width, height],
                        "iscrowd": 0,
                    }
                )
            Image.fromarray(pixels).save(folder / split / f"{index}.png")
            images.append({"id": index, "file_name": f"{index}.png", "height": HEIGHT, "width": WIDTH})
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder
