"""What a teacher gives: states of one block of any plain vision transformer, and nothing of the blocks above it.

Expected values come from a slow reference: hooks on the projections of the whole, unchanged model.
"""

import copy

import pytest
import torch
from transformers import (
    BeitConfig,
    BeitModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    DeiTConfig,
    DeiTModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    IJepaConfig,
    IJepaModel,
    ResNetConfig,
    ResNetModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
)
from transformers.models.dinov3_vit.modeling_dinov3_vit import apply_rotary_pos_emb

from decahub import (
    TinyMimBackbone,
    TinyMimConfig,
    TinyMimForImageClassification,
    TinyMimForPreTraining,
    TinyMimModel,
    TinyMimTeacher,
)
from decahub.models.tinymim.vit_weights import from_vit


NUM_LAYERS, NUM_HEADS, LAYER = 4, 3, 3
SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": NUM_HEADS,
    "intermediate_size": 40,
    "image_size": 24,
    "patch_size": 8,
}
GRID = (3, 3)
PROJECTIONS = {"q": ("q_proj", "query"), "k": ("k_proj", "key"), "v": ("v_proj", "value")}
ATOL_FLOAT32 = 5e-6  # of values up to 5: fused attention below the block sums in another order
BFLOAT16_RTOL = 0.05  # three blocks with 8 bits of mantissa, against the largest value

MODELS = {
    "vit": lambda: ViTModel(ViTConfig(**SIZES)),
    "vit with a head": lambda: ViTForImageClassification(ViTConfig(**SIZES)),
    "deit": lambda: DeiTModel(DeiTConfig(**SIZES)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**SIZES)),
    "dinov2 with a head": lambda: Dinov2ForImageClassification(Dinov2Config(**SIZES)),
    "dinov2 with registers": lambda: Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(**SIZES, num_register_tokens=2)
    ),
    "beit": lambda: BeitModel(BeitConfig(**SIZES, use_relative_position_bias=True)),
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**SIZES)),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**SIZES)),
    "i-jepa": lambda: IJepaModel(IJepaConfig(**SIZES)),
}
OURS = {
    "model": TinyMimModel,
    "backbone": TinyMimBackbone,
    "pre-training": TinyMimForPreTraining,
    "classifier": TinyMimForImageClassification,
}
WITHOUT_CLASS_TOKEN = ("siglip", "i-jepa")


def build(name: str):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():  # so that biases, tokens and position tables that begin at zero matter
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def build_pixel_values(height: int = 24, width: int = 24, batch_size: int = 2) -> torch.Tensor:
    return torch.randn(batch_size, 3, height, width, generator=torch.Generator().manual_seed(1)) + 0.2


def find_block(model: torch.nn.Module, layer: int) -> torch.nn.Module:
    """The block of the first list that is as long as the model is deep."""
    lists = (module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    return next(blocks for blocks in lists if len(blocks) == NUM_LAYERS)[layer - 1]


def record_outputs(model, modules: dict[str, torch.nn.Module], **inputs) -> dict[str, torch.Tensor]:
    """Outputs of some modules in a full forward pass."""
    outputs = {}

    def keep(name):
        return lambda module, args, output: outputs.__setitem__(
            name, output[0] if isinstance(output, tuple) else output
        )

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    return outputs


def compute_slowly(model, pixel_values: torch.Tensor, layer: int = LAYER, **inputs) -> dict[str, torch.Tensor]:
    """Query, key and value of all tokens by hooks on the projections of the full model."""
    block = find_block(model, layer)
    projections = {
        state: next(module for name, module in block.named_modules() if name.split(".")[-1] in names)
        for state, names in PROJECTIONS.items()
    }
    outputs = record_outputs(model, projections, pixel_values=pixel_values, **inputs)
    return {name: value.unflatten(-1, (NUM_HEADS, -1)).transpose(1, 2) for name, value in outputs.items()}


def select_tokens(states: torch.Tensor, has_class_token: bool = True) -> torch.Tensor:
    """Class token and the last nine tokens, which are the patches."""
    patches = states[:, :, -9:]
    return torch.cat([states[:, :, :1], patches], dim=2) if has_class_token else patches


@pytest.mark.parametrize("name", MODELS)
def test_gives_the_states_of_the_full_model(name):
    model, pixel_values = build(name), build_pixel_values()
    has_class_token = name not in WITHOUT_CLASS_TOKEN

    states = TinyMimTeacher(model, LAYER).compute(pixel_values, GRID)

    expected = compute_slowly(model, pixel_values)
    assert set(states) == {"q", "k", "v"}
    for key, value in states.items():
        torch.testing.assert_close(value, select_tokens(expected[key], has_class_token), rtol=0, atol=ATOL_FLOAT32)


@pytest.mark.parametrize("name", MODELS)
def test_drops_registers_and_distillation_tokens(name):
    model = build(name)
    num_tokens = 9 if name in WITHOUT_CLASS_TOKEN else 10

    teacher = TinyMimTeacher(model, LAYER)

    assert teacher.has_cls == (num_tokens == 10)
    assert teacher.compute(build_pixel_values(), GRID)["k"].shape == (2, NUM_HEADS, num_tokens, 8)


def test_takes_query_and_key_after_the_rotation():
    torch.manual_seed(0)
    model = DINOv3ViTModel(DINOv3ViTConfig(**SIZES, num_register_tokens=2)).eval()
    pixel_values = build_pixel_values()

    states = TinyMimTeacher(model, LAYER).compute(pixel_values, GRID)

    plain = compute_slowly(model, pixel_values)
    cosine, sine = model.rope_embeddings(pixel_values)
    query, key = apply_rotary_pos_emb(plain["q"], plain["k"], cosine, sine)
    for name, expected in {"q": query, "k": key, "v": plain["v"]}.items():
        torch.testing.assert_close(states[name], select_tokens(expected), rtol=0, atol=ATOL_FLOAT32)
    assert not torch.allclose(states["q"], select_tokens(plain["q"]), atol=1e-3)


@pytest.mark.parametrize("kind", [ViTMAEModel, ViTMAEForPreTraining], ids=["encoder", "with decoder"])
def test_masked_autoencoder_neither_masks_nor_shuffles(kind):
    torch.manual_seed(0)
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    model = kind(ViTMAEConfig(**SIZES, **decoder)).eval()
    encoder = getattr(model, "vit", model)
    vit = ViTModel(ViTConfig(**SIZES), add_pooling_layer=False).eval()
    vit.load_state_dict(encoder.state_dict())
    teacher, pixel_values = TinyMimTeacher(model, LAYER), build_pixel_values()

    first, second = teacher.compute(pixel_values, GRID), teacher.compute(pixel_values, GRID)

    expected = TinyMimTeacher(vit, LAYER).compute(pixel_values, GRID)
    for name in expected:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected[name], rtol=0, atol=ATOL_FLOAT32)
    assert model.config.mask_ratio == ViTMAEConfig().mask_ratio


@pytest.mark.parametrize("name", ["vit", "dinov2", "clip", "beit", "i-jepa"])
def test_gives_the_features_of_the_full_model(name):
    model, pixel_values = build(name), build_pixel_values()
    block = find_block(model, LAYER)
    attention = next(getattr(block, part) for part in ("attention", "self_attn") if hasattr(block, part))
    modules = {"attention": attention, "ffn": block.mlp, "block": block}

    features = TinyMimTeacher(model, LAYER).compute(pixel_values, GRID, sources=("block", "ffn", "attention"))

    expected = record_outputs(model, modules, pixel_values=pixel_values)
    for key, value in features.items():
        wanted = expected[key] if name in WITHOUT_CLASS_TOKEN else expected[key][:, [0, *range(-9, 0)]]
        torch.testing.assert_close(value, wanted, rtol=0, atol=ATOL_FLOAT32)


def test_states_and_features_in_one_call():
    teacher = TinyMimTeacher(build("vit"), LAYER)
    pixel_values = build_pixel_values()

    together = teacher.compute(pixel_values, GRID, sources=("block", "qkv", "v"))

    assert list(together) == ["block", "qkv", "v"]
    states = teacher.compute(pixel_values, GRID)
    merged = torch.cat([states[name].transpose(1, 2).flatten(2) for name in "qkv"], dim=-1)
    assert torch.equal(together["qkv"], merged)
    assert torch.equal(together["block"], teacher.compute(pixel_values, GRID, sources=("block",))["block"])


@pytest.mark.parametrize("name", ["vit", "dinov2 with registers", "clip", "beit"])
@pytest.mark.parametrize("sources", [("q", "k", "v"), ("block", "q")], ids=["states", "block"])
def test_blocks_above_the_target_and_the_rest_of_it_never_run(name, sources):
    model, calls = build(name), []
    for layer in range(1, NUM_LAYERS + 1):
        find_block(model, layer).mlp.register_forward_hook(lambda *_, layer=layer: calls.append(layer))

    TinyMimTeacher(model, LAYER).compute(build_pixel_values(), GRID, sources=sources)

    assert calls == ([1, 2, 3] if "block" in sources else [1, 2])


@pytest.mark.parametrize("sources", [("q", "k", "v"), ("attention", "ffn", "block")], ids=["states", "features"])
def test_leaves_the_model_of_the_caller_alone(sources):
    model, pixel_values = build("vit with a head"), build_pixel_values()
    weights, config = copy.deepcopy(model.state_dict()), model.config.to_dict()
    modules, flags = list(model.named_modules()), [p.requires_grad for p in model.parameters()]
    logits = model(pixel_values).logits

    TinyMimTeacher(model, 2).compute(pixel_values, GRID, sources=sources)

    assert torch.equal(model(pixel_values).logits, logits)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert model.config.to_dict() == config
    assert model.config._attn_implementation != "tinymim_capture"
    assert [(name, id(module)) for name, module in model.named_modules()] == [(n, id(m)) for n, m in modules]
    assert [p.requires_grad for p in model.parameters()] == flags


def test_shares_the_weights_of_the_caller():
    model = build("vit")
    teacher = TinyMimTeacher(model, LAYER)
    before = teacher.compute(build_pixel_values(), GRID)["q"]

    with torch.no_grad():
        find_block(model, LAYER).attention.q_proj.weight.mul_(2)

    assert not torch.allclose(teacher.compute(build_pixel_values(), GRID)["q"], before)


def test_gives_no_gradients():
    states = TinyMimTeacher(build("vit"), LAYER).compute(build_pixel_values().requires_grad_(), GRID)

    assert not any(value.requires_grad for value in states.values())


@pytest.mark.parametrize("name", MODELS)
def test_fused_and_plain_attention_agree(name):
    model, pixel_values = build(name), build_pixel_values()
    model.set_attn_implementation("sdpa")
    fused = TinyMimTeacher(model, LAYER).compute(pixel_values, GRID)

    model.set_attn_implementation("eager")

    plain = TinyMimTeacher(model, LAYER).compute(pixel_values, GRID)
    for key, value in fused.items():
        torch.testing.assert_close(value, plain[key], rtol=0, atol=ATOL_FLOAT32)


@pytest.mark.parametrize(
    ("layer", "student_depth", "resolved"),
    [(1, None, 1), (4, 2, 4), (-1, None, 4), (-4, None, 1), (None, None, 3), (None, 3, 3), (None, 4, 4), (None, 9, 4)],
)
def test_resolves_the_layer(layer, student_depth, resolved):
    teacher = TinyMimTeacher(build("vit"), layer, student_num_hidden_layers=student_depth)

    assert teacher.layer == resolved


def test_every_layer_is_the_one_that_was_asked_for():
    model, pixel_values = build("dinov2"), build_pixel_values()

    for layer in range(1, NUM_LAYERS + 1):
        states = TinyMimTeacher(model, layer).compute(pixel_values, GRID)

        expected = compute_slowly(model, pixel_values, layer)
        torch.testing.assert_close(states["v"], expected["v"], rtol=0, atol=ATOL_FLOAT32)


@pytest.mark.parametrize("kind", OURS)
def test_models_of_this_package_are_teachers(kind):
    vit, pixel_values = build("vit"), build_pixel_values()
    # Exact GELU and the epsilon are those of the ViT; other classes hold the same weights.
    source = from_vit(vit)
    model = OURS[kind](source.config).eval()
    getattr(model, "tinymim", model).load_state_dict(source.state_dict(), strict=False)

    for layer in (1, LAYER, NUM_LAYERS):
        states = TinyMimTeacher(model, layer).compute(pixel_values, GRID)

        expected = compute_slowly(vit, pixel_values, layer)
        for key, value in states.items():
            torch.testing.assert_close(value, expected[key], rtol=0, atol=ATOL_FLOAT32)


def test_student_that_became_a_teacher_has_the_heads_of_its_own_teacher_in_the_last_block():
    torch.manual_seed(0)
    model = TinyMimForPreTraining(TinyMimConfig(**SIZES, teacher_num_attention_heads=6)).eval()

    last, inner = TinyMimTeacher(model, NUM_LAYERS), TinyMimTeacher(model, LAYER)

    assert (last.num_attention_heads, inner.num_attention_heads) == (6, NUM_HEADS)
    assert last.compute(build_pixel_values(), GRID)["q"].shape == (2, 6, 10, 4)
    assert inner.compute(build_pixel_values(), GRID)["q"].shape == (2, NUM_HEADS, 10, 8)


@pytest.mark.parametrize("name", MODELS)
def test_resizes_to_the_grid_of_the_student(name):
    teacher = TinyMimTeacher(build(name), LAYER, image_size="auto")

    states = teacher.compute(build_pixel_values(30, 50), grid=(3, 5))

    assert states["q"].shape[2] == 15 + teacher.has_cls


def test_resizes_bicubically_with_antialias():
    model, pixel_values = build("vit"), build_pixel_values(48, 48)
    small = torch.nn.functional.interpolate(pixel_values, size=(24, 24), mode="bicubic", antialias=True)

    states = TinyMimTeacher(model, LAYER, image_size=24).compute(pixel_values, GRID)

    assert torch.equal(states["q"], TinyMimTeacher(model, LAYER).compute(small, GRID)["q"])


def test_other_sizes_interpolate_the_positions():
    model, pixel_values = build("dinov2"), build_pixel_values(32, 16)

    states = TinyMimTeacher(model, LAYER).compute(pixel_values, grid=(4, 2))

    torch.testing.assert_close(states["q"], compute_slowly(model, pixel_values)["q"], rtol=0, atol=ATOL_FLOAT32)


def test_normalizes_again_for_the_teacher():
    model, pixels = build("clip"), torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    mean, std = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]

    def normalize(mean, std):
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    student_view = normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    states = TinyMimTeacher(model, LAYER, image_mean=mean, image_std=std).compute(student_view, GRID)

    expected = TinyMimTeacher(model, LAYER).compute(normalize(mean, std), GRID)
    # Two normalizations instead of one: pixels differ by a few roundings.
    torch.testing.assert_close(states["q"], expected["q"], rtol=0, atol=1e-5)


def test_teacher_of_its_own_precision():
    model, pixel_values = build("vit"), build_pixel_values()
    exact = TinyMimTeacher(model, LAYER).compute(pixel_values, GRID)

    rough = TinyMimTeacher(model, LAYER, dtype=torch.bfloat16).compute(pixel_values, GRID)

    assert model.dtype == torch.float32
    for name, value in rough.items():
        assert value.dtype == torch.bfloat16
        bound = BFLOAT16_RTOL * exact[name].abs().max().item()
        torch.testing.assert_close(value.float(), exact[name], rtol=0, atol=bound)


def test_runs_under_autocast():
    teacher, pixel_values = TinyMimTeacher(build("vit"), LAYER), build_pixel_values()
    exact = teacher.compute(pixel_values, GRID)["q"]

    with torch.autocast("cpu", torch.bfloat16):
        rough = teacher.compute(pixel_values, GRID)["q"]

    torch.testing.assert_close(rough.float(), exact, rtol=0, atol=BFLOAT16_RTOL * exact.abs().max().item())


@pytest.mark.parametrize(
    ("options", "expected"), [({}, torch.float64), ({"dtype": torch.float32}, torch.float32)], ids=["follows", "own"]
)
def test_follows_the_student_unless_it_has_a_precision_of_its_own(options, expected):
    model = build("vit")
    teacher = TinyMimTeacher(model, LAYER, **options)

    teacher.apply(lambda tensor: tensor.double())

    assert teacher.compute(build_pixel_values(), GRID)["q"].dtype == expected
    assert model.dtype == torch.float32
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_compiled_code_may_call_it():
    teacher, pixel_values = TinyMimTeacher(build("vit"), LAYER), build_pixel_values()

    compiled = torch.compile(lambda pixels: 2 * teacher.compute(pixels, GRID)["q"], backend="eager")

    torch.testing.assert_close(compiled(pixel_values), 2 * teacher.compute(pixel_values, GRID)["q"])


def test_configuration_fields_build_a_student_that_accepts_it():
    teacher = TinyMimTeacher(build("siglip"), 2, image_size="auto")

    fields = teacher.to_config_fields()

    assert {key: fields[key] for key in ("teacher_hidden_size", "teacher_num_attention_heads", "teacher_layer")} == {
        "teacher_hidden_size": 24,
        "teacher_num_attention_heads": NUM_HEADS,
        "teacher_layer": 2,
    }
    student = TinyMimForPreTraining(TinyMimConfig(**SIZES | {"num_hidden_layers": 2}, **fields))
    student.attach_teacher(teacher)
    assert student(build_pixel_values()).loss.isfinite()


@pytest.mark.parametrize(
    "build_model",
    [
        lambda: ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])),
        lambda: SwinModel(SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2])),
    ],
    ids=["resnet", "swin"],
)
def test_refuses_what_is_no_plain_vision_transformer(build_model):
    model = build_model().eval()

    with pytest.raises(ValueError, match="plain vision transformer"):
        TinyMimTeacher(model)


def test_refuses_what_is_no_model_of_transformers():
    with pytest.raises(TypeError, match="got Linear"):
        TinyMimTeacher(torch.nn.Linear(2, 2).eval())


@pytest.mark.parametrize("layer", [0, 5, -5])
def test_refuses_a_layer_that_is_not_there(layer):
    with pytest.raises(ValueError, match=f"1 to 4 or -4 to -1; got {layer}"):
        TinyMimTeacher(build("vit"), layer)


def test_refuses_training_mode_when_built_and_later():
    model = build("vit")
    teacher = TinyMimTeacher(model)
    model.train()

    with pytest.raises(ValueError, match="teacher.eval"):
        TinyMimTeacher(model)
    with pytest.raises(ValueError, match="teacher.eval"):
        teacher.compute(build_pixel_values(), GRID)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_pixels_that_are_not_finite(value):
    pixel_values = build_pixel_values()
    pixel_values[1, 2, 3, 4] = value

    with pytest.raises(ValueError, match="must be finite"):
        TinyMimTeacher(build("vit")).compute(pixel_values, GRID)


def test_refuses_another_grid_and_proposes_auto():
    with pytest.raises(ValueError, match=r"3 x 3 patches .* 4 x 3 for the student.*'auto'"):
        TinyMimTeacher(build("vit")).compute(build_pixel_values(), grid=(4, 3))


def test_refuses_an_unknown_source():
    with pytest.raises(ValueError, match="got 'attentions'"):
        TinyMimTeacher(build("vit")).compute(build_pixel_values(), GRID, sources=("attentions",))


def test_refuses_half_a_normalization():
    with pytest.raises(ValueError, match="`image_mean` and `image_std`"):
        TinyMimTeacher(build("vit"), image_mean=[0.5, 0.5, 0.5])
