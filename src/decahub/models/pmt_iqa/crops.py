"""Where the crops of an image are: offsets of their top left corners, a pure function of sizes, strategy and seed."""

import math

import numpy as np


STRATEGIES = ("grid", "random", "center", "five", "dense")


def choose_crops(
    height: int, width: int, size: int, num_crops: int, strategy: str, seed: int | None = None
) -> list[tuple[int, int]]:
    """Top and left of the crops of an image that is at least as large as a crop.

    Args:
        height (`int`): Of the image.
        width (`int`): Of the image.
        size (`int`): Height and width of a crop.
        num_crops (`int`): Number of crops of `"grid"` and `"random"`. A grid where crops would coincide has fewer.
        strategy (`str`): `"grid"`: rows and columns from one border to the other, the first `num_crops` of them row by
            row, and the center if there is but one; `"random"`: uniform; `"center"`; `"five"`: corners and center.
        seed (`int`, *optional*): Of `"random"`, the same on every machine; by default numpy's global generator draws.

    Returns:
        `list[tuple[int, int]]`: Pairs of top and left.
    """
    spare_height, spare_width = height - size, width - size
    if strategy == "random":
        generator = np.random.RandomState(seed) if seed is not None else np.random
        return [
            (int(generator.randint(spare_height + 1)), int(generator.randint(spare_width + 1)))
            for _ in range(num_crops)
        ]
    center = (round(spare_height / 2), round(spare_width / 2))
    if strategy == "center" or (strategy == "grid" and num_crops == 1):
        return [center]
    if strategy == "five":
        corners = [(top, left) for top in (0, spare_height) for left in (0, spare_width)]
        return list(dict.fromkeys([*corners, center]))
    side = math.ceil(math.sqrt(num_crops))
    rows, columns = (
        [int(offset) for offset in np.rint(np.linspace(0, spare, side))] for spare in (spare_height, spare_width)
    )
    return list(dict.fromkeys([(top, left) for top in rows for left in columns][:num_crops]))


__all__ = ["STRATEGIES", "choose_crops"]
