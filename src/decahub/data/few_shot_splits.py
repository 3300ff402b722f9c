"""K-shot splits: which annotated instances a class may be learned from, drawn by seeds and nested over K.

The file is that of the protocol of the field (FsDet), as JSON: `shots`, and for each seed, class and K the ids of
annotations.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from decahub.seeding import derive_seed


SHOTS = (1, 2, 3, 5, 10, 30)
SEEDS = tuple(range(10))
SHOT_SEED_COLUMN = "shot_seed"  # of rows that serve one seed only


@dataclass(frozen=True)
class FewShotSplit:
    """Ids of annotations for each seed, class name and number of shots.

    A class lists only the numbers that it can fill.

    Args:
        seeds (`Mapping[int, Mapping[str, Mapping[int, Sequence[int]]]]`): seed to class to number of shots to ids.
        base_classes (`Sequence[str]`): classes with many examples.
        novel_classes (`Sequence[str]`): classes with few examples.
    """

    seeds: Mapping[int, Mapping[str, Mapping[int, Sequence[int]]]]
    base_classes: Sequence[str] = ()
    novel_classes: Sequence[str] = field(default=())

    def select(self, seed: int, num_shots: int, classes: Iterable[str] | None = None) -> dict[str, list[int]]:
        """Ids of the annotations of each class for one seed and one number of shots.

        Args:
            seed (`int`): Which draw.
            num_shots (`int`): Number of instances of each class.
            classes (`Iterable[str]`, *optional*): Names; by default all that have enough instances.

        Raises:
            ValueError: If there is no such seed, or a class that is asked for has too few instances.
        """
        if seed not in self.seeds:
            raise ValueError(f"`seed` must be one of {', '.join(map(str, self.seeds))}; got {seed}.")
        drawn = self.seeds[seed]
        names = [name for name in drawn if num_shots in drawn[name]] if classes is None else list(classes)
        for name in names:
            if num_shots not in drawn.get(name, {}):
                if not drawn.get(name):
                    raise ValueError(f"class {name!r} must have instances to draw shots from; got none.")
                known = ", ".join(map(str, drawn[name]))
                raise ValueError(f"`num_shots` of class {name!r} must be one of {known}; got {num_shots}.")
        return {name: list(drawn[name][num_shots]) for name in names}

    def save(self, path: str | os.PathLike) -> None:
        """Write the split; the file appears whole."""
        seeds = {
            str(seed): {name: {str(k): list(ids) for k, ids in by_k.items()} for name, by_k in drawn.items()}
            for seed, drawn in self.seeds.items()
        }
        shots = sorted({k for drawn in self.seeds.values() for by_k in drawn.values() for k in by_k})
        content = {
            "base_classes": list(self.base_classes),
            "novel_classes": list(self.novel_classes),
            "shots": shots,
            "seeds": seeds,
        }
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(content), encoding="utf-8")
        os.replace(partial, path)


def read_few_shot_split(path: str | os.PathLike, rows: Any) -> FewShotSplit:
    """Read a split file: ours, or one with category ids in place of names.

    Args:
        path (`str` or path): The file.
        rows (`datasets.Dataset`): The split that has the annotations; they say which class they are of.

    Raises:
        ValueError: If the file is malformed, an annotation is not among `rows`, or one class has annotations of two.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        seeds = {int(seed): drawn for seed, drawn in content["seeds"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} must be a JSON file of few-shot splits with `seeds`; {error!r}.") from error
    names = get_class_names(rows)
    labels = {annotation["id"]: annotation["label"] for row in iterate_annotations(rows) for annotation in row}
    read: dict[int, dict[str, dict[int, list[int]]]] = {}
    class_of: dict[str, str] = {}
    for seed, drawn in seeds.items():
        read[seed] = {}
        for key, by_shots in drawn.items():
            ids = {shot for shots in by_shots.values() for shot in shots}
            unknown = sorted(ids - labels.keys())
            if unknown:
                raise ValueError(f"{path} must list annotations of the training rows; {unknown[0]} is none of them.")
            found = sorted({labels[shot] for shot in ids})
            if len(found) > 1:
                raise ValueError(f"{path} must list annotations of one class under {key!r}; got {len(found)}.")
            if found:
                class_of[key] = names[found[0]]
                read[seed][names[found[0]]] = {int(k): list(shots) for k, shots in by_shots.items()}
    groups = []
    for kind in ("base", "novel"):
        given = content.get(f"{kind}_classes")
        keys = [str(key) for key in content.get(f"{kind}_category_ids", [])]
        groups.append(given if given is not None else [class_of[key] for key in keys if key in class_of])
    return FewShotSplit(read, *groups)


def sample_few_shot_split(
    rows: Any,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
    *,
    base_classes: Sequence[str] = (),
    novel_classes: Sequence[str] = (),
    min_area: float = 0,
) -> FewShotSplit:
    """Draw K-shot splits by the rule of FsDet.

    For each seed and class the images are visited in random order. All instances of the class in an image are taken
    if the number stays within K, otherwise the image is skipped, until there are K. What is taken for a smaller K
    remains. Where whole images cannot fill K, single instances do. Crowds and instances below `min_area` do not count.

    Args:
        rows (`datasets.Dataset`): Training rows. Those with a column `shot_seed` serve the seed that it names.
        shots (`Sequence[int]`): Values of K.
        seeds (`Sequence[int]`): One draw for each.
        base_classes (`Sequence[str]`): Noted in the split.
        novel_classes (`Sequence[str]`): Noted in the split.
        min_area (`float`): Smallest instance in pixels.
    """
    if not shots or min(shots) < 1:
        raise ValueError(f"`shots` must hold numbers of at least 1; got {list(shots)}.")
    names = get_class_names(rows)
    row_seeds = rows[SHOT_SEED_COLUMN][:] if SHOT_SEED_COLUMN in rows.column_names else [None] * len(rows)
    instances: list[tuple[int | None, dict[int, list[int]]]] = []  # for each image: its seed, ids by class
    for row_seed, annotations in zip(row_seeds, iterate_annotations(rows), strict=True):
        by_class: dict[int, list[int]] = {}
        for annotation in annotations:
            if not annotation["iscrowd"] and annotation["area"] >= min_area:
                by_class.setdefault(annotation["label"], []).append(annotation["id"])
        instances.append((row_seed, by_class))
    drawn: dict[int, dict[str, dict[int, list[int]]]] = {}
    for seed in seeds:
        drawn[seed] = {}
        for label, name in enumerate(names):
            images = [by_class[label] for owner, by_class in instances if owner in (None, seed) and label in by_class]
            by_shots = draw_shots(images, shots, derive_seed(seed, "shots", name))
            if by_shots:
                drawn[seed][name] = by_shots
    return FewShotSplit(drawn, base_classes, novel_classes)


def draw_shots(images: Sequence[Sequence[int]], shots: Sequence[int], seed: int) -> dict[int, list[int]]:
    """Ids for each K, nested: `images` holds the ids of one class in each image that shows it."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(images))
    taken: list[int] = []
    result = {}
    for k in sorted(shots):
        for whole in (True, False):
            for place in order:
                left = [instance for instance in images[place] if instance not in taken]
                if whole and len(left) == len(images[place]) and len(taken) + len(left) <= k:
                    taken += left
                elif not whole:
                    taken += left[: k - len(taken)]
        if len(taken) == k:
            result[k] = list(taken)
    return result


def get_class_names(rows: Any) -> list[str]:
    """Names of the classes of rows, in the order of their ids."""
    return list(rows.features["annotations"].feature["label"].names)


def iterate_annotations(rows: Any) -> Iterable[list[dict[str, Any]]]:
    """The annotations of each row; no image is decoded."""
    for row in rows.select_columns(["annotations"]):
        yield row["annotations"]


__all__ = ["FewShotSplit", "get_class_names", "iterate_annotations", "read_few_shot_split", "sample_few_shot_split"]
