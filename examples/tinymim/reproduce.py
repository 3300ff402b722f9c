"""Compares ways to pre-train a small vision transformer, over several seeds, and targets of distillation.

    accelerate launch examples/tinymim/reproduce.py tinymim/reproduce [--arms '[mae]' --seeds '[0]']
    accelerate launch examples/tinymim/reproduce.py tinymim/reproduce_targets --strong_teacher facebook/dinov2-small

An arm is a way to pre-train (or none), always followed by the same fine-tuning with few labels. Every run is kept in
`output_dir`; started again, the script goes on where it was. Arms and seeds may be shared out among processes; with
`--arms '[]'` only the results of what is finished are written, to `docs/results` (see `results.py`).
"""

import copy
import dataclasses
import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.utils import set_seed
from results import write_results
from state_cache import FlipTransform, StateRows, load_states
from torch.utils.data import Dataset, Subset
from transformers import AutoModel, PreTrainedModel

from decahub import TinyMimImageProcessor, TinyMimModel, load_metric
from decahub.data import SeededTransform, get_label_names, load_dataset
from decahub.evaluation import run_once, write_json
from decahub.procedures import tinymim
from decahub.procedures.data_arguments import Splits
from decahub.tasks.image_feature_extraction import select_fit_rows
from decahub.tasks.task import evaluating
from decahub.training import argument, load_recipe


ROWS_AT_ONCE = 250
TEACHER = "model_cards/tinymim-mae-teacher-cifar10"
SETTINGS = ("cached", "pretraining", "finetuning")  # of an arm


@dataclass
class Arguments:
    arms: list[str] = argument(["scratch", "mae", "tinymim"], "Arms to run now; results hold whatever has been run.")
    seeds: list[int] = argument([0, 1, 2], "One run of each arm for each seed.")
    epochs: dict = argument({}, "Epochs of pre-training by arm; by default those of `settings`.")
    finetuning_epochs: float | None = argument(None, "Epochs of fine-tuning; by default those of `finetuning`.")
    teacher: str | None = argument(None, f"Model folder of the teacher of arms without a cache; by default {TEACHER}.")
    strong_teacher: str | None = argument(
        None, "Model folder of a teacher that learned from more data, for cached arms."
    )
    strong_teacher_title: str | None = argument(None, "What the tables call it; by default the name of its folder.")
    strong_teacher_size: int | None = argument(
        None, "Side of the images it is measured on, in pixels; by default the student's."
    )
    dataset: str = argument("cifar10", "Name of the dataset.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    student: dict = argument({}, "Fields of TinyMimConfig of all students.")
    shared: dict = argument({}, "Arguments of all stages (`decahub.procedures.tinymim`).")
    pretraining: dict = argument({}, "Further arguments of pre-training.")
    finetuning: dict = argument({}, "Further arguments of fine-tuning.")
    settings: dict = argument({}, "For each arm its own arguments of `pretraining` and `finetuning`.")
    max_train_samples: int | None = argument(None, "Pre-train on at most this many rows.")
    num_test_rows: int = argument(10_000, "Test rows that classifiers are measured on.")
    num_probe_rows: int = argument(5_000, "Those of them that probes are measured on.")
    num_fit_rows: int = argument(6_000, "Training rows that probes are fitted on.")
    output_dir: str = argument("runs/tinymim-reproduce", "Folder of the runs.")
    results_dir: str = argument("docs/results", "Folder of the results.")


def merge(*parts: dict) -> dict:
    """Arguments of later parts win; `config` and `augmentation` are merged field by field."""
    merged: dict[str, Any] = {}
    for part in parts:
        nested = {name: {**merged.get(name, {}), **value} for name, value in part.items() if isinstance(value, dict)}
        merged |= {**part, **nested}
    return merged


def build_arguments(arguments: Arguments, arm: str, stage: str, seed: int, **fields: Any) -> tinymim.Arguments:
    """Arguments of one stage of an arm."""
    common = {"dataset": arguments.dataset, "data_dir": arguments.data_dir, "seed": seed, "config": arguments.student}
    own = arguments.settings[arm].get(stage, {})
    return tinymim.Arguments(**merge(common, arguments.shared, getattr(arguments, stage), own, fields))


def find_folder(arguments: Arguments, arm: str, seed: int) -> Path:
    return Path(arguments.output_dir) / f"{arm}-seed{seed}"


@dataclass
class Images:
    """Images as a processor gives them, made once for the models of all runs, and their classes."""

    pixel_values: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def from_rows(cls, rows: Any, processor: Any) -> "Images":
        parts = [
            processor(rows[start : start + ROWS_AT_ONCE]["image"], return_tensors="pt")["pixel_values"]
            for start in range(0, len(rows), ROWS_AT_ONCE)
        ]
        return cls(torch.cat(parts), torch.tensor(rows["label"][:]))

    def apply(self, model: PreTrainedModel, output: str) -> torch.Tensor:
        """One output of a model for all images."""
        with evaluating(model):
            parts = [model(pixel_values=part)[output] for part in self.pixel_values.split(ROWS_AT_ONCE)]
        return torch.cat(parts).float()


class Benchmark:
    """What models are measured on: test images, and training images that probes are fitted on."""

    def __init__(self, splits: Any, processor: Any, arguments: "Arguments"):
        test = splits["test"]
        self.test = Images.from_rows(test.select(range(min(arguments.num_test_rows, len(test)))), processor)
        self.train = Images.from_rows(select_fit_rows(splits["train"], arguments.num_fit_rows), processor)
        self.num_probed = arguments.num_probe_rows
        labels = splits["train"]["label"][:]
        self.training_images = tinymim.decode_rows(splits["train"])  # once for all runs, in the order of the files
        self.training_rows = datasets.Dataset.from_dict({"label": labels, "index": range(len(labels))})

    def resize(self, splits: Any, processor: Any) -> "Benchmark":
        """The same images as another processor gives them."""
        resized = copy.copy(self)
        resized.test = Images.from_rows(splits["test"].select(range(len(self.test.labels))), processor)
        resized.train = Images.from_rows(select_fit_rows(splits["train"], len(self.train.labels)), processor)
        return resized

    def choose_training_images(self, arguments: tinymim.Arguments) -> Dataset:
        """The decoded images that a run learns from: the same for every seed, as states of teachers are kept."""
        arguments = dataclasses.replace(arguments, seed=0)
        return Subset(self.training_images, tinymim.select_rows(arguments, self.training_rows)["index"][:])

    def measure_accuracy(self, model: PreTrainedModel) -> float:
        return float((self.test.apply(model, "logits").argmax(1) == self.test.labels).double().mean())

    def measure_probes(self, model: PreTrainedModel) -> dict[str, float]:
        """Probes on the features of a model and, of ours, on those of its last two blocks."""
        scores = self._probe(model)
        if isinstance(model, TinyMimModel):
            usual = model.config.feature_layer
            for layer in (-1, -2):
                model.config.feature_layer = layer
                scores |= {f"{name}_of_block_{layer}": value for name, value in self._probe(model).items()}
            model.config.feature_layer = usual
        return scores

    def _probe(self, model: PreTrainedModel) -> dict[str, float]:
        test = Images(self.test.pixel_values[: self.num_probed], self.test.labels[: self.num_probed])
        return load_metric("feature_probe", keep_in_memory=True).compute(
            predictions=test.apply(model, "pooler_output"),
            references=test.labels,
            train_predictions=self.train.apply(model, "pooler_output"),
            train_references=self.train.labels,
        )


def train_once(
    folder: Path, arguments: tinymim.Arguments, splits: Any, benchmark: Benchmark, cache: Path | None = None
) -> dict:
    """Scores of one stage, whose model is then in `folder / "model"`."""
    set_seed(arguments.seed)
    images = benchmark.choose_training_images(arguments)
    processor = TinyMimImageProcessor(**arguments.processor)
    if cache is None:
        dataset = tinymim.build_dataset(arguments, images, processor)
    else:
        dataset = build_cached_dataset(arguments, images, processor, cache)
    rows = Splits(splits["train"], label_names=get_label_names(arguments.dataset, splits["train"]))
    result = tinymim.train_stage(dataclasses.replace(arguments, output_dir=str(folder)), rows, processor, dataset)
    result.model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    outcome = {
        "minutes": result.minutes,
        "steps": result.step,
        "epochs": result.epoch,
        "batch_size": arguments.per_device_train_batch_size,
        "num_parameters": result.model.num_parameters(),
    }
    if arguments.stage == "finetune":
        outcome["accuracy"] = benchmark.measure_accuracy(result.model)
    outcome |= benchmark.measure_probes(getattr(result.model, "tinymim", result.model))
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return outcome


def build_cached_dataset(
    arguments: tinymim.Arguments, images: Dataset, processor: TinyMimImageProcessor, cache: Path
) -> SeededTransform:
    """Images that are flipped and recolored, with states that the teacher gave once."""
    student = tinymim.build_student(arguments)
    path = cache.with_name(f"{cache.name}_block_{student.config.teacher_layer}.safetensors")
    states = load_states(path, student.teacher, student.config, images, processor)
    transform = FlipTransform(processor, student.config, arguments.augmentation.get("color_jitter", 0.4))
    return SeededTransform(StateRows(images, states), transform, arguments.seed)


def run_arm(arm: str, seed: int, arguments: Arguments, splits: Any, benchmark: Benchmark) -> dict:
    """Pre-train, if the arm does, and fine-tune."""
    folder, settings = find_folder(arguments, arm, seed), arguments.settings[arm]
    outcome: dict[str, Any] = {"arm": arm, "seed": seed, "dataset": Path(arguments.dataset).name}
    pretrained = None
    if "pretraining" in settings:
        fields: dict[str, Any] = {"max_train_samples": arguments.max_train_samples}
        if arm in arguments.epochs:
            fields["num_train_epochs"] = arguments.epochs[arm]
        if is_distilled(arguments, arm, "pretraining"):
            fields["teacher"] = arguments.strong_teacher if settings.get("cached") else arguments.teacher or TEACHER
        stage = build_arguments(arguments, arm, "pretraining", seed, **fields)
        cache = Path(arguments.output_dir) / "strong_teacher" if settings.get("cached") else None
        stage_folder = folder / "pretraining"
        compute = partial(train_once, stage_folder, stage, splits, benchmark, cache)
        outcome["pretraining"] = run_once(stage_folder, compute)
        pretrained = str(folder / "pretraining" / "model")
    epochs = {} if arguments.finetuning_epochs is None else {"num_train_epochs": arguments.finetuning_epochs}
    stage = build_arguments(arguments, arm, "finetuning", seed, pretrained=pretrained, **epochs)
    stage_folder = folder / "finetuning"
    outcome["finetuning"] = run_once(stage_folder, partial(train_once, stage_folder, stage, splits, benchmark))
    write_json(folder / "arm.json", outcome)
    return outcome


def measure_teachers(arguments: Arguments, splits: Any, benchmark: Benchmark) -> None:
    """Probes of the teachers of the arms that run now."""
    settings = [arguments.settings[arm] for arm in arguments.arms]
    if any(setting.get("cached") for setting in settings):
        if side := arguments.strong_teacher_size:
            resized = benchmark.resize(splits, build_processor(arguments, size={"height": side, "width": side}))
        else:
            resized = benchmark
        measure_teacher("strong_teacher", arguments.strong_teacher, arguments.strong_teacher_title, arguments, resized)
    if find_uncached(arguments):
        measure_teacher("teacher", arguments.teacher or TEACHER, None, arguments, benchmark)


def measure_teacher(
    name: str, source: str | None, title: str | None, arguments: Arguments, benchmark: Benchmark
) -> None:
    """Probes of a teacher, for the question whether it is good enough to teach; measured once."""
    record = Path(arguments.output_dir) / f"{name}.json"
    if record.exists():
        if (measured := json.loads(record.read_text())["model"]) != Path(source).name:
            raise ValueError(f"{record} must be of {Path(source).name}; got {measured}. Choose another `output_dir`.")
        return
    model = AutoModel.from_pretrained(source).eval()
    scores = benchmark.measure_probes(model)
    facts = {"model": Path(source).name, "title": title or Path(source).name}
    write_json(record, {**facts, "num_parameters": model.num_parameters(), **scores})


def build_processor(arguments: Arguments, **attributes: Any) -> TinyMimImageProcessor:
    return TinyMimImageProcessor(**{**arguments.shared.get("processor", {}), **attributes})


def check_arguments(arguments: Arguments) -> None:
    """Refuse, before the first arm runs, what no arm or only a later one would stumble over."""
    for name in ("arms", "epochs"):
        unknown = [arm for arm in getattr(arguments, name) if arm not in arguments.settings]
        if unknown:
            raise ValueError(f"`{name}` must be among {', '.join(arguments.settings)}; got {', '.join(unknown)}.")
    for arm, settings in arguments.settings.items():
        unknown = [key for key in settings if key not in SETTINGS]
        if unknown:
            raise ValueError(f"`settings.{arm}` must hold some of {', '.join(SETTINGS)}; got {', '.join(unknown)}.")
    for arm in arguments.arms:
        for stage in ("pretraining", "finetuning"):
            if stage == "finetuning" or stage in arguments.settings[arm]:
                teacher = "of the arm" if is_distilled(arguments, arm, stage) else None
                build_arguments(arguments, arm, stage, 0, teacher=teacher)
    cached = [arm for arm in arguments.arms if arguments.settings[arm].get("cached")]
    if cached and arguments.strong_teacher is None:
        raise ValueError(f"The arms {', '.join(cached)} need `--strong_teacher FOLDER`, a ViT-S.")
    for name, learners in (("strong_teacher", cached), ("teacher", find_uncached(arguments))):
        if arguments.arms and not learners and getattr(arguments, name) is not None:
            raise ValueError(f"`{name}` must be left out for {', '.join(arguments.arms)}, which have none.")


def find_uncached(arguments: Arguments) -> list[str]:
    """The arms whose students are measured beside the probe of `teacher`."""
    settings = {arm: arguments.settings[arm] for arm in arguments.arms}
    return [arm for arm, fields in settings.items() if "pretraining" in fields and not fields.get("cached")]


def is_distilled(arguments: Arguments, arm: str, stage: str) -> bool:
    return arguments.settings[arm].get(stage, {}).get("stage") == "distill"


def main():
    arguments = load_recipe(Arguments)
    check_arguments(arguments)
    if arguments.arms:
        splits = load_dataset(arguments.dataset, arguments.data_dir, family="image-classification")
        benchmark = Benchmark(splits, build_processor(arguments), arguments)
        measure_teachers(arguments, splits, benchmark)
        # Seed by seed, so that a run that is cut short has compared something.
        for seed in arguments.seeds:
            for arm in arguments.arms:
                outcome = run_arm(arm, seed, arguments, splits, benchmark)
                print(f"{arm:16} seed {seed} accuracy {100 * outcome['finetuning']['accuracy']:.2f}", flush=True)
    write_results(Path(arguments.output_dir), Path(arguments.results_dir))


if __name__ == "__main__":
    main()
