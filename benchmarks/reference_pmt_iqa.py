"""The yardstick of PMT-IQA's benchmarks: the network layer by layer, without anything done for speed.

ResNet of torchvision's form, 1x1 convolutions before pooling, no `channels_last`, crops in one batch.
"""

import torch
from torch import nn
from torch.nn import functional


class Bottleneck(nn.Module):
    """Three convolutions with batch norms on a residual stream; the middle one has the stride."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        out_channels = 4 * channels
        self.conv1, self.bn1 = nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv3, self.bn3 = nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(self.bn1(self.conv1(maps)))
        hidden = functional.relu(self.bn2(self.conv2(hidden)))
        return functional.relu(self.bn3(self.conv3(hidden)) + self.downsample(maps))


class ReferenceBackbone(nn.Module):
    """ResNet-50 that also holds the branches, under the names of the authors' state dict."""

    def __init__(self, depths=(3, 4, 6, 3), lda_out: int = 28):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        in_channels = 64
        for index, (depth, channels) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), start=1):
            blocks = []
            for block in range(depth):
                blocks.append(Bottleneck(in_channels, channels, 2 if index > 1 and block == 0 else 1))
                in_channels = 4 * channels
            setattr(self, f"layer{index}", nn.Sequential(*blocks))
        for index, (channels, reduced, grid) in enumerate(((256, 16, 8), (512, 32, 4), (1024, 64, 2)), start=1):
            setattr(self, f"lda{index}_pool", nn.Sequential(nn.Conv2d(channels, reduced, 1, bias=False)))
            setattr(self, f"lda{index}_fc", nn.Linear(reduced * grid**2, lda_out))
        self.lda4_fc = nn.Linear(2048, lda_out)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        maps = functional.max_pool2d(functional.relu(self.bn1(self.conv1(pixel_values))), 3, 2, 1)
        features = []
        for index in range(1, 5):
            maps = getattr(self, f"layer{index}")(maps)
            reduced = getattr(self, f"lda{index}_pool")(maps) if index < 4 else maps
            features.append(getattr(self, f"lda{index}_fc")(functional.avg_pool2d(reduced, 7).flatten(1)))
        return torch.cat(features, dim=1)


class ReferencePmtIqa(nn.Module):
    """The published model: scores `(num_crops, 1)` and level logits `(num_crops, 10)` of crops."""

    def __init__(self):
        super().__init__()
        self.res = ReferenceBackbone()
        self.fcs = nn.Sequential(nn.Linear(112, 112), nn.LeakyReLU(), nn.Linear(112, 14), nn.LeakyReLU())
        self.fc_mos = nn.Linear(14, 1)
        self.fc_cls = nn.Sequential(nn.Linear(14, 14), nn.LeakyReLU(), nn.Linear(14, 10))

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shared = self.fcs(self.res(pixel_values))
        return self.fc_mos(shared), self.fc_cls(shared)
