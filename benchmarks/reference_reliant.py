"""RELIANT written straight from the paper's formulas: what the speed of `decahub.models.reliant` is measured against.

Every sum over neighbors gathers a row for each edge and scatters it to the receiver, and groups are lists of nodes,
found anew in each step from Python sets, as in the authors' code. Parameter names are the authors' too, so that
`conversion.convert_reliant` carries weights over. No dropout; graphs come with one self-loop for each node.

Source: "RELIANT: Fair Knowledge Distillation for Graph Neural Networks", arXiv 2301.01150.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class GraphConvolution(nn.Module):
    """`A X W + b` with symmetric normalization, one gathered row for each edge."""

    def __init__(self, in_size: int, out_size: int):
        super().__init__()
        self.fc = nn.Linear(in_size, out_size)

    def forward(self, hidden_states: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        source, target = edge_index
        degree = torch.zeros(len(hidden_states)).index_add(0, target, torch.ones(len(target)))
        weight = degree[source] ** -0.5 * degree[target] ** -0.5
        messages = hidden_states[source] * weight[:, None]
        return self.fc(torch.zeros_like(hidden_states).index_add(0, target, messages))


class ReferenceStudent(nn.Module):
    """Three convolutions; the second one's output is the embedding. Named as the authors' SGC student."""

    def __init__(self, input_size: int, hidden_size: int, num_labels: int):
        super().__init__()
        sizes = [input_size, hidden_size, hidden_size, num_labels]
        self.layers = nn.ModuleList(GraphConvolution(*pair) for pair in pairwise(sizes))

    def forward(self, features: torch.Tensor, edge_index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and embeddings."""
        first, second, last = self.layers
        embeddings = second(first(features, edge_index).relu(), edge_index).relu()
        return last(embeddings, edge_index), embeddings


class LogitsDiscriminator(nn.Module):
    def __init__(self, num_labels: int):
        super().__init__()
        self.lin = nn.Linear(num_labels, num_labels)
        self.lin2 = nn.Linear(num_labels, num_labels + 1, bias=False)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return self.lin2((logits + self.lin(logits)).relu())


class EmbeddingDiscriminator(nn.Module):
    """Of edges, or of nodes against a summary."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.d = nn.Parameter(torch.ones(hidden_size))
        self.scale = nn.Parameter(torch.full((1,), 0.5))

    def judge_edges(self, embeddings: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        directions = F.normalize(embeddings)
        return self.scale * (directions[edge_index[0]] * self.d * directions[edge_index[1]]).sum(-1)

    def judge_nodes(self, embeddings: torch.Tensor, summary: torch.Tensor) -> torch.Tensor:
        return self.scale * ((F.normalize(embeddings) * self.d) @ summary)


class ReferenceDiscriminators(nn.Module):
    """The three discriminators under the names `Dl`, `De` and `Dg`."""

    def __init__(self, num_labels: int, hidden_size: int):
        super().__init__()
        self.Dl = LogitsDiscriminator(num_labels)
        self.De = EmbeddingDiscriminator(hidden_size)
        self.Dg = EmbeddingDiscriminator(hidden_size)


def believe(scores: torch.Tensor, is_teacher: bool) -> torch.Tensor:
    target = torch.ones_like(scores) if is_teacher else torch.zeros_like(scores)
    return F.binary_cross_entropy(scores.sigmoid(), target)


def step_polynomial(p: torch.Tensor) -> torch.Tensor:
    x = 2 * p - 1
    return (
        1 / 2
        + x / 2
        - (5 * x**3 - 3 * x) / 16
        + (63 * x**5 - 70 * x**3 + 15 * x) / 128
        - 5 * (429 * x**7 - 693 * x**5 + 315 * x**3 - 35 * x) / 2048
        + 7 * (12155 * x**9 - 25740 * x**7 + 18018 * x**5 - 4620 * x**3 + 315 * x) / 32768
    )


def penalty(logits: torch.Tensor, sensitive: torch.Tensor, nodes: list[int]) -> torch.Tensor:
    """Gap in statistical parity; groups are found by sets of nodes."""
    values = step_polynomial(logits.softmax(-1))
    groups = [
        sorted(set(nodes) & {node for node, group in enumerate(sensitive.tolist()) if group == wanted})
        for wanted in (0, 1)
    ]
    return (values[groups[0]].mean(0) - values[groups[1]].mean(0)).square().sum()


class ReferenceTraining:
    """An epoch of the paper's adversarial distillation: discriminators, student, proxy, evaluation.

    Args:
        student ([`ReferenceStudent`]): the student.
        discriminators ([`ReferenceDiscriminators`]): the discriminators.
        proxy (`torch.Tensor` of shape `(num_nodes, 2)`): a leaf that requires gradients.
        batch (`dict`): what the steps of `decahub.models.reliant` read.
        fairness_weight (`float`): weight of the penalty.
    """

    def __init__(self, student, discriminators, proxy, batch, fairness_weight: float):
        self.student, self.discriminators, self.proxy, self.batch = student, discriminators, proxy, batch
        self.fairness_weight = fairness_weight
        self.optimizers = [
            torch.optim.Adam(parameters, lr=rate, weight_decay=5e-4)
            for parameters, rate in (
                (discriminators.parameters(), 1e-3),
                (student.parameters(), 1e-4),
                ([proxy], 1e-3),
            )
        ]

    def call(self, proxy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.batch["node_features"]
        columns = proxy.expand(len(features), proxy.shape[-1])
        return self.student(torch.cat([features, columns], 1), self.batch["edge_index"])

    def find_training_nodes(self) -> list[int]:
        return self.batch["train_mask"].nonzero()[:, 0].tolist()

    def discriminator_loss(self) -> torch.Tensor:
        batch, judges, train = self.batch, self.discriminators, self.find_training_nodes()
        logits, embeddings = (output.detach() for output in self.call(self.proxy.mean(0)))
        loss = torch.zeros(())
        for scores, is_teacher in ((batch["teacher_logits"], True), (logits, False)):
            outputs = judges.Dl(scores)
            loss = loss + 0.5 * F.cross_entropy(outputs[train, :-1], batch["labels"][train])
            loss = loss + 0.5 * believe(outputs[:, -1], is_teacher)
        summary, teacher_summary = (e.mean(0).sigmoid() for e in (embeddings, batch["teacher_embedding"]))
        for states, is_teacher in ((batch["teacher_embedding"], True), (embeddings, False)):
            loss = loss + believe(judges.De.judge_edges(states, batch["edge_index"]), is_teacher)
            loss = loss + believe(judges.Dg.judge_nodes(states, teacher_summary), is_teacher)
            loss = loss + believe(judges.Dg.judge_nodes(states, summary), not is_teacher)
        return loss

    def student_loss(self) -> torch.Tensor:
        batch, judges, train = self.batch, self.discriminators, self.find_training_nodes()
        logits, embeddings = self.call(self.proxy.mean(0))
        teacher_logits, teacher_embedding = batch["teacher_logits"], batch["teacher_embedding"]
        loss = F.cross_entropy(logits[train], batch["labels"][train])
        loss = loss + (logits - teacher_logits.log_softmax(-1)).abs().sum() / len(logits)
        outputs = judges.Dl(logits)
        loss = loss + 0.5 * F.cross_entropy(outputs[train, :-1], batch["labels"][train])
        loss = loss + 0.5 * believe(outputs[:, -1], True)
        loss = loss + believe(judges.De.judge_edges(embeddings, batch["edge_index"]), True)
        loss = loss + believe(judges.Dg.judge_nodes(embeddings, teacher_embedding.mean(0).sigmoid()), True)
        summary = embeddings.mean(0).sigmoid()
        loss = loss + believe(judges.Dg.judge_nodes(embeddings, summary), True)
        loss = loss + believe(judges.Dg.judge_nodes(teacher_embedding, summary), False)
        return loss + self.fairness_weight * penalty(logits, batch["sensitive"], train)

    def proxy_loss(self) -> torch.Tensor:
        logits, _ = self.call(self.proxy)
        return -self.fairness_weight * penalty(logits, self.batch["sensitive"], self.find_training_nodes())

    def epoch(self) -> torch.Tensor:
        """One epoch; returns the logits of its evaluation."""
        losses = (self.discriminator_loss, self.student_loss, self.proxy_loss)
        for optimizer, compute_loss in zip(self.optimizers, losses, strict=True):
            optimizer.zero_grad()
            compute_loss().backward()
            optimizer.step()
        with torch.no_grad():
            return self.call(self.proxy.mean(0))[0]
