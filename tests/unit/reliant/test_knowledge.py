"""What a teacher knows: from models of several kinds and from files, in three forms, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import GAT

from decahub import ReliantForNodeClassification
from decahub.models.reliant.knowledge import TeacherKnowledge
from tests.tiny.reliant import NUM_FEATURES, NUM_LABELS, NUM_NODES, tiny_config, tiny_graph


ATOL = 1e-6  # float32


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(NUM_NODES, NUM_LABELS, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("teacher_output", "convert"),
    [
        ("logits", lambda logits: logits),
        ("log_probs", lambda logits: logits.log_softmax(-1)),
        ("probs", lambda logits: logits.softmax(-1)),
    ],
)
def test_three_forms_say_the_same(logits, teacher_output, convert):
    knowledge = TeacherKnowledge(convert(logits), teacher_output=teacher_output)

    torch.testing.assert_close(knowledge.logits.softmax(-1), logits.softmax(-1), atol=ATOL, rtol=0)


@pytest.mark.parametrize("teacher_output", ["log_probs", "probs"])
def test_probability_of_zero_stays_finite(teacher_output):
    probabilities = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    given = probabilities.log() if teacher_output == "log_probs" else probabilities

    knowledge = TeacherKnowledge(given, teacher_output=teacher_output)

    assert torch.isfinite(knowledge.logits).all()
    torch.testing.assert_close(knowledge.logits.softmax(-1), probabilities, atol=ATOL, rtol=0)


def test_asks_one_of_our_models():
    model = ReliantForNodeClassification(tiny_config("gcn-teacher")).train()

    knowledge = TeacherKnowledge.from_model(model, **tiny_graph())

    assert model.training
    outputs = model.eval()(**tiny_graph())
    assert torch.equal(knowledge.logits, outputs.logits)
    assert torch.equal(knowledge.embedding, outputs.node_embeddings)
    assert not knowledge.logits.requires_grad


def test_asks_a_model_of_torch_geometric():
    torch.manual_seed(0)
    teacher = GAT(NUM_FEATURES, 6, num_layers=2, out_channels=NUM_LABELS, dropout=0.5).train()

    knowledge = TeacherKnowledge.from_model(
        teacher,
        node_features=tiny_graph()["node_features"],
        edge_index=tiny_graph()["edge_index"],
        embedding_module=teacher.convs[0],
    )

    assert torch.equal(knowledge.logits, teacher.eval()(*tiny_graph().values()))
    assert knowledge.embedding_size == 6
    assert not teacher.convs[0]._forward_hooks


class PairTeacher(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, edge_index):
        return self.answer


def test_takes_a_pair_of_scores_and_embeddings(logits):
    knowledge = TeacherKnowledge.from_model(PairTeacher((logits, logits[:, :2])), **tiny_graph())

    assert set(knowledge.to_batch()) == {"teacher_logits", "teacher_embedding"}
    assert knowledge.embedding_size == 2


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("has_embedding", [True, False], ids=["embedding", "logits-only"])
def test_reads_files(logits, suffix, has_embedding, tmp_path):
    path, embedding = tmp_path / f"teacher{suffix}", 2 * logits if has_embedding else None
    knowledge = TeacherKnowledge(logits, embedding)
    if suffix == ".npz":
        arrays = {"logits": logits.numpy()} | ({"embedding": embedding.numpy()} if has_embedding else {})
        np.savez(path, **arrays)
    else:
        knowledge.save(path)

    read = TeacherKnowledge.from_file(path)

    assert torch.equal(read.logits, logits)
    assert torch.equal(read.embedding, embedding) if has_embedding else read.embedding is None
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_refuses_a_pickle_in_a_file(tmp_path):
    np.savez(tmp_path / "teacher.npz", logits=np.array([{}], dtype=object))

    with pytest.raises(ValueError, match="allow_pickle=False"):
        TeacherKnowledge.from_file(tmp_path / "teacher.npz")


BAD_KNOWLEDGE = {
    "form": (torch.ones(2, 2), None, "softmax", ValueError, "`teacher_output` must be one of .*; got 'softmax'"),
    "type": (np.ones((2, 2)), None, "logits", TypeError, "must be a tensor of floats; got ndarray"),
    "integers": (torch.ones(2, 2, dtype=torch.long), None, "logits", TypeError, "got torch.int64"),
    "dimensions": (torch.ones(2), None, "logits", ValueError, r"two dimensions; got \(2,\)"),
    "nan": (torch.full((2, 2), torch.nan), None, "logits", ValueError, "must be finite"),
    "sums": (
        torch.tensor([[0.5, 0.5], [0.5, 0.6]]),
        None,
        "probs",
        ValueError,
        "sum to 1 for each node .*; got 1.1 for node 1. Say `teacher_output='logits'`",
    ),
    "negative": (torch.tensor([[1.5, -0.5]]), None, "probs", ValueError, "must not be negative .* Are they logits"),
    "log-sums": (torch.zeros(2, 2), None, "log_probs", ValueError, "got 2 for node 0"),
    "rows": (torch.ones(2, 2), torch.ones(3, 4), "logits", ValueError, "must have 2 rows, .*; got 3"),
}


@pytest.mark.parametrize(
    ("logits", "embedding", "teacher_output", "error", "message"), BAD_KNOWLEDGE.values(), ids=BAD_KNOWLEDGE
)
def test_refuses_what_no_teacher_says(logits, embedding, teacher_output, error, message):
    with pytest.raises(error, match=message):
        TeacherKnowledge(logits, embedding, teacher_output)


@pytest.mark.parametrize(
    ("size", "needs_embedding", "message"),
    [
        ((8, 3), False, r"must have shape \(8, 3\); got \(9, 3\). Was it trained on this graph"),
        ((9, 2), False, r"must have shape \(9, 2\)"),
        ((9, 3), True, "`embedding` of the teacher must be given with framework 'akd'"),
    ],
    ids=["nodes", "labels", "embedding"],
)
def test_refuses_a_teacher_of_another_graph(logits, size, needs_embedding, message):
    with pytest.raises(ValueError, match=message):
        TeacherKnowledge(logits).check_fits(*size, needs_embedding)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("absent.npz", FileNotFoundError, "`path` must name a file"),
        ("teacher.pt", ValueError, r"must end in '\.safetensors' or '\.npz'; got 'teacher.pt'"),
        ("other.npz", ValueError, "must hold an array `logits`"),
    ],
)
def test_refuses_files_of_other_kinds(name, error, message, tmp_path):
    (tmp_path / "teacher.pt").write_bytes(b"")
    np.savez(tmp_path / "other.npz", scores=np.ones((2, 2)))

    with pytest.raises(error, match=message):
        TeacherKnowledge.from_file(tmp_path / name)


def test_refuses_models_that_answer_otherwise():
    with pytest.raises(TypeError, match="`teacher` must return scores, .*; got dict"):
        TeacherKnowledge.from_model(PairTeacher({}), **tiny_graph())
    with pytest.raises(ValueError, match="`embedding_module` must be a part of `teacher`"):
        TeacherKnowledge.from_model(PairTeacher({}), **tiny_graph(), embedding_module=nn.Identity())


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.randn(4, 1), r"a column for each class, two at least; got \(4, 1\)"),
        (torch.randn(4, 3).softmax(-1), r"got numbers that sum to 1 for each node\. Say `teacher_output='probs'`"),
    ],
    ids=["one column", "probabilities"],
)
def test_refuses_what_is_no_logits(logits, message):
    with pytest.raises(ValueError, match=message):
        TeacherKnowledge(logits)


def test_names_the_arrays_of_a_file_without_logits(tmp_path):
    np.savez(tmp_path / "teacher.npz", scores=np.ones((3, 2)))

    with pytest.raises(ValueError, match=r"`teacher.npz` must hold an array `logits`; got \['scores'\]"):
        TeacherKnowledge.from_file(tmp_path / "teacher.npz")


def test_whole_numbers_in_a_file_are_scores(tmp_path):
    np.savez(tmp_path / "teacher.npz", logits=np.array([[3, -1], [0, 2]]))

    assert TeacherKnowledge.from_file(tmp_path / "teacher.npz").logits.tolist() == [[3.0, -1.0], [0.0, 2.0]]
