"""EMO outside eager Python: torch.compile, torch.export, ONNX."""

import pytest
import torch
from torch.export import Dim

from decahub import EmoBackbone, EmoForImageClassification, EmoForSemanticSegmentation
from tests.tiny.emo import tiny_config


ATOL_COMPILED = 1e-5  # fused kernels sum in another order
ATOL_ONNX = 1e-5  # another library's kernels


def build(model_class, **fields):
    torch.manual_seed(0)
    return model_class(tiny_config(**fields)).eval()


def draw(batch_size: int, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randn(batch_size, 3, height, width, generator=torch.Generator().manual_seed(batch_size))


def export(model, dynamic_axes: tuple[int, ...], example: torch.Tensor):
    shapes = {"pixel_values": dict.fromkeys(dynamic_axes, Dim.DYNAMIC)}
    return torch.export.export(model, (), kwargs={"pixel_values": example}, dynamic_shapes=shapes).module()


def assert_runs_alike(program, model, *inputs: torch.Tensor) -> None:
    with torch.inference_mode():
        for pixel_values in inputs:
            expected = model(pixel_values).to_tuple()
            outputs = program(pixel_values=pixel_values).to_tuple()
            torch.testing.assert_close(outputs, expected, atol=ATOL_COMPILED, rtol=0)


@pytest.mark.parametrize(
    ("model_class", "fields"),
    [
        (EmoForImageClassification, {}),
        (EmoForImageClassification, {"mask_padding": True, "window_mode": "tile"}),
        (EmoForSemanticSegmentation, {"decode_head": "sem_fpn"}),
        (EmoBackbone, {"out_indices": [1, 4]}),
    ],
    ids=["classification", "masked tiles", "segmentation", "backbone"],
)
def test_exports_with_dynamic_batch(model_class, fields):
    model = build(model_class, **fields)

    program = export(model, (0,), draw(2))

    assert_runs_alike(program, model, draw(1), draw(2), draw(5))


def test_exports_with_dynamic_size():
    model = build(EmoForImageClassification, window_sizes=[0, 0, 0, 0])  # global attention knows no padding

    program = export(model, (0, 2, 3), draw(2, 160, 224))

    assert_runs_alike(program, model, draw(3), draw(1, 65, 97), draw(2, 128, 33))


@pytest.mark.slow
def test_onnx_of_pyramid_pooling_is_exact_at_any_size(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason='running ONNX needs `pip install "decahub[export]"`')
    model = build(EmoForSemanticSegmentation, decode_head="pspnet", window_sizes=[0, 0, 0, 0])
    shapes = {"pixel_values": dict.fromkeys((0, 2, 3), Dim.DYNAMIC)}

    torch.onnx.export(
        model,
        (),
        kwargs={"pixel_values": draw(2, 160, 224)},
        dynamo=True,
        dynamic_shapes=shapes,
        output_names=["logits"],
        verbose=False,
    ).save(tmp_path / "model.onnx")

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for pixel_values in (draw(3, 160, 224), draw(1, 65, 97), draw(2, 256, 320)):
        logits = torch.from_numpy(session.run(["logits"], {"pixel_values": pixel_values.numpy()})[0])
        with torch.inference_mode():
            torch.testing.assert_close(logits, model(pixel_values).logits, atol=ATOL_ONNX, rtol=0)


def test_exports_fused():
    model = build(EmoForImageClassification).fuse()

    program = export(model, (0,), draw(2))

    assert_runs_alike(program, model, draw(3))


@pytest.mark.parametrize(
    "build_model",
    [
        lambda: build(EmoForImageClassification),
        pytest.param(lambda: build(EmoForImageClassification).fuse(), marks=pytest.mark.slow),
        pytest.param(lambda: build(EmoForImageClassification, mask_padding=True), marks=pytest.mark.slow),
        pytest.param(lambda: build(EmoForSemanticSegmentation, decode_head="segformer"), marks=pytest.mark.slow),
    ],
    ids=["classification", "fused classification", "masked padding", "segmentation"],
)
def test_onnx_gives_the_same_logits_at_any_batch_size(build_model, tmp_path):
    pytest.importorskip("onnxscript", reason='ONNX export needs `pip install "decahub[export]"`')
    onnxruntime = pytest.importorskip("onnxruntime", reason='running ONNX needs `pip install "decahub[export]"`')
    model, file = build_model(), tmp_path / "model.onnx"

    torch.onnx.export(
        model,
        (),
        kwargs={"pixel_values": draw(2)},
        dynamo=True,
        dynamic_shapes={"pixel_values": {0: Dim.DYNAMIC}},
        output_names=["logits"],
        verbose=False,
    ).save(file)

    session = onnxruntime.InferenceSession(file)
    assert [value.name for value in session.get_inputs()] == ["pixel_values"]
    for pixel_values in (draw(1), draw(5)):
        logits = torch.from_numpy(session.run(["logits"], {"pixel_values": pixel_values.numpy()})[0])
        with torch.inference_mode():
            torch.testing.assert_close(logits, model(pixel_values).logits, atol=ATOL_ONNX, rtol=0)


@pytest.mark.parametrize("is_fused", [False, True])
def test_traces_into_one_graph(is_fused):
    """What `torch.compile` sees: no graph break, outputs as in eager. No C++ compiler is needed for this backend."""
    model = build(EmoForImageClassification)
    model = model.fuse() if is_fused else model
    torch.compiler.reset()

    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)

    with torch.inference_mode():
        torch.testing.assert_close(compiled(draw(2)).logits, model(draw(2)).logits, atol=ATOL_COMPILED, rtol=0)


@pytest.mark.slow
def test_compiles_and_trains():
    # Compiled code draws other random numbers, so nothing is dropped.
    model = build(EmoForImageClassification, drop_path_rate=0.0).train()
    twin = build(EmoForImageClassification, drop_path_rate=0.0).train()
    labels = torch.tensor([1, 6, 0])
    torch.compiler.reset()

    torch.compile(model)(draw(3), labels=labels).loss.backward()
    twin(draw(3), labels=labels).loss.backward()

    for (name, parameter), expected in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, atol=ATOL_COMPILED, rtol=1e-3, msg=name)
