"""Configuration of MPD subtyping (Chang et al. 2021).

The paper gives sizes 2 to 10, six runs, five fine clusters and two subtypes. Every other default is a choice of ours.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from ..shared.checks import MAX_FEATURES, MAX_WIDTH, CheckedConfig, check_maximum, check_minimum
from ..shared.variants import build_variant


# "linear" is the baseline that the autoencoders must justify themselves against: the encoder of size d is the first d
# principal components of the patients. Its runs would be equal, so it has one.
VARIANTS: dict[str, dict] = {
    "paper": {},
    "small": {"num_runs": 2, "latent_dims": [2, 4, 6, 8, 10]},
    "linear": {"encoder": "linear", "num_runs": 1},
}
AUTO = "auto"
ENCODERS = ("autoencoder", "linear")
BASE_CLUSTERERS = ("ward", "kmeans", "gmm")
MERGES = ("similarity", "consensus_vote")
ACTIVATIONS = ("relu", "gelu", "tanh", "elu")
MAX_RUNS, MAX_MEMBERS, MAX_CLUSTERS, MAX_PATIENTS = 1000, 10_000, 1000, 20_000


@strict
class MpdSubtypingConfig(CheckedConfig, PreTrainedConfig):
    """Configuration of [`MpdSubtypingModel`].

    Args:
        num_features (`int`, defaults to 120): columns of the features, after selection.
        encoder (`str`, defaults to `"autoencoder"`): `"autoencoder"`, or `"linear"`: principal components of the
            patients, without training.
        hidden_sizes (`list[int]`, defaults to `[64]`): hidden layers of an encoder; its decoder mirrors them.
        latent_dims (`list[int]`, defaults to 2 to 10): sizes of the embeddings, in increasing order.
        num_runs (`int`, defaults to 6): autoencoders of each size; a member is one run and one size.
        activation (`str`, defaults to `"relu"`): of hidden layers: `"relu"`, `"gelu"`, `"tanh"` or `"elu"`.
        denoising_std (`float`, defaults to 0.0): standard deviation of noise that is added to inputs in training.
        pre_pca_components (`int`, *optional*): reduce the features to this many principal components of the patients
            first; for tables of voxels.
        base_clusterer (`str`, defaults to `"ward"`): clusters each embedding: `"ward"`, `"kmeans"` or `"gmm"`.
        base_num_clusters (`int`, defaults to 5): clusters of each embedding.
        num_fine_clusters (`int`, defaults to 5): clusters of the co-association of all members.
        num_subtypes (`int` or `str`, defaults to 2): what fine clusters are merged into; `"auto"` takes the largest
            number from 2 to 6 with a prediction strength of at least 0.8, else 1.
        merge (`str`, defaults to `"similarity"`): `"similarity"` joins the most similar fine clusters;
            `"consensus_vote"` finds subtypes within each run, then clusters their co-association.
        assignment_temperature (`float`, *optional*): weigh the base clusters of a new patient by
            softmax(-distance^2 / temperature); by default the nearest one counts alone.
        feature_names (`list[str]`, *optional*): names of the features, in order.
        subtype_names (`list[str]`, *optional*): names of the subtypes, the largest first.
        seed (`int`, defaults to 0): of weights, data order and clusterings.
        store_coassociation (`bool`, defaults to `False`): keep the patients' co-association in the model, which is
            patient-level data.
        num_patients (`int`, defaults to 0): patients of that co-association; set by a fit.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a value is of another type, out of range or contradicts
            another.
    """

    model_type = "mpd_subtyping"

    # Inputs
    num_features: int = 120
    feature_names: list[str] | None = None
    pre_pca_components: int | None = None

    # Members
    encoder: str = "autoencoder"
    hidden_sizes: list[int] | tuple[int, ...] = (64,)
    latent_dims: list[int] | tuple[int, ...] = tuple(range(2, 11))
    num_runs: int = 6
    activation: str = "relu"
    denoising_std: float | int = 0.0

    # Clustering
    base_clusterer: str = "ward"
    base_num_clusters: int = 5
    num_fine_clusters: int = 5
    num_subtypes: int | str = 2
    merge: str = "similarity"
    assignment_temperature: float | int | None = None
    subtype_names: list[str] | None = None
    seed: int = 0
    store_coassociation: bool = False
    num_patients: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        self.hidden_sizes, self.latent_dims = list(self.hidden_sizes), list(self.latent_dims)
        if self.id2label is None and "num_labels" not in kwargs and isinstance(self.num_subtypes, int):
            names = self.subtype_names or [f"subtype {number}" for number in range(1, self.num_subtypes + 1)]
            self.id2label = dict(enumerate(names))
            self.label2id = {name: index for index, name in enumerate(names)}
        super().__post_init__(**kwargs)

    @property
    def members(self) -> list[tuple[int, int]]:
        """Run and size of each member: run by run, sizes in increasing order."""
        return [(run, size) for run in range(self.num_runs) for size in self.latent_dims]

    @property
    def num_members(self) -> int:
        """Number of members."""
        return self.num_runs * len(self.latent_dims)

    @property
    def input_size(self) -> int:
        """Width of what an encoder reads: the features, or their principal components."""
        return self.pre_pca_components or self.num_features

    @property
    def fitted_subtypes(self) -> int:
        """Number of subtypes; the least number that `"auto"` may find, as long as nothing is fitted."""
        return self.num_subtypes if isinstance(self.num_subtypes, int) else min(2, self.num_fine_clusters)

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> "MpdSubtypingConfig":
        """Configuration of a variant: `"paper"`, `"small"` or `"linear"`."""
        return build_variant(cls, VARIANTS, name, overrides)

    def validate_sizes(self):
        """Sizes are positive and fit each other."""
        check_minimum(self, 1, "num_features", "num_runs", "num_fine_clusters", "pre_pca_components")
        check_maximum("num_features", [self.num_features], MAX_FEATURES)
        check_maximum("num_runs", [self.num_runs], MAX_RUNS)
        for name in ("hidden_sizes", "latent_dims"):
            sizes = getattr(self, name)
            if not sizes or min(sizes) < 1:
                raise ValueError(f"`{name}` must hold sizes of at least 1; got {sizes}.")
            check_maximum(name, sizes, MAX_WIDTH)
        if any(later <= earlier for earlier, later in zip(self.latent_dims, self.latent_dims[1:], strict=False)):
            raise ValueError(f"`latent_dims` must increase, each size once; got {self.latent_dims}.")
        if self.pre_pca_components is not None and self.pre_pca_components > self.num_features:
            raise ValueError(
                f"`pre_pca_components` must be at most `num_features` ({self.num_features}); got "
                f"{self.pre_pca_components}."
            )
        if self.latent_dims[-1] >= self.input_size:
            raise ValueError(
                f"`latent_dims` must be below the {self.input_size} columns that encoders read; got "
                f"{self.latent_dims[-1]}. Give smaller sizes, or select more features."
            )
        check_maximum("num_runs x len(latent_dims)", [self.num_members], MAX_MEMBERS)

    def validate_clusters(self):
        """There are at least two base clusters, and no more subtypes than fine clusters."""
        check_minimum(self, 2, "base_num_clusters")
        for name in ("base_num_clusters", "num_fine_clusters"):
            check_maximum(name, [getattr(self, name)], MAX_CLUSTERS)
        subtypes = self.num_subtypes
        if isinstance(subtypes, bool) or (subtypes != AUTO if isinstance(subtypes, str) else subtypes < 1):
            raise ValueError(f"`num_subtypes` must be at least 1, or {AUTO!r}; got {subtypes!r}.")
        if isinstance(subtypes, int) and subtypes > self.num_fine_clusters:
            raise ValueError(
                f"`num_subtypes` must be at most `num_fine_clusters` ({self.num_fine_clusters}); got {subtypes}."
            )

    def validate_choices(self):
        """Names are known."""
        for name, allowed in (
            ("encoder", ENCODERS),
            ("base_clusterer", BASE_CLUSTERERS),
            ("merge", MERGES),
            ("activation", ACTIVATIONS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}; got {getattr(self, name)!r}.")

    def validate_numbers(self):
        """Noise is not negative, a temperature positive, a seed not negative."""
        check_minimum(self, 0, "denoising_std", "seed", "num_patients")
        check_maximum("num_patients", [self.num_patients], MAX_PATIENTS)
        if self.assignment_temperature is not None and self.assignment_temperature <= 0:
            raise ValueError(f"`assignment_temperature` must be positive; got {self.assignment_temperature}.")

    def validate_names(self):
        """There is one name for each feature and each subtype."""
        for name, wanted in (("feature_names", self.num_features), ("subtype_names", self.num_subtypes)):
            names = getattr(self, name)
            if names is None:
                continue
            if len(set(names)) < len(names) or (isinstance(wanted, int) and len(names) != wanted):
                raise ValueError(f"`{name}` must hold {wanted} different names; got {len(names)}: {names[:5]} ...")


__all__ = ["VARIANTS", "MpdSubtypingConfig"]
