"""MPD subtyping: many small autoencoders embed patients, their clusterings vote on subtypes.

Paper: Chang, Womer, Gong et al., "Identifying and validating subtypes within major psychiatric disorders based on
frontal-posterior functional imbalance via deep learning", Molecular Psychiatry 2021. There is no code of the authors,
and the paper leaves most of the algorithm open: embeddings of sizes 2 to 10, nine clusterings that become five fine
clusters, six runs, and two subtypes are theirs. The README of this folder lists our choices; each is a field of the
configuration.

A subtype is a group of similar patients in one table. It is not a diagnosis.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import ModelOutput, can_return_tuple

from ..shared.checks import can_look_at, refuse_unknown_inputs
from ..shared.initialization import ParentInitialization
from .cluster_state import NOVELTY_QUANTILE, ClusterState, compute_votes
from .configuration_mpd_subtyping import MpdSubtypingConfig
from .explanation import explain_assignment, match_profiles
from .fitting_mpd_subtyping import (
    FitReport,
    build_clusterer,
    fit_clusters,
    fit_members,
    measure_reconstruction,
    recluster,
)
from .member_bank import AutoencoderBank, LinearBank, MemberBank, MemberLinear
from .projection import FeatureProjection


FROM_THE_EXTRACTOR = ("is_patient", "missing_share", "site", "id")  # which are for people and for reports


@dataclass
class MpdSubtypingOutput(ModelOutput):
    """Output of [`MpdSubtypingModel`].

    Args:
        loss (`torch.FloatTensor` of shape `()`): Sum over members of `reconstruction_loss`, so that members do not
            mix, and a learning rate means the same for any number of them.
        reconstruction_loss (`torch.FloatTensor` of shape `(num_members,)`): Mean squared error of each member.
        embeddings (`torch.FloatTensor` of shape `(num_members, num_patients, latent_size)`): Columns beyond a member's
            own size are zero.
        subtype_probabilities (`torch.FloatTensor` of shape `(num_patients, num_subtypes)`): Votes; absent as long as
            nothing is fitted, as all that follows but the reconstructions.
        subtypes (`torch.LongTensor` of shape `(num_patients,)`): The largest probability, of equal ones the first.
        reconstruction_error (`torch.FloatTensor` of shape `(num_patients,)`): Mean over members of the error in
            standard deviations of the training patients'.
        out_of_distribution (`torch.BoolTensor` of shape `(num_patients,)`): Whether that error is beyond the 99th
            percentile of the training patients. The subtype of such a patient means nothing.
        assignment_loss (`torch.FloatTensor` of shape `()`, returned with `labels`): Mean of -log probability of the
            label. It is no part of `loss`.
        reconstructions (`torch.FloatTensor` of shape `(num_members, num_patients, input_size)`, on request): What the
            members give back.
    """

    loss: torch.FloatTensor | None = None
    reconstruction_loss: torch.FloatTensor | None = None
    embeddings: torch.FloatTensor | None = None
    subtype_probabilities: torch.FloatTensor | None = None
    subtypes: torch.LongTensor | None = None
    reconstruction_error: torch.FloatTensor | None = None
    out_of_distribution: torch.BoolTensor | None = None
    assignment_loss: torch.FloatTensor | None = None
    reconstructions: torch.FloatTensor | None = None


class MpdSubtypingPreTrainedModel(ParentInitialization, PreTrainedModel):
    """Initialization, loading and what transformers needs to know about MPD subtyping."""

    config: MpdSubtypingConfig
    config_class = MpdSubtypingConfig
    base_model_prefix = "mpd"
    main_input_name = "features"
    input_modalities = ("tabular",)
    accepts_loss_kwargs = False  # the loss is a mean over one batch; `Trainer` divides it by the accumulated batches
    _no_split_modules = ["AutoencoderBank"]

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, MemberBank):
            init.copy_(module.latent_mask, module.build_latent_mask())
        if isinstance(module, AutoencoderBank):
            for layer, weight in zip(module.layers, module.draw_weights(), strict=True):
                init.copy_(layer.weight, weight)
                init.zeros_(layer.bias)
        elif isinstance(module, LinearBank):
            init.zeros_(module.mean)
            init.copy_(module.components, torch.eye(*module.components.shape))
        elif isinstance(module, ClusterState | FeatureProjection):
            for buffer in module.buffers():
                init.zeros_(buffer)


class MpdSubtypingModel(MpdSubtypingPreTrainedModel):
    """An ensemble of autoencoders and the clusters of their embeddings.

    Args:
        config ([`MpdSubtypingConfig`]): The architecture.
    """

    def __init__(self, config: MpdSubtypingConfig):
        super().__init__(config)
        config.validate()
        self.projection = None if config.pre_pca_components is None else FeatureProjection(config)
        self.autoencoders = AutoencoderBank(config) if config.encoder == "autoencoder" else LinearBank(config)
        self.cluster = ClusterState(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The first layer, which reads features."""
        return self.autoencoders.encoder_in if isinstance(self.autoencoders, AutoencoderBank) else self.autoencoders

    def set_input_embeddings(self, value: MemberLinear) -> None:
        """Replace the first layer."""
        if isinstance(self.autoencoders, AutoencoderBank):
            self.autoencoders.encoder_in = value
        else:
            self.autoencoders = value

    @property
    def is_fitted(self) -> bool:
        """Whether subtypes have been found."""
        return bool(self.cluster.fitted)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """What encoders read: the features, or their principal components."""
        return features if self.projection is None else self.projection(features)

    def check_features(self, features: torch.Tensor | None) -> None:
        """Refuse features of another shape or kind, or with missing values."""
        if features is None:
            raise ValueError("`features` must be given.")
        if not features.is_floating_point():
            raise TypeError(f"`features` must be floating point; got {features.dtype}.")
        if features.ndim != 2 or features.shape[1] != self.config.num_features:
            raise ValueError(
                f"`features` must have shape (num_patients, {self.config.num_features}); got {tuple(features.shape)}. "
                "Prepare them with the `MpdSubtypingFeatureExtractor` of the model."
            )
        if can_look_at(features) and not features.isfinite().all():
            row = int((~features.isfinite()).any(1).nonzero()[0])
            raise ValueError(
                f"`features` must be finite; got NaN or infinity in row {row}. Impute missing values first."
            )

    @can_return_tuple
    def forward(
        self,
        features: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        member_mask: torch.BoolTensor | None = None,
        output_reconstructions: bool = False,
        **kwargs: Any,
    ) -> MpdSubtypingOutput:
        """Embed, reconstruct, and assign patients.

        Args:
            features (`torch.FloatTensor` of shape `(num_patients, num_features)`): Deviations from controls.
            labels (`torch.LongTensor` of shape `(num_patients,)`, *optional*): Subtypes, for `assignment_loss`.
            member_mask (`torch.BoolTensor` of shape `(num_members,)`, *optional*): Members that count in the loss and
                vote; by default all.
            output_reconstructions (`bool`): Whether to return what members give back.
            kwargs: `return_dict`.

        Returns:
            [`MpdSubtypingOutput`].

        Raises:
            TypeError: If features are integers.
            ValueError: If their shape does not fit, they are not finite, or labels are given before a fit.
        """
        refuse_unknown_inputs(self, kwargs, FROM_THE_EXTRACTOR)
        self.check_features(features)
        self._check_member_mask(member_mask)
        dtype = self.autoencoders.latent_mask.dtype
        inputs = self.project(features.to(dtype))
        noisy = inputs
        if self.training and self.config.denoising_std:
            noisy = inputs + self.config.denoising_std * torch.randn_like(inputs)
        embeddings = self.autoencoders.encode(noisy)
        reconstructions = self.autoencoders.decode(embeddings)
        errors = (reconstructions - inputs).square().mean(-1)  # (members, rows)
        losses = errors.mean(1)
        output = MpdSubtypingOutput(
            loss=losses.sum() if member_mask is None else losses[member_mask].sum(),
            reconstruction_loss=losses,
            embeddings=embeddings,
            reconstructions=reconstructions if output_reconstructions else None,
        )
        if not self.training and can_look_at(features) and self.is_fitted:
            self._assign(output, errors, member_mask)
        if labels is not None:
            output.assignment_loss = self._compute_assignment_loss(output, labels)
        return output

    def _assign(self, output: MpdSubtypingOutput, errors: torch.Tensor, member_mask: torch.Tensor | None) -> None:
        state, temperature = self.cluster, self.config.assignment_temperature
        output.subtype_probabilities = compute_votes(output.embeddings, state, temperature, member_mask)
        output.subtypes = output.subtype_probabilities.argmax(-1)
        standardized = (errors - state.error_mean[:, None]) / state.error_sd[:, None]
        output.reconstruction_error = standardized.mean(0)
        output.out_of_distribution = output.reconstruction_error > state.error_quantiles[NOVELTY_QUANTILE]

    def _compute_assignment_loss(self, output: MpdSubtypingOutput, labels: torch.Tensor) -> torch.Tensor:
        if output.subtype_probabilities is None:
            raise ValueError("`labels` must be given to a fitted model in evaluation mode only: call `fit` first.")
        num_subtypes = output.subtype_probabilities.shape[1]
        if labels.shape != output.subtypes.shape or not ((labels >= 0) & (labels < num_subtypes)).all():
            raise ValueError(
                f"`labels` must hold a subtype in [0, {num_subtypes}) for each of {len(output.subtypes)} patients; "
                f"got {tuple(labels.shape)} up to {int(labels.max())}."
            )
        chosen = output.subtype_probabilities.gather(1, labels[:, None]).squeeze(1)
        return -chosen.clamp_min(torch.finfo(chosen.dtype).tiny).log().mean()

    def _check_member_mask(self, mask: torch.Tensor | None) -> None:
        if mask is None:
            return
        if mask.dtype != torch.bool or tuple(mask.shape) != (self.config.num_members,):
            raise ValueError(
                f"`member_mask` must be booleans of shape ({self.config.num_members},); got {mask.dtype} of shape "
                f"{tuple(mask.shape)}."
            )
        if can_look_at(mask) and not mask.any():
            raise ValueError("`member_mask` must select at least one member; got none.")

    # Fitting

    def fit(self, features: Any, **training: Any) -> FitReport:
        """Train all members on patients, cluster their embeddings, and find subtypes.

        It trains in one go, for notebooks and resampling. `decahub.procedures.mpd_subtyping.fit` does the same with
        checkpoints, a log and exact resume.

        Args:
            features (array of shape `(num_patients, num_features)`): Deviations of patients from controls.
            training: Fields of [`~decahub.models.mpd_subtyping.fitting_mpd_subtyping.MemberTraining`], such as
                `num_epochs`, `learning_rate`, `batch_size`, `patience`.

        Returns:
            [`FitReport`].

        Raises:
            ValueError: If there are fewer patients than four for each base cluster, or features are not finite.
        """
        features = self._to_features(features)
        fit_members(self, features, **training)
        return self.fit_clusters(features)

    def fit_clusters(self, features: Any) -> FitReport:
        """Cluster the embeddings of trained members, and find subtypes; fills the buffers of the model."""
        return fit_clusters(self, self._to_features(features))

    def recluster(self, features: Any, num_subtypes: int | str) -> FitReport:
        """Find another number of subtypes with the same members."""
        return recluster(self, self._to_features(features), num_subtypes)

    def build_clusterer(self, refit: str = "frozen", **training: Any) -> Callable[..., np.ndarray]:
        """A function `cluster(features, seed=0, num_subtypes=None)` that gives subtypes, for resampling.

        Args:
            refit (`str`): `"frozen"` keeps the members and clusters anew; `"linear"` takes principal components of
                what it is given; `"full"` trains new members.
            training: As for `fit`, with `"full"`.
        """
        return build_clusterer(self, refit, training)

    def measure_reconstruction(self, train_features: Any, test_features: Any, **training: Any) -> dict:
        """Errors of members that are trained anew on some patients, on these and on others, beside those of PCA.

        Returns:
            `dict`: for each embedding size `train_error`, `test_error` (means over runs), `test_error_pca` (as many
            principal components), `train_variance` and `test_variance`, all means over patients and features.
        """
        parts = self._to_features(train_features), self._to_features(test_features)
        return measure_reconstruction(self, *parts, training)

    def _to_features(self, features: Any) -> torch.Tensor:
        features = torch.as_tensor(np.asarray(features) if not isinstance(features, torch.Tensor) else features)
        features = features.to(self.device, self.autoencoders.latent_mask.dtype)
        self.check_features(features)
        return features

    # Answers

    def explain(self, features: Any) -> list[dict[str, Any]]:
        """Why each patient is nearer to one profile than to the next: the contribution of each feature.

        The squared distance to the profile of subtype s is the sum over features of (z - profile_s)^2. A feature
        contributes the difference of its terms: positive values speak for the assigned subtype.

        Returns:
            `list[dict]`: for each patient `subtype`, `runner_up`, `margin` (difference of squared distances),
            `features` (z) and `contributions`, by name of the feature.
        """
        self._check_fitted()
        return explain_assignment(self, self._to_features(features))

    def match_subtypes(self, other: "MpdSubtypingModel") -> dict[int, int]:
        """Which subtype of another model each subtype is most like, by the correlation of profiles."""
        self._check_fitted()
        other._check_fitted()
        return match_profiles(self.cluster.subtype_profile, other.cluster.subtype_profile)

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise ValueError("The model has no subtypes yet: call `fit` first, or load a fitted model.")


__all__ = ["MpdSubtypingModel", "MpdSubtypingOutput", "MpdSubtypingPreTrainedModel"]
