"""The reader of DINOv2 encoders in ONNX files: weights of a made-up graph arrive in `Dinov2Model` bit by bit."""

import json
import zipfile

import pytest
import torch
from transformers import AutoImageProcessor, Dinov2Config, Dinov2Model

from conversion.checkpoint import ConversionError, find_changed_tensors
from conversion.convert_dinov2_onnx import convert_checkpoint, main, read_graph, read_state_dict


onnx = pytest.importorskip("onnx", reason='reading ONNX needs `pip install "decahub[export]"`')

OLD_NAMES = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
}
POSITIONS = "embeddings.position_embeddings"


def build_model() -> Dinov2Model:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=3, mlp_ratio=2, image_size=28, patch_size=7
    )
    model = Dinov2Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
        model.embeddings.mask_token.zero_()  # an export does not hold it
    return model


def to_graph(model: Dinov2Model, extra: dict[str, torch.Tensor] | None = None):
    """A graph as an export makes it: linear weights transposed and without names, the position table in two parts."""
    nodes, initializers = [], []

    def add(name: str, tensor: torch.Tensor, op_type: str, node: str):
        initializers.append(onnx.numpy_helper.from_array(tensor.detach().numpy().copy(), name))
        nodes.append(onnx.helper.make_node(op_type, ["input", name], [f"output_{len(nodes)}"], name=node))

    for name, tensor in model.state_dict().items():
        old = f"backbone.{name}"
        for new_part, old_part in OLD_NAMES.items():
            old = old.replace(new_part, old_part)
        path = "/" + old.rpartition(".")[0].replace(".", "/")
        if name == POSITIONS:
            add("onnx::Concat_1", tensor[:, :1], "Concat", "/backbone/embeddings/Concat_1")
            add("onnx::Reshape_2", tensor[:, 1:], "Reshape", "/backbone/embeddings/Reshape_1")
        elif tensor.ndim == 2 and name.endswith("weight"):
            add(f"onnx::MatMul_{len(nodes)}", tensor.T, "MatMul", f"{path}/MatMul")
        elif not name.endswith("mask_token"):
            add(old, tensor, "Add", f"{path}/Add")
    add("decoder.weight", torch.ones(2, 2), "Conv", "/decoder/Conv")
    for name, tensor in (extra or {}).items():
        add(name, tensor, "Mul", "/backbone/encoder/Mul")
    return onnx.helper.make_graph(nodes, "encoder", [], [], initializers)


def write_onnx(path, graph):
    onnx.save_model(onnx.helper.make_model(graph), str(path))
    return path


def write_wheel(path, **files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"package/{name}.onnx", content)
    return path


@pytest.fixture
def onnx_file(tmp_path):
    return write_onnx(tmp_path / "model.onnx", to_graph(build_model()))


def test_every_weight_arrives(onnx_file, tmp_path):
    model = build_model()

    convert_checkpoint(onnx_file, tmp_path / "out", num_attention_heads=3)

    loaded, info = Dinov2Model.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not find_changed_tensors(model.state_dict(), loaded.state_dict())
    pixel_values = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(loaded(pixel_values).last_hidden_state, model(pixel_values).last_hidden_state)


def test_report_tells_what_was_left_out(onnx_file, tmp_path):
    convert_checkpoint(onnx_file, tmp_path / "out", num_attention_heads=3)

    report = json.loads((tmp_path / "out" / "parity_report.json").read_text())
    assert report["names"]["dropped"] == {"decoder.weight": "belongs to what follows the encoder"}
    assert report["not_in_the_tensors"]["num_attention_heads"] == 3


def test_folder_has_the_processor(onnx_file, tmp_path):
    convert_checkpoint(onnx_file, tmp_path / "out")

    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")

    assert processor(torch.zeros(3, 300, 280), return_tensors="pt")["pixel_values"].shape == (1, 3, 224, 224)


def test_reads_out_of_a_wheel(onnx_file, tmp_path):
    wheel = write_wheel(tmp_path / "package.whl", model=onnx_file.read_bytes())

    state_dict, _ = read_state_dict(read_graph(wheel))

    assert not find_changed_tensors(state_dict, read_state_dict(read_graph(onnx_file))[0])


def test_command_line(onnx_file, tmp_path, capsys):
    main(["--checkpoint", str(onnx_file), "--output_dir", str(tmp_path / "out"), "--num_attention_heads", "3"])

    assert "Dinov2Model" in capsys.readouterr().out


def test_refuses_a_wheel_with_two(onnx_file, tmp_path):
    content = onnx_file.read_bytes()
    wheel = write_wheel(tmp_path / "package.whl", first=content, second=content)

    with pytest.raises(ConversionError, match=r"one ONNX file.*first\.onnx.*second\.onnx"):
        read_graph(wheel)


@pytest.mark.parametrize("content", [b"", b"no protobuf at all"], ids=["empty", "text"])
def test_refuses_a_damaged_file(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    with pytest.raises(ConversionError, match="`checkpoint` must"):
        read_graph(path)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.onnx"):
        read_graph(tmp_path / "nothing.onnx")


def test_refuses_a_weight_of_the_encoder_that_it_does_not_know():
    graph = to_graph(build_model(), extra={"onnx::Mul_99": torch.ones(1, 3, 12)})

    with pytest.raises(ConversionError, match="onnx::Mul_99"):
        read_state_dict(graph)


def test_refuses_a_missing_weight(tmp_path):
    graph = to_graph(build_model())
    kept = [item for item in graph.initializer if not item.name.endswith("layer.1.norm2.bias")]
    del graph.initializer[:]
    graph.initializer.extend(kept)

    with pytest.raises(ConversionError, match=r"missing: encoder\.layer\.1\.norm2\.bias"):
        convert_checkpoint(write_onnx(tmp_path / "model.onnx", graph), tmp_path / "out", num_attention_heads=3)
    assert not (tmp_path / "out").exists()
