"""A model folder as an object: what its files say, its card, its checksums.

config.json  preprocessor_config.json  model.safetensors   what `from_pretrained` reads
evaluation.json  recipe.yaml  train_log.jsonl              what was measured, and how the weights came about
report_*.json  splits.json                                 optional: tables beside the scores
README.md  *.png                                           the card, rendered from the above, and its images
SHA256SUMS                                                 hashes of all of them, in the format of `sha256sum -c`
"""

import json
import math
import os
import re
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from safetensors import SafetensorError, safe_open

from decahub.evaluation.record import check_evaluation
from decahub.tasks import Report

from .card_facts import FolderFacts, build_report, build_split_report, check_config
from .files import (
    CARD,
    CHECKSUMS,
    CONFIG,
    EVALUATION,
    MAX_JSON_BYTES,
    RECIPE,
    SPLITS,
    TRAIN_LOG,
    WEIGHTS,
    hash_file,
    list_files,
    parse_json,
    parse_yaml,
    read_json,
    read_text,
    write_text,
)
from .model_card import render_card


class ModelFolder:
    """A model folder. Each file is read once, when it is first asked for; after a change, make a new object.

    Args:
        path (`str` or path): The folder.

    Raises:
        FileNotFoundError: Where a file is asked for that the folder lacks.
        ValueError: Where a file cannot be used, or is a link that leaves the folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    @cached_property
    def files(self) -> list[str]:
        """Names of all files but the checksums and hidden ones."""
        return list_files(self.path)

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`."""
        return read_json(self.path / CONFIG)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """`recipe.yaml`: the arguments of the run, and the texts of the card."""
        recipe = parse_yaml(read_text(self.path / RECIPE), f"{RECIPE} in {self.path}")
        if not all(isinstance(key, str) for key in recipe):
            raise ValueError(f"The keys of {RECIPE} in {self.path} must be texts; got {list(recipe)!r:.200}.")
        return recipe

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """`evaluation.json`: the scores."""
        evaluation = read_json(self.path / EVALUATION)
        check_evaluation(evaluation, f"{EVALUATION} in {self.path}")
        return evaluation

    @cached_property
    def train_log(self) -> list[dict[str, Any]]:
        """The rows of `train_log.jsonl`; empty where there is none."""
        path = self.path / TRAIN_LOG
        lines = read_text(path, MAX_JSON_BYTES).splitlines() if path.is_file() else []
        where = f"{TRAIN_LOG} in {self.path}, line"
        return [parse_json(line, f"{where} {number}") for number, line in enumerate(lines, start=1)]

    @cached_property
    def reports(self) -> list[Report]:
        """`splits.json` and each `report_*.json`, in this order."""
        reports = [build_split_report(read_json(self.path / SPLITS))] if SPLITS in self.files else []
        names = [name for name in self.files if name.startswith("report_") and name.endswith(".json")]
        return reports + [build_report(read_json(self.path / name), name) for name in names]

    @cached_property
    def checksums(self) -> dict[str, str]:
        """`SHA256SUMS`: file name -> hash. A line that names a place outside the folder is refused."""
        checksums = {}
        for line in read_text(self.path / CHECKSUMS).splitlines():
            digest, separator, name = line.partition("  ")
            if not separator or len(digest) != 64 or Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"Each line of `{CHECKSUMS}` must be '<sha256>  <file name>'; got {line[:200]!r}.")
            checksums[name] = digest
        return checksums

    @property
    def images(self) -> list[str]:
        """Names of the PNG files, which the card shows."""
        return [name for name in self.files if name.endswith(".png") and "/" not in name]

    @property
    def weights(self) -> list[str]:
        """Names of the files that hold the parameters of the model."""
        return [name for name in self.files if WEIGHTS.fullmatch(name)]

    @property
    def side_files(self) -> list[str]:
        """Names of further safetensors files, such as a support memory: not parameters of the model."""
        return [name for name in self.files if name.endswith(".safetensors") and name not in self.weights]

    @cached_property
    def facts(self) -> FolderFacts:
        """All that the card says."""
        return FolderFacts(
            self.config, self.recipe, self.evaluation, self.train_log, images=self.images, reports=self.reports
        )

    def count_values(self, name: str) -> int:
        """Number of values in a safetensors file, buffers included, from its header."""
        try:
            with safe_open(self.path / name, "numpy") as tensors:
                return sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"{name} in {self.path} must be a complete safetensors file; {error}.") from error

    def check_weights(self, needs_base: bool = True) -> str:
        """Loads the model; refuses weights that are absent, incomplete, not finite, or of another model or precision.

        Args:
            needs_base (`bool`, defaults to `True`): Whether adapters are loaded with their backbone, which may have to
                be downloaded; if not, only their file is checked.

        Returns:
            `str`: Class and number of parameters.
        """
        from decahub.tasks.loading import load_model

        check_config(self.config)
        self.files  # noqa: B018  (no link leaves the folder)
        if not self.weights:
            raise FileNotFoundError(
                f"A model folder must hold its weights; {str(self.path)!r} has no model.safetensors."
            )
        for name in self.weights:
            self._check_tensors(name)
        architecture = self.config["architectures"][0]
        if self.config.get("adapter_base") and not needs_base:
            return f"{architecture}, adapters without their backbone"
        model = load_model(self.path, architecture)
        return f"{architecture}, {model.num_parameters():,} parameters"

    def check_processor(self) -> str:
        """Loads the processor of the task; returns the name of its class."""
        from decahub.tasks.loading import load_processor
        from decahub.tasks.task import AUTO_PROCESSORS

        self.files  # noqa: B018  (no link leaves the folder)
        return type(load_processor(self.path, AUTO_PROCESSORS[self.facts.task.entry.processor])).__name__

    def _check_tensors(self, name: str) -> None:
        """Refuses a file that is cut off, or holds NaN or numbers of another precision than the configuration says."""
        import torch

        self.count_values(name)
        wanted = self.config.get("dtype") or self.config.get("torch_dtype")
        with safe_open(self.path / name, "pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118
                tensor = tensors.get_tensor(key)
                if not torch.isfinite(tensor).all():
                    raise ValueError(f"{name} in {self.path} must be finite; `{key}` holds NaN or infinity.")
                dtype = str(tensor.dtype).removeprefix("torch.")
                if tensor.is_floating_point() and wanted is not None and dtype != wanted:
                    raise ValueError(f"{name} in {self.path} must hold {wanted} as {CONFIG} says; `{key}` is {dtype}.")

    def render_card(self) -> ModelCard:
        """The model card that the other files give; nothing is written."""
        return render_card(self.facts)

    def write_card(self) -> None:
        """Renders the card into `README.md`; `SHA256SUMS` does not know of it yet."""
        write_text(self.path / CARD, str(self.render_card()))

    def write_checksums(self) -> None:
        """Writes `SHA256SUMS` over the files as they are now."""
        lines = [f"{hash_file(self.path / name)}  {name}\n" for name in list_files(self.path)]
        write_text(self.path / CHECKSUMS, "".join(lines))

    def find_problems(self) -> list[str]:
        """What is wrong with the files, one sentence each; empty if all agree with `SHA256SUMS`."""
        expected, present = self.checksums, self.files
        problems = [f"{name} is missing" for name in expected if name not in present]
        problems += [f"{name} is not listed in {CHECKSUMS}" for name in present if name not in expected]
        for name in present:
            if name in expected and hash_file(self.path / name) != expected[name]:
                hint = "; after an edit, run `decahub card`" if name in (RECIPE, CARD) else ""
                problems.append(f"{name} does not match the hash in {CHECKSUMS}{hint}")
        return problems

    def set_recipe_value(self, key: str, value: str) -> None:
        """Sets one argument in `recipe.yaml`; everything else, comments included, stays as it is."""
        text = read_text(self.path / RECIPE)
        line = yaml.safe_dump({key: value}, width=1000)
        changed, count = re.subn(rf"^{key}:.*(\n|\Z)", lambda match: line, text, flags=re.MULTILINE)
        if not count:
            changed = text + ("" if text.endswith("\n") or not text else "\n") + line
        write_text(self.path / RECIPE, changed)


def dump_report(report: Report) -> str:
    """The content of a `report_*.json`."""
    return json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n"
