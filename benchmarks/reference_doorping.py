"""The yardstick of DoorPing's benchmarks: trigger update and iteration of DC line by line, nothing done for speed.

The whole network is computed for each step of the trigger, with a hook on the layer, and with gradients of all
weights. A class at a time is matched in one batch, and the network is trained through a data loader.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


class ReferenceConvNet(nn.Module):
    """The ConvNet with torch's own layers, in place as the authors' are."""

    def __init__(self, network: Any):
        super().__init__()
        self.features, self.classifier = deepcopy(network.features), deepcopy(network.classifier)
        for module in self.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = True

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(pixel_values).flatten(1))


def update_trigger(
    network: ReferenceConvNet, trigger: torch.Tensor, mask: torch.Tensor, steps: int, alpha: float = 10.0
) -> torch.Tensor:
    """Adam on the patch that drives the heaviest neuron of the hidden layer."""
    network.eval()
    layer, outputs = network.classifier[0], []
    handle = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    neuron = layer.weight.detach().abs().sum(1).argmax()
    trigger = trigger.clone().requires_grad_()
    optimizer = torch.optim.Adam([trigger], lr=0.08, betas=(0.9, 0.99))
    target = None
    for _ in range(steps):
        outputs.clear()
        network(trigger)
        activation = outputs[0][:, neuron]
        target = alpha * activation.detach() if target is None else target
        loss = functional.mse_loss(activation, target)
        optimizer.zero_grad()
        loss.backward()
        trigger.grad *= mask
        optimizer.step()
    handle.remove()
    return trigger.detach()


def run_iteration(
    network: ReferenceConvNet,
    synthetic: torch.Tensor,
    labels: torch.Tensor,
    real: list[torch.Tensor],
    optimizer: torch.optim.Optimizer,
    outer: int,
    inner: int,
) -> None:
    """One iteration of DC: image updates, and training of the network between them."""
    parameters = list(network.train().parameters())
    network_optimizer = torch.optim.SGD(parameters, lr=0.01)
    for loop in range(outer):
        total = torch.zeros(())
        for label, images in enumerate(real):
            total = total + match_class(network, parameters, synthetic[labels == label], images, label)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if loop == outer - 1:
            break
        loader = DataLoader(TensorDataset(synthetic.detach(), labels), batch_size=256, shuffle=True)
        for _ in range(inner):
            for images, classes in loader:
                loss = functional.cross_entropy(network(images), classes)
                network_optimizer.zero_grad()
                loss.backward()
                network_optimizer.step()


def match_class(
    network: ReferenceConvNet,
    parameters: list[nn.Parameter],
    synthetic: torch.Tensor,
    real: torch.Tensor,
    label: int,
) -> torch.Tensor:
    """Layer-wise cosine distance of the gradients of one class."""
    real_loss = functional.cross_entropy(network(real), torch.full((len(real),), label))
    wanted = [gradient.detach() for gradient in torch.autograd.grad(real_loss, parameters)]
    loss = functional.cross_entropy(network(synthetic), torch.full((len(synthetic),), label))
    given = torch.autograd.grad(loss, parameters, create_graph=True)
    total = torch.zeros(())
    for first, second in zip(given, wanted, strict=True):
        if first.ndim > 1:
            first, second = first.flatten(1), second.flatten(1)
            norms = first.norm(dim=1) * second.norm(dim=1)
            total = total + (1 - (first * second).sum(1) / (norms + 1e-6)).sum()
    return total
