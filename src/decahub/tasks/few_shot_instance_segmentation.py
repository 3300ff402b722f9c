"""Few-shot instance segmentation: COCO average precision of base and novel classes, overlays of found instances."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .image_task import ImageTask
from .measurement import Measurement, MeasurementContext, Scores
from .output_files import OutputFiles
from .task import evaluating


MAX_DETECTIONS = 100  # of an image, as COCO counts
MASK_ENDING = "_mask"
REMOTE_USAGE = """\
from PIL import Image
from transformers import AutoProcessor
from transformers.dynamic_module_utils import get_class_from_dynamic_module

model_class = get_class_from_dynamic_module("CLASS", "MODEL")
model = model_class.from_pretrained("MODEL", trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained("MODEL", trust_remote_code=True)
support = {"LABEL": [(Image.open("example.png"), Image.open("example_mask.png"))]}  # a mask shows one instance
memory = model.register_support(support, processor=processor)
image = Image.open("image.png")
inputs = processor(image, return_tensors="pt")
outputs = model(**inputs, support_memory=memory)
print(
    processor.post_process_instance_segmentation(
        outputs,
        target_sizes=[(image.height, image.width)],
        pixel_mask=inputs["pixel_mask"],
        label_names=NAMES,
        return_coco_annotation=True,
    )
)"""
SCORES = ("AP", "AP50", "nAP", "nAP50", "bAP", "bAP50", "class_agnostic_AP50", "box_AP", "box_nAP", "box_bAP")


class FewShotInstanceSegmentation(ImageTask):
    """A mask for each instance of classes that a few examples show."""

    columns = ("image", "class", "score", "box", "written to")
    written = ("*_instances.png",)

    def predict(self, model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        memory = model.support_memory
        outputs = model(pixel_values=batch["pixel_values"], pixel_mask=batch["pixel_mask"], support_memory=memory)
        detections = processor.post_process_instance_segmentation(
            outputs,
            threshold=0.0,
            target_sizes=batch["size"],
            pixel_mask=batch["pixel_mask"],
            max_detections=MAX_DETECTIONS,
            return_coco_annotation=True,
        )
        if model.config.classifier == "prototype":  # whose labels count the classes of the memory
            label_ids = [model.config.label2id[name] for name in memory.class_names]
            detections = [
                [{**found, "label_id": label_ids[found["label_id"]]} for found in image] for image in detections
            ]
        return {"predictions": detections, "references": batch["annotations"]}

    def measure(self, model: Any, processor: Any, rows: Any, context: MeasurementContext) -> Measurement:
        """As [`Task.measure`], with the support memory of the model; classes that it does not know are left out.

        These are the classes that `config.base_label_ids` and `config.novel_label_ids` list, if they do.
        """
        names = self.check_labels(model, context.label_names)
        memory, config = model.support_memory, model.config
        if config.classifier == "prototype":
            if memory is None:
                raise ValueError(
                    "`model.support_memory` must be set for a prototype classifier to be measured. Register support: "
                    "`model.support_memory = model.register_support({...})`."
                )
            unknown = [name for name in memory.class_names if name not in config.label2id]
            if unknown:
                raise ValueError(f"`model.support_memory` must hold classes of the dataset; {unknown[0]!r} is none.")
        metric = self.build_metric()
        num_rows = 0
        with evaluating(model):
            for columns in self.iterate_predictions(model, processor, self.sample_rows(rows, context.limit), context):
                metric.add_batch(**columns)
                num_rows += len(columns["references"])
        result = metric.compute(base_label_ids=config.base_label_ids, novel_label_ids=config.novel_label_ids)
        facts: dict[str, Any] = {}
        if memory is not None:
            facts = {"num_ways": len(memory), "num_shots": max(memory.shot_counts.values())}
        return self.build_measurement(result, names, num_rows, **facts)

    def summarize(self, result: Mapping[str, Any], label_names: Sequence[str]) -> Scores:
        """The scores; with novel classes nAP is the headline."""
        names = SCORES if result["nAP"] is None else ("nAP", *(name for name in SCORES if name != "nAP"))
        by_class = {f"AP_{label_names[label]}": value for label, value in result["per_category_AP"].items()}
        return {name: result[name] for name in names if result[name] is not None} | by_class

    def describe_measurement(self, dataset: Mapping[str, Any]) -> str:
        if "num_ways" not in dataset:
            return "Measured without support."
        return f"Measured with support of {dataset['num_ways']} classes, up to {dataset['num_shots']} shots of each."

    def usage(self, facts: Any, remote: bool, trust: str) -> str:
        # Only a prototype head takes classes of any name.
        is_free = facts.config.get("classifier") == "prototype"
        label = "forklift" if is_free else facts.config["id2label"][min(facts.config["id2label"], key=int)]
        if remote:
            names = "memory.class_names" if is_free else "model.config.id2label"
            return (
                REMOTE_USAGE.replace("MODEL", facts.model_id)
                .replace("CLASS", facts.class_reference)
                .replace("LABEL", label)
                .replace("NAMES", names)
            )
        return (
            "from transformers import pipeline\n\n"
            f'segment = pipeline("{self.name}", model="{facts.model_id}"{trust})\n'
            f'support = {{"{label}": [("example.png", "example_mask.png")]}}  # a mask shows one instance\n'
            'for instance in segment("image.png", support=support):\n'
            '    print(instance["label"], instance["score"], instance["box"])'
        )

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--support",
            type=Path,
            help="examples: a folder of <class>/<name>.jpg with <class>/<name>_mask.png, or a COCO JSON file; by "
            "default those that were saved with the model",
        )
        parser.add_argument("--support-memory", help="encoded examples: folder or Hub id with a support memory")
        parser.add_argument("--save-support-memory", type=Path, help="write the encoded examples to this folder")
        parser.add_argument("--threshold", type=float, default=0.5, help="least score (default: 0.5)")
        parser.add_argument("--max-detections", type=int, default=100, help="most instances (default: 100)")

    def check_outputs(self, arguments: Any, files: OutputFiles) -> None:
        if arguments.save_support_memory is not None:
            from decahub.models.reft.support.memory import MEMORY_FILE

            files.check(arguments.save_support_memory / MEMORY_FILE, "--save-support-memory")

    def build_predictor(self, arguments: Any) -> Any:
        """The pipeline, with the support that the options name."""
        support = None if arguments.support is None else read_support(arguments.support)
        predictor = super().build_predictor(arguments)
        memory = predictor.build_memory(support, arguments.support_memory)
        if arguments.save_support_memory is not None:
            if memory is None:
                raise ValueError("`--save-support-memory` must come with `--support`; there are no examples to save.")
            memory.save_pretrained(arguments.save_support_memory)
        predictor.model.support_memory = memory
        return predictor

    def answer(self, predictor: Any, item: Any, arguments: Any, files: OutputFiles) -> list[Sequence[Any]]:
        image = self.read_image(item)
        targets = [files.choose(item, f"_instances.{ending}") for ending in ("png", "json")]
        options = {"threshold": arguments.threshold, "max_detections": arguments.max_detections}
        instances = predictor(image, **options)
        overlay = io.BytesIO()
        predictor.draw_overlay(image, instances).save(overlay, format="PNG")
        files.write(targets[0], overlay.getvalue())
        files.write(targets[1], f"{json.dumps(instances, indent=1)}\n".encode())
        written = f"{targets[0]}, .json"
        if not instances:
            return [(item.name, "none", "", "", written)]
        return [
            (item.name, instance["label"], instance["score"], " ".join(map(str, instance["box"])), written)
            for instance in instances
        ]


def read_support(path: Path) -> dict[str, list[tuple[Any, Any]]]:
    """Examples of each class: a folder of images with masks, or a COCO file.

    Args:
        path (`Path`): A folder with a folder for each class, in it images and for each image `<name>.jpg` a mask
            `<name>_mask.png`, white for the instance; further masks of the image are `<name>_mask_2.png` and so on. Or
            a COCO JSON file beside its images, each of whose annotations is an example.

    Raises:
        FileNotFoundError: If there is nothing of the kind.
        ValueError: If an image has no mask, a mask no image, a class neither, or two images one mask.
    """
    if path.is_file() and path.suffix == ".json":
        return _read_coco_support(path)
    if not path.is_dir():
        raise FileNotFoundError(f"`--support` must be a folder or a COCO JSON file; {str(path)!r} is neither.")
    from PIL import Image

    suffixes = Image.registered_extensions()
    support: dict[str, list[tuple[Any, Any]]] = {}
    for folder in sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith(".")):
        found = sorted(item for item in folder.iterdir() if item.suffix.lower() in suffixes)
        masks = [item for item in found if MASK_ENDING in item.stem]
        images: dict[str, Path] = {}
        for item in found:
            if item not in masks and images.setdefault(item.stem, item) != item:
                names = " and ".join(repr(f"{folder.name}/{one.name}") for one in (images[item.stem], item))
                raise ValueError(f"`--support` must hold images of different names; {names} share a mask.")
        pairs = [(images.get(mask.stem[: mask.stem.rindex(MASK_ENDING)]), mask) for mask in masks]
        for image, mask in pairs:
            if image is None:
                raise ValueError(f"`--support` must hold an image for each mask; {str(mask)!r} has none.")
        without = sorted(set(images.values()) - {image for image, _ in pairs})
        if without:
            expected = without[0].with_name(f"{without[0].stem}{MASK_ENDING}.png")
            raise ValueError(f"`--support` must hold a mask for each image; {str(expected)!r} does not exist.")
        if not pairs:
            raise ValueError(f"`--support` must hold an image and a mask for each class; {folder.name!r} holds none.")
        support[folder.name] = [(str(image), str(mask)) for image, mask in pairs]
    if not support:
        raise FileNotFoundError(
            f"`--support` must hold a folder for each class with images and masks; {str(path)!r} holds none."
        )
    return support


def _read_coco_support(path: Path) -> dict[str, list[tuple[Any, Any]]]:
    from decahub.data.coco_files import name_split, read_coco_json

    rows = read_coco_json(path, name_split(path))
    names = rows.features["annotations"].feature["label"].names
    support: dict[str, list[tuple[Any, Any]]] = {}
    for row in rows:
        for annotation in row["annotations"]:
            if not annotation["iscrowd"]:
                shot = (row["image"].convert("RGB"), json.loads(annotation["segmentation"]))
                support.setdefault(names[annotation["label"]], []).append(shot)
    if not support:
        raise ValueError(f"`--support` must hold at least one annotation; {str(path)!r} holds none.")
    return support


__all__ = ["FewShotInstanceSegmentation", "read_support"]
