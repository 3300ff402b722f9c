"""The authors' names of RELIANT's tensors, and ours, for each kind of network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from decahub import ReliantConfig, ReliantForNodeClassification

from .checkpoint import ConversionError, shapes_of
from .name_map import NameMap


@dataclass(frozen=True)
class Layout:
    """How the authors name the tensors of one network.

    Args:
        architecture (`str`): as in [`ReliantConfig`].
        marks (`tuple[str, ...]`): of which a state dict has at least one name that ends so.
        hidden_rows (`tuple`): rows of the table of names for hidden layers, `{layer}` counted from 0.
        classifier_rows (`tuple`): rows for the last layer, whose number is put in place of `{last}`.
        transposed (`tuple[str, ...]`): endings of the authors' names whose matrices are stored `[in, out]`.
        dropped (`Mapping[str, str]`): names without a place in decahub, and the reason.
    """

    architecture: str
    marks: tuple[str, ...]
    hidden_rows: tuple[tuple[str, str], ...]
    classifier_rows: tuple[tuple[str, str], ...]
    transposed: tuple[str, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)


SGC = Layout(
    "sgc",
    (".fc.weight",),
    (
        ("layers.{layer}.fc.weight", "reliant.layers.{layer}.projection.weight"),
        ("layers.{layer}.fc.bias", "reliant.layers.{layer}.bias"),
    ),
    (("layers.{last}.fc.weight", "classifier.projection.weight"), ("layers.{last}.fc.bias", "classifier.bias")),
)
GCN = Layout(
    "gcn",
    ("layers.0.weight",),
    (
        ("layers.{layer}.weight", "reliant.layers.{layer}.projection.weight"),
        ("layers.{layer}.bias", "reliant.layers.{layer}.bias"),
    ),
    (("layers.{last}.weight", "classifier.projection.weight"), ("layers.{last}.bias", "classifier.bias")),
    transposed=(".weight",),
)
SAGE = Layout(
    "sage",
    (".fc_neigh.weight",),
    (
        ("layers.{layer}.fc_neigh.weight", "reliant.layers.{layer}.projection.weight"),
        ("layers.{layer}.bias", "reliant.layers.{layer}.bias"),
    ),
    (("layers.{last}.fc_neigh.weight", "classifier.projection.weight"), ("layers.{last}.bias", "classifier.bias")),
)
PLP = Layout(
    "plp",
    ("plp_layer.attn_l", "plp_layer.fc_emb"),
    (("plp_layer.mlp.linears.{layer}.*", "reliant.layers.{layer}.projection.*"),),
    (
        ("plp_layer.mlp.linears.{last}.*", "classifier.projection.*"),
        ("plp_layer.lr_alpha", "classifier.node_balance"),
    ),
    dropped={"alpha": "never used by the authors' code"},
)
LAYOUTS = (PLP, SAGE, SGC, GCN)

OWN_BUFFERS = ("reliant.proxy_mean", "classifier.known_labels")
"""What the authors keep outside their state dicts: the mean of the proxy, a separate tensor, and training labels."""

DISCRIMINATOR_KEY_MAP = (
    ("Dl.lin.*", "logits_discriminator.hidden.*"),
    ("Dl.lin2.weight", "logits_discriminator.output.weight"),
    ("De.d", "edge_discriminator.weight"),
    ("De.scale", "edge_discriminator.scale"),
    ("Dg.d", "summary_discriminator.weight"),
    ("Dg.scale", "summary_discriminator.scale"),
)
"""`Dl`, `De` and `Dg` stand before the names of the authors' three modules, which have none in common."""


def find_official_layout(names: Iterable[str]) -> Layout:
    """The kind of network that has these names of the authors.

    Raises:
        ConversionError: If no known kind has.
    """
    names = list(names)
    for layout in LAYOUTS:
        if any(name.endswith(layout.marks) for name in names):
            return layout
    raise ConversionError(
        f"`checkpoint` must be one of {[layout.architecture for layout in LAYOUTS]} of the authors; its names are "
        f"{sorted(names)[:5]}."
    )


def find_layout(config: ReliantConfig) -> Layout:
    """The layout of an architecture.

    Raises:
        ConversionError: If the authors have none.
    """
    for layout in LAYOUTS:
        if layout.architecture == config.architecture:
            return layout
    raise ConversionError(
        f"`architecture` must be one of {[layout.architecture for layout in LAYOUTS]}; got {config.architecture!r}."
    )


def build_name_map(config: ReliantConfig) -> NameMap:
    """The table of names for one configuration."""
    layout, last = find_layout(config), config.num_hidden_layers
    if layout is PLP and last == 0:  # a single linear layer has another name there
        rows = [("plp_layer.mlp.linear.*", "classifier.projection.*"), *layout.classifier_rows[1:]]
    else:
        # The last layer first: rows of hidden layers match every number.
        rows = [(official.replace("{last}", str(last)), ours) for official, ours in layout.classifier_rows]
        rows += layout.hidden_rows
    if layout is PLP:
        scores = "attn_l" if config.label_score_type == "features" else "fc_emb"
        rows.append((f"plp_layer.{scores}", "classifier.label_scores"))
    return NameMap(rows)


def is_transposed(config: ReliantConfig, official_name: str) -> bool:
    """Whether the authors store a matrix the other way round."""
    return official_name.endswith(find_layout(config).transposed or ("\0",))


def build_shapes(config: ReliantConfig) -> dict[str, tuple[int, ...]]:
    """Our names and shapes, without what the authors keep elsewhere and without memory for the values."""
    with torch.device("meta"):
        shapes = shapes_of(ReliantForNodeClassification(config).state_dict())
    return {name: shape for name, shape in shapes.items() if name not in OWN_BUFFERS}


def build_official_shapes(config: ReliantConfig) -> dict[str, tuple[int, ...]]:
    """The authors' names and shapes."""
    name_map, shapes = build_name_map(config), {}
    for name, shape in build_shapes(config).items():
        official = name_map.revert(name)
        shapes[official] = shape[::-1] if is_transposed(config, official) else shape
    return shapes
