"""The authors' names of CMT's tensors and ours."""

PLAIN_PARTS = (("conv", "convolution"), ("norm", "normalization"))
SEPARABLE_PARTS = (("dw_conv3x3", "depthwise"), ("pw_conv1x1", "convolution"), ("pw_norm", "normalization"))
_BLOCK, _OUR_BLOCK = "OSA{stage+2}_{block+1}", "stages.{stage}.blocks.{block}"
VOVNET_FIRST_LAYER = ("stem.stem_1", "stem.layers.0")
VOVNET_LAYERS = (
    ("stem.stem_{layer+1}", "stem.layers.{layer}"),
    (f"stage{{stage+2}}.{_BLOCK}.layers.{{layer}}.{_BLOCK}_{{layer}}", f"{_OUR_BLOCK}.layers.{{layer}}"),
)
"""Layers that a depth-wise network makes separable."""
VOVNET_PROJECTIONS = (
    (f"stage{{stage+2}}.{_BLOCK}.conv_reduction.{_BLOCK}_reduction_0", f"{_OUR_BLOCK}.reduction"),
    (f"stage{{stage+2}}.{_BLOCK}.concat.{_BLOCK}_concat", f"{_OUR_BLOCK}.projection"),
)
VOVNET_GATE = (f"stage{{stage+2}}.{_BLOCK}.ese.fc.*", f"{_OUR_BLOCK}.gate.projection.*")

RESNET_KEY_MAP = (
    ("conv1.*", "embedder.embedder.convolution.*"),
    ("bn1.*", "embedder.embedder.normalization.*"),
    *(
        (
            f"layer{{stage+1}}.{{block}}.{official}{{layer+1}}.*",
            f"encoder.stages.{{stage}}.layers.{{block}}.layer.{{layer}}.{ours}.*",
        )
        for official, ours in (("conv", "convolution"), ("bn", "normalization"))
    ),
    ("layer{stage+1}.{block}.downsample.0.*", "encoder.stages.{stage}.layers.{block}.shortcut.convolution.*"),
    ("layer{stage+1}.{block}.downsample.1.*", "encoder.stages.{stage}.layers.{block}.shortcut.normalization.*"),
)
"""torchvision's names of a ResNet with bottlenecks -> transformers'."""

IMAGE_NECK_KEY_MAP = (
    ("lateral_convs.{level}.conv.*", "lateral_convolutions.{level}.*"),
    ("fpn_convs.0.conv.*", "output_convolution.*"),
)


def build_vovnet_key_map(use_depthwise: bool) -> list[tuple[str, str]]:
    """The authors' templates of a VoVNet -> ours."""
    layers = SEPARABLE_PARTS if use_depthwise else PLAIN_PARTS
    rows = _combine([VOVNET_FIRST_LAYER], PLAIN_PARTS)  # never separable, hence before the other layers of the stem
    return [*rows, *_combine(VOVNET_LAYERS, layers), *_combine(VOVNET_PROJECTIONS, PLAIN_PARTS), VOVNET_GATE]


def _combine(layers, parts) -> list[tuple[str, str]]:
    # The authors join the name of a layer and its part by a slash.
    return [(f"{official}/{theirs}.*", f"{ours}.{part}.*") for official, ours in layers for theirs, part in parts]
