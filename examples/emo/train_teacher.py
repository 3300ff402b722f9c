"""Fine-tunes an image classifier, to be imitated by EMO (`decahub train emo/cifar10 --teacher FOLDER/model`).

    python examples/emo/train_teacher.py --pretrained timm/tf_efficientnet_lite0.in1k

Any image classifier that transformers loads can be a teacher, if it knows the classes of the dataset: this script is
for those that do not yet. If the run is killed and started again, it continues where it stopped.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch.nn import functional
from transformers import AutoModelForImageClassification

from decahub import EmoImageProcessor
from decahub.data import InMemoryDataset, SeededTransform, image_classification
from decahub.evaluation import evaluate_model, write_json
from decahub.models.emo.optimization import build_parameter_groups
from decahub.procedures.data_arguments import DataArguments, check_splits, load_splits, name_classes
from decahub.procedures.pretrained import load_pretrained
from decahub.training import LoopArguments, Update, argument, load_recipe, train


TASK = "image-classification"


@dataclass
class Arguments(DataArguments, LoopArguments):
    pretrained: str = argument("timm/tf_efficientnet_lite0.in1k", "Image classifier: model folder or Hub id.")
    image_size: int = argument(64, "Side of the images it sees, in pixels.")
    label_smoothing: float = argument(0.0, "Label smoothing of the loss; it makes worse teachers.")
    num_train_epochs: float = argument(2, "Epochs.")
    per_device_train_batch_size: int = argument(64, "Images of a step.")
    per_device_eval_batch_size: int = argument(250, "Images measured at once.")
    learning_rate: float = argument(1e-3, "Peak of the learning rate.")
    weight_decay: float = argument(0.05, "Weight decay.")
    warmup_ratio: float = argument(0.05, "Share of the steps that are linear warm-up.")
    save_every_minutes: float | None = argument(5, "Minutes between checkpoints.")
    output_dir: str = argument("runs/emo-teacher", "Its subfolder `model` is the result.")

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"`label_smoothing` must be in [0, 1); got {self.label_smoothing!r}.")
        if self.image_size < 8:
            raise ValueError(f"`image_size` must be at least 8; got {self.image_size!r}.")


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)
    splits = load_splits(arguments, TASK)
    size = {"height": arguments.image_size, "width": arguments.image_size}
    processor = EmoImageProcessor(size=size, do_center_crop=False)
    check_splits(arguments, splits, processor, TASK)
    fields = {"num_labels": len(splits.label_names), **name_classes(splits.label_names)}
    model = load_pretrained(AutoModelForImageClassification, arguments.pretrained, **fields)
    if hasattr(model.config, "label_names"):  # of timm: written in place of `id2label`, and not changed with it
        model.config.label_names = list(splits.label_names)
    model.to(memory_format=torch.channels_last)  # less than half the time on a CPU
    padding = arguments.image_size // 8
    transform = image_classification.build_train_transform(processor, "crop_flip", crop_padding=padding)
    images = InMemoryDataset(splits.train, image_classification.decode_row, "Decoding images")
    optimizer = torch.optim.AdamW(build_parameter_groups(model, arguments.weight_decay), lr=arguments.learning_rate)

    def step(model, batch):
        logits = model(pixel_values=batch["pixel_values"]).logits
        return {"loss": functional.cross_entropy(logits, batch["labels"], label_smoothing=arguments.label_smoothing)}

    def measure(model, rows):
        limits = {"batch_size": arguments.per_device_eval_batch_size, "limit": arguments.max_eval_samples}
        return evaluate_model(model, processor, rows, TASK, **limits).scores

    result = train(
        model,
        Update(optimizer, step, scheduler=arguments.build_scheduler),
        SeededTransform(images, transform, arguments.seed),
        arguments,
        collate_fn=image_classification.collate,
        evaluate=lambda model: measure(model, splits.monitor),
    )
    if not result.is_main_process:
        return
    scores = measure(result.model, splits.evaluation)
    folder = Path(arguments.output_dir) / "model"
    result.model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_json(folder / "scores.json", scores)
    print(scores)


if __name__ == "__main__":
    main()
