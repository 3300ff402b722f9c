"""The three networks that tell a student's nodes from its teacher's in adversarial distillation (GraphAKD)."""

import torch
from torch import nn
from torch.nn import functional

from ..shared.losses import compute_node_loss
from .adjacency import Adjacency, prepare_adjacency, to_full_precision
from .configuration_reliant import ReliantConfig


INITIAL_SCALE = 0.5
ADVERSARIAL_WEIGHT = 0.5  # of the two terms of the logits discriminator


class ReliantLogitsDiscriminator(nn.Module):
    """Classifies the scores of a node and judges whether they are the teacher's: `(num_nodes, num_labels + 1)`."""

    def __init__(self, num_labels: int):
        super().__init__()
        self.hidden = nn.Linear(num_labels, num_labels)
        self.output = nn.Linear(num_labels, num_labels + 1, bias=False)

    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Class scores `(num_nodes, num_labels)` and the judgment `(num_nodes,)`, positive for a teacher."""
        outputs = self.output(functional.relu(logits + self.hidden(logits)))
        return outputs[:, :-1], outputs[:, -1]


class ReliantEdgeDiscriminator(nn.Module):
    """Judges the two ends of an edge by a weighted cosine."""

    def __init__(self, embedding_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(embedding_size))
        self.scale = nn.Parameter(torch.full((1,), INITIAL_SCALE))

    def forward(
        self, node_embeddings: torch.Tensor, adjacency: Adjacency, edges: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Judgment of each edge, or of those whose numbers `edges` holds."""
        directions = functional.normalize(to_full_precision(node_embeddings))
        weighted = directions * self.weight
        if edges is None:
            return self.scale * adjacency.score_edges(weighted, directions)
        ends = weighted[adjacency.target[edges]], directions[adjacency.source[edges]]
        return self.scale * torch.linalg.vecdot(*ends)


class ReliantSummaryDiscriminator(nn.Module):
    """Judges a node's direction against the summary of a graph."""

    def __init__(self, embedding_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(embedding_size))
        self.scale = nn.Parameter(torch.full((1,), INITIAL_SCALE))

    def forward(self, node_embeddings: torch.Tensor, summary: torch.Tensor) -> torch.Tensor:
        directions = functional.normalize(to_full_precision(node_embeddings))
        return self.scale * ((directions * self.weight) @ summary)


def judge(scores: torch.Tensor, is_teacher: bool) -> torch.Tensor:
    """Mean cross entropy of judgments against what is to be believed."""
    return functional.softplus(-scores if is_teacher else scores).mean()


class ReliantDiscriminators(nn.Module):
    """All three, and the losses that they give to themselves and to the student.

    Where student and teacher have embeddings of different widths, `projection` maps the student's to the teacher's;
    it learns with the student.

    Args:
        config ([`ReliantConfig`]): of the student.
        teacher_embedding_size (`int`, *optional*): width of the teacher's embeddings; by default the student's.
    """

    def __init__(self, config: ReliantConfig, teacher_embedding_size: int | None = None):
        super().__init__()
        student_size = config.hidden_size if config.num_hidden_layers > 0 else config.input_size
        embedding_size = teacher_embedding_size or student_size
        self.num_edge_samples = config.num_edge_samples
        self.add_self_loops, self.undirected = config.add_self_loops, config.undirected
        self.logits_discriminator = ReliantLogitsDiscriminator(config.num_labels)
        self.edge_discriminator = ReliantEdgeDiscriminator(embedding_size)
        self.summary_discriminator = ReliantSummaryDiscriminator(embedding_size)
        self.projection = None
        if embedding_size != student_size:
            self.projection = nn.Linear(student_size, embedding_size, bias=False)

    def forward(
        self,
        player: str,
        logits: torch.Tensor,
        node_embeddings: torch.Tensor,
        teacher_logits: torch.Tensor,
        teacher_embedding: torch.Tensor,
        edge_index: torch.Tensor,
        labels: torch.Tensor,
        train_mask: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Terms of a step.

        Args:
            player (`str`): `"discriminators"` or `"student"`, whose losses are wanted.
            logits (`torch.FloatTensor` of shape `(num_nodes, num_labels)`): of the student; detached for the
                discriminators.
            node_embeddings (`torch.FloatTensor` of shape `(num_nodes, hidden_size)`): of the student.
            teacher_logits (`torch.FloatTensor` of shape `(num_nodes, num_labels)`): of the teacher.
            teacher_embedding (`torch.FloatTensor` of shape `(num_nodes, teacher_embedding_size)`): of the teacher.
            edge_index (`torch.LongTensor` of shape `(2, num_edges)`): the graph.
            labels (`torch.LongTensor` of shape `(num_nodes,)`): class ids.
            train_mask (`torch.BoolTensor` of shape `(num_nodes,)`): nodes whose labels are read.

        Returns:
            `dict` with `adversarial_loss`, `classification_loss` (of the logits discriminator, without their weight),
            `edge_loss`, `teacher_summary_loss`, `student_summary_loss`, and their weighted sum `total`.

        Raises:
            ValueError: If the teacher's embeddings have another width than announced.
        """
        if teacher_embedding.shape[1] != self.edge_discriminator.weight.shape[0]:
            raise ValueError(
                f"`teacher_embedding` must have {self.edge_discriminator.weight.shape[0]} columns; got "
                f"{teacher_embedding.shape[1]}. Give `teacher_embedding_size` to `ReliantDiscriminators`."
            )
        if self.projection is not None:
            node_embeddings = self.projection(node_embeddings)
        adjacency = prepare_adjacency(edge_index, logits.shape[0], self.add_self_loops, self.undirected)
        losses = self._judge_logits(player, logits, teacher_logits, labels, train_mask)
        losses["edge_loss"] = self._judge_edges(player, node_embeddings, teacher_embedding, adjacency)
        losses |= self._judge_summaries(player, node_embeddings, teacher_embedding)
        logits_loss = losses["adversarial_loss"] + losses["classification_loss"]
        summary_loss = losses["teacher_summary_loss"] + losses["student_summary_loss"]
        losses["total"] = ADVERSARIAL_WEIGHT * logits_loss + losses["edge_loss"] + summary_loss
        return losses

    def _judge_logits(
        self,
        player: str,
        logits: torch.Tensor,
        teacher_logits: torch.Tensor,
        labels: torch.Tensor,
        train_mask: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        classes, judgment = self.logits_discriminator(logits)
        if player == "student":
            return {
                "adversarial_loss": judge(judgment, is_teacher=True),
                "classification_loss": compute_node_loss(classes, labels, train_mask),
            }
        teacher_classes, teacher_judgment = self.logits_discriminator(teacher_logits)
        teacher_loss = compute_node_loss(teacher_classes, labels, train_mask)
        return {
            "adversarial_loss": judge(teacher_judgment, is_teacher=True) + judge(judgment, is_teacher=False),
            "classification_loss": teacher_loss + compute_node_loss(classes, labels, train_mask),
        }

    def _judge_edges(
        self, player: str, node_embeddings: torch.Tensor, teacher_embedding: torch.Tensor, adjacency: Adjacency
    ) -> torch.Tensor:
        edges = None
        if self.num_edge_samples is not None:
            num_edges = adjacency.source.shape[0]
            edges = torch.randint(num_edges, (self.num_edge_samples,), device=adjacency.source.device)
        judgment = self.edge_discriminator(node_embeddings, adjacency, edges)
        if player == "student":
            return judge(judgment, is_teacher=True)
        teacher_judgment = self.edge_discriminator(teacher_embedding, adjacency, edges)
        return judge(teacher_judgment, is_teacher=True) + judge(judgment, is_teacher=False)

    def _judge_summaries(
        self, player: str, node_embeddings: torch.Tensor, teacher_embedding: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        teacher_summary = to_full_precision(teacher_embedding).mean(0).sigmoid()
        summary = to_full_precision(node_embeddings).mean(0).sigmoid()
        discriminator = self.summary_discriminator
        against_teacher = discriminator(node_embeddings, teacher_summary)
        # The student's own summary is compared in the same way in both players' losses, as in the authors' code.
        own = judge(discriminator(node_embeddings, summary), is_teacher=True)
        own = own + judge(discriminator(teacher_embedding, summary), is_teacher=False)
        if player == "student":
            return {"teacher_summary_loss": judge(against_teacher, is_teacher=True), "student_summary_loss": own}
        real = judge(discriminator(teacher_embedding, teacher_summary), is_teacher=True)
        return {
            "teacher_summary_loss": real + judge(against_teacher, is_teacher=False),
            "student_summary_loss": own,
        }


__all__ = ["ReliantDiscriminators"]
