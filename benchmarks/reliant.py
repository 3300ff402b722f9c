"""RELIANT beside the same computations with torch-geometric, on made-up graphs with the widths of the credit dataset.

Weights are those of the initialization, the same for both: speed does not depend on them.
"""

from functools import partial
from pathlib import Path
from typing import Any

from .timing import Case, Sampler, timed


NUM_FEATURES, NUM_LABELS = 13, 2
INFERENCE_PEER = "torch-geometric: gcn_norm, CSR matrix"
TRAINING_PEER = "torch-geometric: gcn_norm, EdgeIndex.matmul"
BAIL = {"num_nodes": 18_876, "num_edges": 661_492}
CREDIT = {"num_nodes": 30_000, "num_edges": 2_800_000}
TENTH = {"num_nodes": 3_000, "num_edges": 280_000}


def build_batch(num_nodes: int, num_edges: int, hidden_size: int = 64, seed: int = 0) -> dict[str, Any]:
    """A symmetric random graph with one loop for each node and what training steps read."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(num_nodes, (2, (num_edges - num_nodes) // 2), generator=generator)
    half[1] = torch.where(half[0] == half[1], (half[1] + 1) % num_nodes, half[1])
    nodes = torch.arange(num_nodes)
    return {
        "node_features": torch.randn(num_nodes, NUM_FEATURES, generator=generator),
        "edge_index": torch.cat([half, half.flip(0), nodes.repeat(2, 1)], dim=1),
        "labels": torch.randint(NUM_LABELS, (num_nodes,), generator=generator),
        "train_mask": nodes < num_nodes // 3,
        "sensitive": torch.randint(2, (num_nodes,), generator=generator),
        "teacher_logits": torch.randn(num_nodes, NUM_LABELS, generator=generator),
        "teacher_embedding": torch.randn(num_nodes, hidden_size, generator=generator),
    }


def build_student_pair(num_nodes: int, num_edges: int, hidden_size: int = 64):
    """A function that makes an epoch of ours and returns logits, and the same of the reference."""
    import torch

    from conversion.convert_reliant import revert_discriminators
    from decahub import ReliantConfig, ReliantForNodeClassification
    from decahub.models.reliant.optimization import build_companions, build_updates

    from .reference_reliant import (
        ReferenceDiscriminators,
        ReferenceStudent,
        ReferenceTraining,
        build_propagation,
    )

    torch.manual_seed(0)
    # The reference has no dropout, so that both do the same work.
    config = ReliantConfig.from_variant(
        "akd-sgc", num_features=NUM_FEATURES, hidden_size=hidden_size, hidden_dropout_prob=0.0
    )
    batch, model = build_batch(num_nodes, num_edges, hidden_size), ReliantForNodeClassification(config)
    companions = build_companions(config, num_nodes)
    updates = build_updates(config, model, companions)
    student = ReferenceStudent(config.input_size, hidden_size, NUM_LABELS)
    student.copy_weights(model)
    judges = ReferenceDiscriminators(NUM_LABELS, hidden_size)
    judges.load_state_dict(revert_discriminators(companions["discriminators"].state_dict()))
    proxy = companions["proxy"]().detach().clone().requires_grad_()
    reference = ReferenceTraining(student, judges, proxy, batch, config.fairness_weight)

    def epoch() -> torch.Tensor:
        for optimizer, step, _, after in updates:
            optimizer.zero_grad()
            step(model.train(), batch, **companions)["loss"].backward()
            optimizer.step()
            if after is not None:
                after(model, batch, **companions)
        return evaluate()

    @torch.inference_mode()
    def evaluate() -> torch.Tensor:
        return model.eval()(batch["node_features"], batch["edge_index"]).logits

    propagate = build_propagation(batch["edge_index"], num_nodes, training=False)
    features = torch.cat([batch["node_features"], reference.proxy.mean(0).expand(num_nodes, -1)], 1).detach()

    @torch.inference_mode()
    def evaluate_reference() -> torch.Tensor:
        return student(features, propagate)[0]

    return (epoch, reference.epoch), (evaluate, evaluate_reference)


def build_epoch(folder: Path, num_nodes: int, num_edges: int) -> tuple[Sampler, Sampler]:
    (ours, reference), _ = build_student_pair(num_nodes, num_edges)
    return timed(ours), timed(reference)


def build_inference(folder: Path, num_nodes: int, num_edges: int) -> tuple[Sampler, Sampler]:
    _, (ours, reference) = build_student_pair(num_nodes, num_edges)
    return timed(ours), timed(reference)


def build_teacher_pair(num_nodes: int, num_edges: int, hidden_size: int = 64):
    """A function that makes a training step of a GCN teacher, and the same of the reference."""
    import torch

    from decahub import ReliantConfig, ReliantForNodeClassification
    from decahub.models.reliant.optimization import teacher_step

    from .reference_reliant import ReferenceStudent, build_propagation

    torch.manual_seed(0)
    # A student without proxy columns is a GCN.
    config = ReliantConfig.from_variant(
        "kd-sgc", num_features=NUM_FEATURES, hidden_size=hidden_size, hidden_dropout_prob=0.0
    )
    batch, model = build_batch(num_nodes, num_edges, hidden_size), ReliantForNodeClassification(config)
    reference = ReferenceStudent(NUM_FEATURES, hidden_size, NUM_LABELS)
    reference.copy_weights(model)
    propagate = build_propagation(batch["edge_index"], num_nodes, training=True)
    train = batch["train_mask"]

    def reference_loss() -> torch.Tensor:
        logits, _ = reference(batch["node_features"], propagate)
        return torch.nn.functional.cross_entropy(logits[train], batch["labels"][train])

    def build_step(network, compute_loss):
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)

        def step() -> torch.Tensor:
            optimizer.zero_grad()
            loss = compute_loss()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    ours = build_step(model, lambda: teacher_step(model, batch)["loss"])
    return ours, build_step(reference, reference_loss)


def build_teacher_step(folder: Path, num_nodes: int, num_edges: int) -> tuple[Sampler, Sampler]:
    ours, reference = build_teacher_pair(num_nodes, num_edges)
    return timed(ours), timed(reference)


CASES = [
    Case(name, peer, partial(build, **sizes), (sizes["num_edges"], "edges"))
    for name, peer, build, graphs in (
        ("inference akd-sgc", INFERENCE_PEER, build_inference, (TENTH, BAIL, CREDIT)),
        ("train step gcn teacher", TRAINING_PEER, build_teacher_step, (TENTH, BAIL, CREDIT)),
        ("train epoch akd-sgc", TRAINING_PEER, build_epoch, (TENTH, BAIL, CREDIT)),
    )
    for sizes in graphs
]
