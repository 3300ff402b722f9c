"""Principal components of the training patients, for tables with thousands of voxels."""

import torch
from torch import nn

from .configuration_mpd_subtyping import MpdSubtypingConfig
from .member_bank import compute_principal_axes


class FeatureProjection(nn.Module):
    """(x - mean) components^T / scale: the first principal components, with an overall root mean square of 1.

    Args:
        config ([`MpdSubtypingConfig`]): sizes.

    Shapes:
        `mean` `(features,)`, `components` `(pre_pca_components, features)`, `scale` `()`; zeros before a fit.
    """

    def __init__(self, config: MpdSubtypingConfig):
        super().__init__()
        self.register_buffer("mean", torch.zeros(config.num_features))
        self.register_buffer("components", torch.zeros(config.pre_pca_components, config.num_features))
        self.register_buffer("scale", torch.zeros(()))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(patients, features)` to `(patients, pre_pca_components)`."""
        return (features - self.mean) @ self.components.T / self.scale.clamp_min(torch.finfo(features.dtype).tiny)

    @torch.no_grad()
    def fit(self, features: torch.Tensor) -> None:
        """Take the components of rows.

        Raises:
            ValueError: If there are fewer patients than components.
        """
        if len(features) <= len(self.components):
            raise ValueError(
                f"`pre_pca_components` must be below the number of patients ({len(features)}); got "
                f"{len(self.components)}."
            )
        mean = features.double().mean(0)
        centered = features.double() - mean
        components = compute_principal_axes(centered)[: len(self.components)]
        self.mean.copy_(mean)
        self.components.copy_(components)
        self.scale.copy_((centered @ components.T).square().mean().sqrt())


__all__ = ["FeatureProjection"]
