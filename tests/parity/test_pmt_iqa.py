"""PMT-IQA computes the authors' numbers from the authors' weights: every golden file, by its kind.

What each key means, and how the files were made, is in the README of the golden folder. Other files of the same
kinds can be checked through `DECAHUB_GOLDEN_DIR`: weights, shapes, backbone, and which gradients there are, are read
from the file.
"""

import re
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch

from conversion.convert_pmt_iqa import NAME_MAP, build_official_shapes, convert_state_dict, infer_config
from decahub import PmtIqaForImageQualityAssessment, PmtIqaImageProcessor, PmtIqaImageProcessorPil, load_metric
from decahub.models.pmt_iqa.levels import LEVEL_PRESETS
from decahub.models.pmt_iqa.weighting import official_learning_rate, progressive_weights
from tests.parity.golden import golden_params


MODEL, TABLES = "model", "schedule_levels_metrics"
FLIPPED_UNITS_RTOL, FLIPPED_UNITS_COSINE, NOISE_FACTOR = 5e-2, 0.999, 4  # see `check_with_noise`
# Golden README: relative to the largest value of a tensor, for float32 runs of two implementations.
EVAL_RTOL, TRAIN_RTOL, GRADIENT_RTOL, COSINE = 1e-5, 1e-4, 1e-3, 0.99999
CORRELATION_ATOL, FIT_RTOL = 1e-9, 1e-5
SUM_RTOL = 1e-12  # sums of the same numbers in another order
# Adam's first step is the sign of the gradient times the rate: where that is rounding, anywhere in [-rate, rate].
STEP_RATES = 2
# The authors' range of labels does not show in the weights, and plays no part in the numbers of the files.
LABELS = {"score_low": -1e6, "score_high": 1e6}
PRESETS = {"live": "live", "livec_koniq": "live_challenge", "csiq": "csiq", "bid": "bid"}
STATES = r"stage\d_mean|lda\d|features|shared|score|level_logits|loss|loss_reg|loss_cls"

KNOWN_KEYS = {
    MODEL: [
        r"pixel_values_u8|labels|level_labels",
        rf"(eval|train)\.({STATES})",
        r"(eval|train)\.grad\..+",
        r"train\.after_step\..+",
        r"fill_check\.(sum|abs_sum)",
    ],
    TABLES: [
        r"schedule\.E\d+\.(w_reg|w_cls|lr)",
        rf"levels\.({'|'.join(PRESETS)})\.(label|level)",
        r"metrics\.\d+\.(crop_scores|image_scores|labels|srcc|plcc|krcc|plcc_fit|rmse_fit|fit_params)",
    ],
}


def fill(name: str, shape: list[int], salt: str) -> torch.Tensor:
    """The weight of a name, by the rule of the golden README."""
    normal = np.random.RandomState(zlib.crc32((salt + name).encode())).standard_normal(shape)
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if kind == "running_var":
        values = np.exp(0.2 * normal)
    elif len(shape) == 4:
        values = normal * np.sqrt(2 / np.prod(shape[1:]))
    elif len(shape) == 2:
        values = normal * np.sqrt(1 / shape[1])
    elif kind in ("running_mean", "bias"):
        values = 0.1 * normal
    else:
        values = 0.6 + 0.1 * normal
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


@cache
def fill_official(golden) -> dict[str, torch.Tensor]:
    names, shapes = golden.json("names"), golden.json("shapes")
    return {name: fill(name, shape, golden.metadata["fill_salt"]) for name, shape in zip(names, shapes, strict=True)}


def build_model(golden) -> PmtIqaForImageQualityAssessment:
    official = fill_official(golden)
    config = infer_config(official, **LABELS)
    model = PmtIqaForImageQualityAssessment(config)
    model.load_state_dict(convert_state_dict(official, config))
    model.task_weights = (float(golden.metadata["w_reg"]), float(golden.metadata["w_cls"]))
    return model.eval()


def prepare(golden, processor_class=PmtIqaImageProcessor) -> torch.Tensor:
    """Crops of the size of an image: the processor cuts nothing."""
    crops = [image.numpy() for image in golden["pixel_values_u8"]]
    return processor_class()(crops, return_tensors="pt").pixel_values[:, 0]


def compute_states(model, golden, dtype=torch.float32) -> dict[str, torch.Tensor]:
    """Everything that a file may hold of one forward pass."""
    inside = {}
    hook = model.shared.register_forward_hook(lambda module, inputs, output: inside.update(shared=output))
    bare = []
    bare_hook = model.pmt_iqa.register_forward_hook(lambda module, inputs, output: bare.append(output))
    outputs = model(
        prepare(golden).to(dtype),
        labels=golden["labels"],
        level_labels=golden["level_labels"],
        output_hidden_states=True,
    )
    hook.remove(), bare_hook.remove()
    states = {
        "features": bare[0].pooler_output,
        "shared": inside["shared"],
        "score": outputs.score[:, None],
        "level_logits": outputs.level_logits[:, 0],
        "loss": outputs.loss,
        "loss_reg": outputs.loss_reg,
        "loss_cls": outputs.loss_cls,
    }
    states |= {f"lda{index}": value for index, value in enumerate(bare[0].branch_features, 1)}
    states |= {f"stage{index}_mean": value.mean((2, 3)) for index, value in enumerate(outputs.hidden_states, 1)}
    return states


def assert_close(actual: torch.Tensor, expected: torch.Tensor, rtol: float, what: str) -> None:
    difference = (actual.detach().double() - expected.double()).abs().max()
    assert actual.shape == expected.shape, what
    assert difference <= rtol * expected.double().abs().max(), f"{what}: off by {difference:.3g}"


def check_states(states, golden, mode: str, rtol: float) -> None:
    stored = {key: value for key, value in golden.group(f"{mode}.").items() if re.fullmatch(STATES, key)}
    assert {"score", "level_logits", "loss"} <= stored.keys()
    for name, expected in stored.items():
        assert_close(states[name], expected, rtol, f"{mode} {name}")


@dataclass
class Pass:
    """One forward and backward pass, and in training an optimizer step and what follows from it."""

    states: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]
    after_step: dict[str, torch.Tensor]


@cache
def run_pass(golden, mode: str, dtype: torch.dtype) -> Pass:
    model = build_model(golden).to(dtype).train(mode == "train")
    states = compute_states(model, golden, dtype)
    states["loss"].backward()
    named = [(NAME_MAP.revert(name), parameter) for name, parameter in model.named_parameters()]
    result = Pass(states, {name: parameter.grad.clone() for name, parameter in named}, {})
    if mode == "train":
        optimizer = {"adam": torch.optim.Adam}[golden.metadata["optimizer"]](
            model.parameters(), lr=float(golden.metadata["lr"]), weight_decay=float(golden.metadata["weight_decay"])
        )
        optimizer.step()
        result.after_step.update({NAME_MAP.revert(name): tensor for name, tensor in model.state_dict().items()})
        with torch.no_grad():
            result.after_step["eval_score"] = model.eval()(prepare(golden).to(dtype)).score[:, None]
    return result


def check_with_noise(actual, exact, expected, rtol: float, what: str) -> float:
    """`actual` is as near to what is stored as float32 allows; returns the distance of the latter from float64.

    A unit of a ReLU near zero flips by rounding, and its gradient with it, and the sign of a gradient near zero is
    that of Adam's first step. So stored gradients near the image, and what follows from the step, differ from float64
    by up to 2 % themselves; ours may be a few times as far from them.
    """
    actual, exact, expected = (tensor.detach().double() for tensor in (actual, exact, expected))
    largest = expected.abs().max()
    noise = (exact - expected).abs().max()
    assert noise <= FLIPPED_UNITS_RTOL * largest, f"{what} in float64: off by {noise:.3g}"
    difference = (actual - expected).abs().max()
    assert difference <= max(rtol * largest, NOISE_FACTOR * noise), f"{what}: off by {difference:.3g}"
    return float(noise / largest)


def check_gradients(golden, mode: str) -> None:
    actual, exact = (run_pass(golden, mode, dtype).gradients for dtype in (torch.float32, torch.float64))
    expected = golden.group(f"{mode}.grad.")
    assert expected
    for name, gradient in expected.items():
        noise = check_with_noise(actual[name], exact[name], gradient, GRADIENT_RTOL, f"{mode} gradient of {name}")
        cosine = torch.nn.functional.cosine_similarity(actual[name].flatten(), gradient.flatten(), dim=0)
        assert cosine > (COSINE if noise <= GRADIENT_RTOL else FLIPPED_UNITS_COSINE), name


@pytest.mark.parametrize("golden", golden_params("pmt_iqa"))
def test_every_number_of_a_file_is_looked_at(golden):
    assert golden.kind in KNOWN_KEYS, f"{golden.path.name}: no test for `golden_kind` {golden.kind!r}"
    assert golden.unknown_keys(KNOWN_KEYS[golden.kind]) == []


@pytest.mark.parametrize("golden", golden_params("pmt_iqa", MODEL))
def test_weights_and_architecture(golden):
    official = fill_official(golden)
    constructor = golden.json("constructor")
    config = infer_config(official, **LABELS)
    model = build_model(golden)

    sums = torch.stack([tensor.double().sum() for tensor in official.values()])
    abs_sums = torch.stack([tensor.double().abs().sum() for tensor in official.values()])

    torch.testing.assert_close(sums, golden["fill_check.sum"], atol=1e-9, rtol=SUM_RTOL)
    torch.testing.assert_close(abs_sums, golden["fill_check.abs_sum"], atol=1e-9, rtol=SUM_RTOL)
    assert build_official_shapes(config) == {name: tuple(tensor.shape) for name, tensor in official.items()}
    assert sum(parameter.numel() for parameter in model.parameters()) == int(golden.metadata["num_parameters"])
    for theirs, ours in {
        "lda_out_channels": "lda_out_channels",
        "target_in_size": "target_in_size",
        "fc1": "hidden_size",
        "shared": "shared_size",
        "num_levels": "num_levels",
    }.items():
        assert getattr(config, ours) == constructor[theirs], ours


@pytest.mark.parametrize("golden", golden_params("pmt_iqa", MODEL))
def test_both_processors_prepare_the_same_pixels(golden):
    crops = golden["pixel_values_u8"].double() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (crops - mean.double()[:, None, None]) / std.double()[:, None, None]

    for processor_class in (PmtIqaImageProcessor, PmtIqaImageProcessorPil):
        assert_close(prepare(golden, processor_class), expected, 1e-6, processor_class.__name__)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("golden", golden_params("pmt_iqa", MODEL))
def test_states_and_losses(golden, mode):
    check_states(
        run_pass(golden, mode, torch.float32).states, golden, mode, EVAL_RTOL if mode == "eval" else TRAIN_RTOL
    )


@pytest.mark.parametrize("golden", golden_params("pmt_iqa", MODEL))
@torch.no_grad()
def test_evaluation_without_gradients(golden):
    check_states(compute_states(build_model(golden), golden), golden, "eval", EVAL_RTOL)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("golden", golden_params("pmt_iqa", MODEL))
def test_gradients(golden, mode):
    check_gradients(golden, mode)


@pytest.mark.parametrize("golden", golden_params("pmt_iqa", MODEL))
def test_one_optimizer_step(golden):
    actual, exact = (run_pass(golden, "train", dtype).after_step for dtype in (torch.float32, torch.float64))
    rate = float(golden.metadata["lr"])

    for name, expected in golden.group("train.after_step.").items():
        if name == "eval_score" or "running_" in name:
            check_with_noise(actual[name], exact[name], expected, TRAIN_RTOL, name)
        else:
            difference = (actual[name] - expected).abs()
            assert difference.max() <= STEP_RATES * rate, name
            assert difference.median() <= TRAIN_RTOL * rate, name


def table_cases(pattern: str):
    def list_cases(golden) -> list[str]:
        return sorted({found[1] for found in (re.match(pattern, key) for key in golden.tensors) if found})

    return list_cases


@pytest.mark.parametrize(
    ("golden", "num_epochs"), golden_params("pmt_iqa", TABLES, table_cases(r"schedule\.E(\d+)\."))
)
def test_schedule(golden, num_epochs):
    epochs, prefix = range(int(num_epochs)), f"schedule.E{num_epochs}"
    rates = [official_learning_rate(epoch, float(golden.metadata["lr0"])) for epoch in epochs]
    weights = [progressive_weights(epoch, int(num_epochs)) for epoch in epochs]

    assert rates == pytest.approx(golden[f"{prefix}.lr"].tolist(), rel=1e-15, abs=0)
    assert [w_reg for w_reg, _ in weights] == golden[f"{prefix}.w_reg"].tolist()
    assert [w_cls for _, w_cls in weights] == golden[f"{prefix}.w_cls"].tolist()


@pytest.mark.parametrize(("golden", "name"), golden_params("pmt_iqa", TABLES, table_cases(r"levels\.(\w+)\.")))
def test_levels(golden, name):
    binner = LEVEL_PRESETS[PRESETS[name]]
    if name != "live":  # the authors let labels at the upper end become a level that their model lacks
        binner = binner.with_options(num_levels=11)

    levels = binner(golden[f"levels.{name}.label"])

    assert levels.tolist() == golden[f"levels.{name}.level"].tolist()


@pytest.mark.parametrize(("golden", "case"), golden_params("pmt_iqa", TABLES, table_cases(r"metrics\.(\d+)\.")))
def test_metrics(golden, case):
    stored = golden.group(f"metrics.{case}.")
    num_images = len(stored["labels"])
    image_scores = stored["crop_scores"].reshape(num_images, -1).mean(1)

    result = load_metric("image_quality").compute(predictions=image_scores, references=stored["labels"])

    torch.testing.assert_close(image_scores, stored["image_scores"], atol=0, rtol=1e-14)
    for name in ("srcc", "plcc", "krcc"):
        assert result[name] == pytest.approx(float(stored[name]), abs=CORRELATION_ATOL), name
    for name in ("plcc_fit", "rmse_fit"):
        assert result[name] == pytest.approx(float(stored[name]), rel=FIT_RTOL), name
    assert result["fit_params"] == pytest.approx(stored["fit_params"].tolist(), rel=FIT_RTOL)
