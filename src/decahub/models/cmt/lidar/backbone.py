"""LiDAR branch of CMT: voxels to features on the bird's-eye view."""

import torch
from torch import nn
from transformers import initialization as init

from ..configuration_cmt import CmtLidarConfig
from .bev_network import CmtBevBackbone, CmtBevNeck
from .sparse_conv import SparseConv3d
from .sparse_encoder import CmtSparseEncoder


class CmtLidarBackbone(nn.Module):
    """Sparse 3D encoder, then a 2D network on the bird's-eye view.

    Args:
        config ([`CmtLidarConfig`]): Configuration.
    """

    def __init__(self, config: CmtLidarConfig):
        super().__init__()
        self.encoder = CmtSparseEncoder(config)
        self.bev_backbone = CmtBevBackbone(config)
        self.bev_neck = CmtBevNeck(config)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialization of the authors' framework; weights that were loaded stay.

        Kaiming's normal distribution over the outputs of 2D convolutions, uniform over inputs elsewhere.
        """
        for module in self.modules():
            if isinstance(module, SparseConv3d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.ConvTranspose2d):
                init.kaiming_uniform_(module.weight, a=5**0.5)

    def forward(self, voxel_features: torch.Tensor, voxel_coords: torch.Tensor, batch_size: int) -> torch.Tensor:
        """Features of each cell of the bird's-eye view.

        Args:
            voxel_features (`torch.FloatTensor` of shape `(num_voxels, num_point_features)`): Mean of the points of
                each voxel.
            voxel_coords (`torch.LongTensor` of shape `(num_voxels, 4)`): Sample, z, y, x of each voxel.
            batch_size (`int`): Number of samples, also of those without voxels.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, sum(bev_neck_sizes), height, width)`.

        Raises:
            ValueError: If inputs do not fit each other or the configuration.
        """
        bev_features = self.encoder(voxel_features, voxel_coords, batch_size)
        return self.bev_neck(self.bev_backbone(bev_features))
