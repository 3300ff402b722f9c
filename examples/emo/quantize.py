"""Quantizes an EMO classifier to 8 bits with ONNX Runtime and measures what that costs.

    python examples/emo/quantize.py --model model_cards/emo-1m-cifar10

Dynamic quantization keeps activations in float32 but for their products with weights; static quantization also
fixes the ranges of activations, which it takes from training images, drawn anew for each seed. The files stay in
`output_dir`; the accuracies go to `docs/results/emo_int8.json`. Needs `pip install -e ".[export]"`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch.export import Dim

from decahub import EmoForImageClassification, EmoImageProcessor, load_dataset
from decahub.evaluation import Comparison, build_row, write_comparison
from decahub.training import argument, load_recipe


ACCURACY, SIZE = "top-1 accuracy (%)", "size of the file (MB)"
FLOAT32, DYNAMIC, STATIC = "float32", "8-bit weights, dynamic", "8-bit weights and activations, static"
CLAIM = "EMO-1M in 8 bits is at most half a point less accurate than in float32"
ROWS_AT_ONCE = 250


@dataclass
class Arguments:
    model: str = argument("model_cards/emo-1m-cifar10", "Model folder or Hub id of a classifier.")
    dataset: str = argument("cifar10", "Name of the dataset.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    seeds: list[int] = argument([0, 1, 2], "One draw of calibration images for each seed.")
    num_calibration_images: int = argument(512, "Training images that ranges of activations are taken from.")
    max_eval_samples: int | None = argument(None, "Evaluate at most this many rows.")
    output_dir: str = argument("runs/emo-int8", "Folder of the ONNX files.")
    results: str = argument("docs/results/emo_int8.json", "File of the result.")


class TrainingImages(CalibrationDataReader):
    def __init__(self, batches):
        self.batches = iter(batches)

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"pixel_values": batch.numpy()}


def export(model, pixel_values: torch.Tensor, file: Path) -> None:
    shapes = {"pixel_values": {0: Dim.DYNAMIC}}
    example = {"pixel_values": pixel_values[:2]}  # one image would fix the batch size at 1
    program = torch.onnx.export(
        model, (), kwargs=example, dynamo=True, dynamic_shapes=shapes, output_names=["logits"], verbose=False
    )
    program.save(file)


def prepare(processor, rows) -> torch.Tensor:
    """Pixels of all rows."""
    starts = range(0, len(rows), ROWS_AT_ONCE)
    return torch.cat(
        [processor(rows[i : i + ROWS_AT_ONCE]["image"], return_tensors="pt")["pixel_values"] for i in starts]
    )


def measure(file: Path, pixel_values: torch.Tensor, labels: np.ndarray) -> float:
    """Accuracy of a file, in percent."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"pixel_values": part.numpy()})[0] for part in pixel_values.split(ROWS_AT_ONCE)]
    return 100 * float((np.concatenate(parts).argmax(1) == labels).mean())


def main():
    arguments = load_recipe(Arguments)
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    model = EmoForImageClassification.from_pretrained(arguments.model).eval()
    processor = EmoImageProcessor.from_pretrained(arguments.model)
    splits = load_dataset(arguments.dataset, arguments.data_dir)
    test = splits["test"].select(range(min(arguments.max_eval_samples or len(splits["test"]), len(splits["test"]))))
    pixel_values, labels = prepare(processor, test), np.array(test["label"][:])

    plain, fused, prepared = (folder / f"{name}.onnx" for name in ("float32", "fused", "prepared"))
    export(model, pixel_values, plain)
    export(model.fuse(), pixel_values, fused)  # most of its weights are in linear layers, which dynamic ranges suit
    quant_pre_process(fused, prepared)
    dynamic = folder / "dynamic.onnx"
    quantize_dynamic(
        prepared, dynamic, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8
    )
    quant_pre_process(plain, prepared)
    calibrated = []
    for seed in arguments.seeds:
        calibrated.append(folder / f"static-seed{seed}.onnx")
        rows = splits["train"].shuffle(seed=seed)
        rows = rows.select(range(min(arguments.num_calibration_images, len(rows))))
        images = TrainingImages(prepare(processor, rows).split(64))
        # Signed activations, the default, are four times as slow on x86.
        quantize_static(prepared, calibrated[-1], images, per_channel=True, activation_type=QuantType.QUInt8)

    rows = []
    for name, files, seeds in (
        (FLOAT32, [plain], []),
        (DYNAMIC, [dynamic], []),
        (STATIC, calibrated, arguments.seeds),
    ):
        accuracies = [measure(file, pixel_values, labels) for file in files]
        print(f"{name:40} accuracy {np.mean(accuracies):.2f}", flush=True)
        facts = {"split": "test", "num_parameters": model.num_parameters()}
        rows.append(build_row(name, arguments.dataset, ACCURACY, accuracies, seeds, **facts))
        rows.append(
            build_row(name, arguments.dataset, SIZE, [file.stat().st_size / 1e6 for file in files], seeds, **facts)
        )
    verdict = write_comparison(
        arguments.results,
        method="emo",
        claim=CLAIM,
        comparisons=[Comparison(arguments.dataset, ACCURACY, STATIC, FLOAT32, margin=-0.5)],
        rows=rows,
    )
    print(f"{CLAIM}: {verdict}")


if __name__ == "__main__":
    main()
