"""What identifies a run: which arguments, and which changes of the data are noticed."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from decahub.data import InMemoryDataset, SeededTransform
from decahub.training import LoopArguments, argument, fingerprint_data, fingerprint_recipe
from tests.tiny.training import ToyRows


def test_recipe_holds_what_decides_the_result():
    @dataclass
    class Texts:
        MAY_CHANGE: ClassVar[tuple[str, ...]] = ("card_title",)
        card_title: str = "a"

    @dataclass
    class Arguments(Texts, LoopArguments):
        MAY_CHANGE: ClassVar[tuple[str, ...]] = ("data_dir",)
        data_dir: str = argument("x", "Folder.")
        config: dict = argument({}, "Fields.")

    recipe = fingerprint_recipe(Arguments(config={"sizes": (1, 2)}))

    assert recipe["config"] == {"sizes": [1, 2]}
    assert {"seed", "learning_rate", "max_steps", "eval_steps", "mixed_precision"} <= recipe.keys()
    assert not recipe.keys() & {
        "card_title", "data_dir", "output_dir", "resume_from_checkpoint", "report_to", "logging_steps", "save_steps",
        "save_every_minutes", "save_total_limit", "per_device_eval_batch_size", "dataloader_num_workers",
    }  # fmt: skip


@pytest.mark.parametrize("is_folder", [True, False])
def test_recipe_holds_what_a_teacher_is_made_of(is_folder, tmp_path):
    @dataclass
    class Arguments(LoopArguments):
        teacher: str | None = argument(None, "Folder or file.")

    file = tmp_path / "model.safetensors"
    arguments = Arguments(teacher=str(tmp_path if is_folder else file))
    recipes = []
    for content in (b"one", b"two", b"one"):
        file.write_bytes(content)
        recipes.append(fingerprint_recipe(arguments))

    assert recipes[0] == recipes[2] != recipes[1]
    assert fingerprint_recipe(Arguments()).keys() == fingerprint_recipe(Arguments(teacher="someone/model")).keys()


def build_graph(**changes):
    generator = torch.Generator().manual_seed(0)
    graph = {
        "node_features": torch.randn(50, 4, generator=generator),
        "edge_index": torch.randint(50, (2, 90), generator=generator),
        "labels": torch.randint(3, (50,), generator=generator),
        "train_mask": torch.arange(50) < 20,
    }
    return {**graph, **changes}


def build_images(label: int = 1, scale: int = 1) -> list[dict]:
    return [
        {"image": torch.full((3, 8, 8), scale * index, dtype=torch.uint8), "label": label if index == 5 else index % 2}
        for index in range(9)
    ]


def build_table(names=("cat", "dog"), labels=(0, 1, 0), shade=0) -> datasets.Dataset:
    images = [Image.new("RGB", (6, 5), (shade, 0, index)) for index in range(3)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    return datasets.Dataset.from_dict({"image": images, "label": list(labels)}, features=features)


def keep_in_memory(table) -> InMemoryDataset:
    return InMemoryDataset(table, lambda row: {"image": np.asarray(row["image"]), "label": row["label"]})


def build_rows(index: int = -1) -> ToyRows:
    rows = ToyRows()
    rows.labels[index] += 1
    return rows


def transform(dataset) -> SeededTransform:
    return SeededTransform(dataset, lambda row: torch.rand(()))


MASK = torch.arange(50) < 21
CHANGES = {
    "graph-mask": (lambda: [build_graph()], lambda: [build_graph(train_mask=MASK)]),
    "graph-key": (lambda: [build_graph()], lambda: [build_graph(sensitive=MASK)]),
    "label": (build_images, lambda: build_images(label=0)),
    "pixels": (build_images, lambda: build_images(scale=2)),
    "order": (build_images, lambda: build_images()[::-1]),
    "length": (build_images, lambda: build_images()[:8]),
    "tuple": (lambda: tuple(build_images()), lambda: tuple(build_images(label=0))),
    "transformed": (lambda: transform(build_images()), lambda: transform(build_images(label=0))),
    "table-label": (build_table, lambda: build_table(labels=(0, 1, 1))),
    "table-names": (build_table, lambda: build_table(names=("dog", "cat"))),
    "table-image": (build_table, lambda: build_table(shade=1)),
    "table-order": (build_table, lambda: build_table().select([1, 0, 2])),
    "memory-names": (
        lambda: transform(keep_in_memory(build_table())),
        lambda: transform(keep_in_memory(build_table(names=("dog", "cat")))),
    ),
    "memory-image": (lambda: keep_in_memory(build_table()), lambda: keep_in_memory(build_table(shade=1))),
    "torch-label": (lambda: build_rows(3), lambda: build_rows(4)),
    "subset": (lambda: Subset(ToyRows(), [1, 2]), lambda: Subset(ToyRows(), [1, 3])),
    "tensors": (lambda: TensorDataset(torch.arange(999)), lambda: TensorDataset(torch.arange(999).flip(0))),
    "tensor": (lambda: torch.arange(9), lambda: torch.arange(9).flip(0)),
    "sparse": (lambda: [torch.eye(4).to_sparse()], lambda: [(2 * torch.eye(4)).to_sparse()]),
    "roll": (lambda: [Roll(np.zeros(3))], lambda: [Roll(np.ones(3))]),
    "bytes": (lambda: [{"midi": b"abc"}], lambda: [{"midi": b"abx"}]),
}


@dataclass
class Roll:
    hits: np.ndarray


@pytest.mark.parametrize(("build", "build_other"), CHANGES.values(), ids=CHANGES)
def test_change_of_the_data_is_noticed(build, build_other):
    assert fingerprint_data(build()) == fingerprint_data(build())
    assert fingerprint_data(build()) != fingerprint_data(build_other())


def write_images(folder: Path, shades: dict[str, int]) -> datasets.Dataset:
    for name, shade in shades.items():
        (folder / name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (6, 5), (shade, index, 0)).save(folder / name / f"{index}.png")
    return datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(folder / ".cache"))


def test_image_folder_is_known_anywhere_and_with_swapped_classes_refused(tmp_path):
    here = write_images(tmp_path / "here", {"cat": 10, "dog": 200})
    there = write_images(tmp_path / "there", {"cat": 10, "dog": 200})
    swapped = write_images(tmp_path / "swapped", {"cat": 200, "dog": 10})

    for wrap in (lambda table: table, keep_in_memory):
        digests = [fingerprint_data(wrap(table)) for table in (here, there, swapped)]
        assert digests[0] == digests[1] != digests[2]


def test_large_values_are_sampled_evenly():
    large = torch.zeros(3_000_000)
    rows = [{"image": large} for _ in range(9)]
    changed = [*rows[:4], {"image": large.clone()}, *rows[5:]]
    changed[4]["image"][1_500_000:] = 1

    assert fingerprint_data(rows) != fingerprint_data(changed)


def test_items_that_differ_between_two_readings_count_by_their_shape():
    class Noise(Dataset):
        def __init__(self, size):
            self.size = size

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return {"features": torch.as_tensor(np.random.default_rng().normal(size=self.size))}

    assert fingerprint_data(Noise(4)) == fingerprint_data(Noise(4)) != fingerprint_data(Noise(5))


def test_random_state_is_left_alone_and_another_process_agrees():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    code = "from tests.unit.training.test_fingerprint import *; print(fingerprint_data(build_rows()))"

    digest = fingerprint_data(build_rows())
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert torch.equal(torch.get_rng_state(), state)
    assert other.stdout.strip() == digest
