"""Batch norms as training leaves them."""

from torch import nn


def make_norms_distinct(model: nn.Module) -> None:
    """Draw statistics and weights of all batch norms, so that none of them is the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
