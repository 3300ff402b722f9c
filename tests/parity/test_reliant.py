"""RELIANT computes the authors' numbers from the authors' weights: every golden file, by its kind.

What each key means, and how the files were made, is in the README of the golden folder.
"""

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn import functional

from conversion.convert_reliant import (
    convert_discriminators,
    convert_state_dict,
    infer_config,
    revert_discriminators,
    revert_state_dict,
)
from decahub import ReliantConfig, ReliantForNodeClassification, load_metric
from decahub.models.reliant.adjacency import EdgeListAdjacency
from decahub.models.reliant.knowledge import TeacherKnowledge
from decahub.models.reliant.loss import (
    compute_fairness_penalty,
    compute_label_propagation_loss,
    compute_surrogate,
)
from decahub.models.reliant.optimization import build_companions, build_updates, teacher_step
from tests.parity.golden import assert_near, golden_params


ATOL = 1e-5  # float32, two orders of summation; measured: 5e-7
METRIC_ATOL = 1e-12
# In mean mode a proxy column is the same for every node, and attention over neighbors does not change with what is the
# same for all: the exact gradient of its score is 0. What is left is rounding, which Adam makes a step of.
NOISE_ATOL = 3e-5
NO_DROPOUT = {"feature_dropout_prob": 0.0, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
AKD_STUDENT_RATE_SHARE = 0.1  # the authors divide the option, which the file gives in front of a remark
AKD_PROXY_RATE = AKD_DISCRIMINATOR_RATE = 1e-3

KNOWN_KEYS = {
    "cpf": [
        r"in\.(x|y|sens|edge_src|edge_dst|train_idx|val_idx|test_idx|teacher_probs|labels_init|proxy)",
        r"state\..+",
        r"out\.(raw|logp|logp_node_proxy|edge_attention_last|loss_(kd|sp|eo)|proxy_loss_(sp|eo))",
        r"grad\.(kd|sp|eo)\..+",
        r"grad\.proxy_loss_(sp|eo)\.proxy",
        r"metric\.(pred|test_sp_eo_acc)",
        r"trace\.(val_loss|val_acc|logp_eval_after|proxy|state\..+)",
    ],
    "akd": [
        r"in\.(x|y|sens|edge_src|edge_dst|train_idx|val_idx|test_idx|teacher_logp|teacher_emb|proxy)",
        r"state\.(student|Dl|De|Dg)\..+",
        r"out\.\d+\.D_(total|ad|ds|e|g1|g2)",
        r"out\.\d+\.G_(total|label|ad|ds|e|g1|g2|l1)",
        r"out\.\d+\.(P_loss|P_grad|val_loss|eval_logits|stu_logits|stu_emb)",
        r"grad\.(D|G\.student)\..+",
        r"metric\.best_valacc_testacc_sp_eo",
        r"trace\.(proxy|student\..+)",
    ],
    "teachers": [
        r"in\.(x|y|edge_src|edge_dst|train_idx)",
        r"(gcn|sage)\.(state\..+|grad\..+|logits|emb|loss)",
    ],
    "metrics": [r"\d+\.(pred|label|sens|probs|idx|h_probs|dsp_deo|surrogate_(sp|eo))", r"h\.(grid|value)"],
}


@dataclass
class Case:
    """A student with the weights, companions and batch of a golden file."""

    golden: object
    config: ReliantConfig
    model: ReliantForNodeClassification
    batch: dict[str, torch.Tensor]
    companions: dict[str, nn.Module] = field(default_factory=dict)

    def mask(self, name: str) -> torch.Tensor:
        return to_mask(self.golden[f"in.{name}_idx"], len(self.golden["in.x"]))

    def call(self, **options):
        graph = {name: self.batch[name] for name in ("node_features", "edge_index")}
        if self.config.proxy_mode == "sensitive":  # the authors' constant proxy is never averaged
            options = {"proxy": self.companions["proxy"](), **options}
        return self.model(**graph, **options)


def to_mask(indices: torch.Tensor, num_nodes: int) -> torch.Tensor:
    mask = torch.zeros(num_nodes, dtype=torch.bool)
    mask[indices] = True
    return mask


def group(golden, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in golden.tensors.items() if name.startswith(prefix)}


def build_batch(golden) -> dict[str, torch.Tensor]:
    return {
        "node_features": golden["in.x"],
        "edge_index": torch.stack([golden["in.edge_src"], golden["in.edge_dst"]]),
        "labels": golden["in.y"],
        "train_mask": to_mask(golden["in.train_idx"], len(golden["in.x"])),
    }


def find_proxy_mode(golden) -> str:
    """The authors' modes 0, 1 and 2, told by the proxy itself."""
    if "in.proxy" not in golden:
        return "none"
    columns = torch.stack([golden["in.sens"], 1 - golden["in.sens"]], dim=1)
    return "sensitive" if torch.equal(golden["in.proxy"], columns.to(golden["in.proxy"].dtype)) else "learnable"


def build_case(golden, official: dict[str, torch.Tensor], knowledge: TeacherKnowledge, **fields) -> Case:
    proxy, mode = golden.tensors.get("in.proxy"), find_proxy_mode(golden)
    shared = {
        "proxy_mode": mode,
        "fairness_metric": golden.metadata["metric"],
        # Without a proxy the authors have no penalty, whatever its weight.
        "fairness_weight": 0.0 if mode == "none" else float(golden.metadata["alpha"]),
        "allow_label_leakage": True,
    }
    config = infer_config(official, has_proxy=proxy is not None, **NO_DROPOUT | shared | fields)
    model = ReliantForNodeClassification(config)
    model.load_state_dict(convert_state_dict(official, config, proxy))
    batch = build_batch(golden) | {"sensitive": golden["in.sens"]} | knowledge.to_batch()
    companions = build_companions(config, len(golden["in.x"]), golden["in.sens"])
    if proxy is not None:
        with torch.no_grad():
            companions["proxy"].values.copy_(proxy)
    return Case(golden, config, model, batch, companions)


def build_cpf(golden) -> Case:
    knowledge = TeacherKnowledge(golden["in.teacher_probs"], teacher_output="probs")
    steps = int(golden.metadata["num_layers"]) - 1
    return build_case(golden, group(golden, "state."), knowledge, num_propagation_steps=steps)


def build_akd(golden) -> Case:
    knowledge = TeacherKnowledge(golden["in.teacher_logp"], golden["in.teacher_emb"], "log_probs")
    fields: dict[str, object] = {"proxy_penalty_nodes": "all"}
    if find_proxy_mode(golden) == "sensitive":  # the authors' adversarial code has no penalty then
        fields["fairness_weight"] = 0.0
    case = build_case(golden, group(golden, "state.student."), knowledge, **fields)
    official = {name: value for name, value in group(golden, "state.").items() if name.startswith("D")}
    case.companions["discriminators"].load_state_dict(convert_discriminators(official))
    return case


def official_gradients(model: ReliantForNodeClassification) -> dict[str, torch.Tensor]:
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return revert_state_dict(gradients, model.config)


def assert_all_near(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float = ATOL) -> None:
    assert expected
    assert expected.keys() <= actual.keys()
    for name, value in expected.items():
        assert_near(actual[name], value, atol, what=name)


def compute_differences(predictions: torch.Tensor, labels: torch.Tensor, sensitive: torch.Tensor) -> list[float]:
    """Differences in statistical parity and equal opportunity; NaN where undefined, as in the authors' code."""
    result = load_metric("group_fairness").compute(predictions=predictions, references=labels, groups=sensitive)
    names = ("statistical_parity_difference", "equal_opportunity_difference")
    return [math.nan if result[name] is None else result[name] for name in names]


def approximately(scores: torch.Tensor):
    return pytest.approx(scores.tolist(), abs=METRIC_ATOL, nan_ok=True)


@pytest.mark.parametrize("golden", golden_params("reliant"))
def test_every_number_of_a_file_is_looked_at(golden):
    assert golden.kind in KNOWN_KEYS, f"{golden.path.name}: no test for `golden_kind` {golden.kind!r}"
    assert golden.unknown_keys(KNOWN_KEYS[golden.kind]) == []


# --- Label propagation (CPF)


def known(case: Case) -> dict[str, torch.Tensor]:
    return {"labels": case.batch["labels"], "train_mask": case.batch["train_mask"]}


@pytest.mark.parametrize("golden", golden_params("reliant", "cpf"))
def test_label_propagation_forward(golden):
    case = build_cpf(golden)

    logits = case.call(**known(case)).logits

    assert_near(logits, golden["out.raw"], ATOL, what="raw")
    assert_near(logits.log_softmax(-1), golden["out.logp"], ATOL, what="logp")
    if "out.logp_node_proxy" in golden:
        node_mode = case.call(**known(case), proxy=golden["in.proxy"]).logits
        assert_near(node_mode.log_softmax(-1), golden["out.logp_node_proxy"], ATOL, what="node mode")


@pytest.mark.parametrize("golden", golden_params("reliant", "cpf"))
def test_label_matrix_and_edge_weights(golden):
    case = build_cpf(golden)
    layer, features = case.model.classifier, case.model.reliant.add_proxy(golden["in.x"])
    known_labels = case.batch["labels"].masked_fill(~case.batch["train_mask"], -100)
    # The plain edge list has the golden file's order; the sparse one is held to it by the outputs.
    adjacency = EdgeListAdjacency(case.batch["edge_index"], len(features), add_self_loops=False)

    matrix, _ = layer.build_label_matrix(known_labels, features)
    weights = layer.compute_weights(features, adjacency)

    assert torch.equal(matrix, golden["in.labels_init"])
    assert_near(weights, golden["out.edge_attention_last"], ATOL)


@pytest.mark.parametrize("term", ["kd", "sp", "eo"])
@pytest.mark.parametrize("golden", golden_params("reliant", "cpf"))
def test_label_propagation_losses(golden, term):
    case = build_cpf(golden)
    proxy = golden["in.proxy"].clone().requires_grad_() if "in.proxy" in golden else None
    mode = {} if proxy is None else {"proxy": proxy.mean(0) if case.config.proxy_mode == "learnable" else proxy}

    logits = case.call(**known(case), **mode).logits
    if term == "kd":
        loss = compute_label_propagation_loss(logits, case.batch["teacher_logits"], case.batch["train_mask"])
    else:
        loss = penalty_of(term, logits, case)
    loss.backward()

    assert_near(loss.reshape(1), golden[f"out.loss_{term}"], ATOL, what="loss")
    gradients = official_gradients(case.model) | ({} if proxy is None else {"proxy": proxy.grad})
    if any(key.startswith("grad.") for key in golden.tensors):
        assert_all_near(gradients, group(golden, f"grad.{term}."))


def penalty_of(term: str, logits: torch.Tensor, case: Case) -> torch.Tensor:
    labels = case.batch["labels"] if term == "eo" else None
    return compute_fairness_penalty(logits, case.batch["sensitive"], ~case.batch["train_mask"], labels)


@pytest.mark.parametrize("term", ["sp", "eo"])
@pytest.mark.parametrize(
    "golden", [param for param in golden_params("reliant", "cpf") if "out.proxy_loss_sp" in param.values[0]]
)
def test_label_propagation_proxy_loss(golden, term):
    case, proxy = build_cpf(golden), golden["in.proxy"].clone().requires_grad_()

    loss = penalty_of(term, case.call(**known(case), proxy=proxy).logits, case)
    loss.backward()

    assert_near(loss.reshape(1), golden[f"out.proxy_loss_{term}"], ATOL, what="loss")
    assert_near(proxy.grad, golden[f"grad.proxy_loss_{term}.proxy"], ATOL, what="gradient")


@pytest.mark.parametrize("golden", golden_params("reliant", "cpf"))
def test_label_propagation_training(golden):
    case, validation = build_cpf(golden), to_mask(golden["in.val_idx"], len(golden["in.x"]))
    rate, decay = float(golden.metadata["lr"]), float(golden.metadata["wd"])
    updates = build_updates(
        case.config,
        case.model,
        case.companions,
        case.batch,
        learning_rate=rate,
        proxy_learning_rate=rate,
        weight_decay=decay,
    )

    for epoch in range(int(golden.metadata["steps"])):
        for optimizer, step, _, after in updates:
            optimizer.zero_grad()
            step(case.model, case.batch, **case.companions)["loss"].backward()
            optimizer.step()
            if after is not None:
                after(case.model, case.batch, **case.companions)
        with torch.no_grad():
            # Neither labels nor proxy: a trained model keeps what it needs.
            log_probs = case.call().logits.log_softmax(-1)
        distance = torch.linalg.vector_norm((log_probs.exp() - golden["in.teacher_probs"])[validation])
        accuracy = (log_probs.argmax(-1) == golden["in.y"])[validation].float().mean()
        assert_near(distance, golden["trace.val_loss"][epoch], ATOL, what="validation loss")
        assert_near(accuracy, golden["trace.val_acc"][epoch], ATOL, what="validation accuracy")

    assert_near(log_probs, golden["trace.logp_eval_after"], ATOL, what="outputs after training")
    assert_trained_state_near(case)


def assert_trained_state_near(case: Case) -> None:
    trained, expected = revert_state_dict(case.model.state_dict(), case.config), group(case.golden, "trace.state.")
    if "alpha" in expected:
        assert torch.equal(expected.pop("alpha"), case.golden["state.alpha"])  # what the converter drops never changes
    if "proxy" in case.companions and "plp_layer.attn_l" in expected:
        scores, expected_scores = trained.pop("plp_layer.attn_l"), expected.pop("plp_layer.attn_l")
        assert_near(scores[:, :-2], expected_scores[:, :-2], ATOL, what="scores of features")
        assert_near(scores[:, -2:], expected_scores[:, -2:], NOISE_ATOL, what="scores of the proxy")
    if "trace.proxy" in case.golden:
        assert_near(case.companions["proxy"](), case.golden["trace.proxy"], ATOL, what="proxy")
    assert_all_near(trained, expected)


@pytest.mark.parametrize("golden", golden_params("reliant", "cpf"))
def test_label_propagation_scores(golden):
    case = build_cpf(golden)
    is_test = case.mask("test")

    predictions = case.call(**known(case)).logits.argmax(-1)
    accuracy = (predictions == case.batch["labels"])[is_test].double().mean().item()
    answers = [values[is_test] for values in (predictions, case.batch["labels"], case.batch["sensitive"])]
    scores = [*compute_differences(*answers), accuracy]

    assert torch.equal(predictions, golden["metric.pred"])
    assert scores == approximately(golden["metric.test_sp_eo_acc"])


# --- Adversarial distillation (GraphAKD)

DISCRIMINATOR_TERMS = {
    "adversarial_loss": "ad",
    "classification_loss": "ds",
    "edge_loss": "e",
    "teacher_summary_loss": "g1",
    "student_summary_loss": "g2",
}
STUDENT_TERMS = DISCRIMINATOR_TERMS | {"label_loss": "label", "distance": "l1"}


def build_akd_updates(case: Case):
    return build_updates(
        case.config,
        case.model,
        case.companions,
        learning_rate=AKD_STUDENT_RATE_SHARE * float(case.golden.metadata["lr"].split()[0]),
        proxy_learning_rate=AKD_PROXY_RATE,
        discriminator_learning_rate=AKD_DISCRIMINATOR_RATE,
        weight_decay=float(case.golden.metadata["wd"]),
    )


def assert_terms_near(case: Case, name: str, terms: dict[str, torch.Tensor], epoch: int) -> None:
    golden = case.golden
    if name == "proxy":
        assert_near(terms["loss"].reshape(1), golden[f"out.{epoch}.P_loss"], ATOL, what="proxy loss")
        if f"out.{epoch}.P_grad" in golden:
            gradient = case.companions["proxy"].values.grad
            assert_near(gradient, golden[f"out.{epoch}.P_grad"], ATOL, what="proxy gradient")
        return
    player, names = ("D", DISCRIMINATOR_TERMS) if name == "discriminators" else ("G", STUDENT_TERMS)
    assert names.keys() <= terms.keys()
    for ours, theirs in {"loss": "total", **names}.items():
        assert_near(terms[ours].reshape(1), golden[f"out.{epoch}.{player}_{theirs}"], ATOL, what=f"{player} {ours}")
    if epoch > 0:
        return
    if name == "student":
        assert_all_near(official_gradients(case.model), group(golden, "grad.G.student."))
    else:
        module = case.companions["discriminators"]
        gradients = {key: parameter.grad for key, parameter in module.named_parameters()}
        assert_all_near(revert_discriminators(gradients), group(golden, "grad.D."))


@pytest.mark.parametrize("golden", golden_params("reliant", "akd"))
def test_adversarial_distillation(golden):
    case = build_akd(golden)
    updates, masks = build_akd_updates(case), {name: case.mask(name) for name in ("val", "test")}
    best_loss, best = float("inf"), []

    for epoch in range(int(golden.metadata["epochs"])):
        outputs = case.call()
        if f"out.{epoch}.stu_logits" in golden:
            assert_near(outputs.logits, golden[f"out.{epoch}.stu_logits"], ATOL, what="logits")
            assert_near(outputs.node_embeddings, golden[f"out.{epoch}.stu_emb"], ATOL, what="embeddings")
        for optimizer, step, name, after in updates:
            optimizer.zero_grad()
            terms = step(case.model, case.batch, **case.companions)
            terms["loss"].backward()
            assert_terms_near(case, name, terms, epoch)
            optimizer.step()
            if after is not None:
                after(case.model, case.batch, **case.companions)
        with torch.no_grad():
            logits = case.call().logits
        if f"out.{epoch}.eval_logits" in golden:
            assert_near(logits, golden[f"out.{epoch}.eval_logits"], ATOL, what="evaluation")
        loss = functional.cross_entropy(logits[masks["val"]], golden["in.y"][masks["val"]])
        assert_near(loss.reshape(1), golden[f"out.{epoch}.val_loss"], ATOL, what="validation loss")
        if loss < best_loss:
            is_right = (logits.argmax(-1) == golden["in.y"]).double()
            accuracies = [is_right[masks[name]].mean().item() for name in ("val", "test")]
            answers = (logits.argmax(-1), case.batch["labels"], case.batch["sensitive"])
            best_loss, best = loss, accuracies + compute_differences(*(values[masks["test"]] for values in answers))

    assert best == approximately(golden["metric.best_valacc_testacc_sp_eo"])
    assert_all_near(revert_state_dict(case.model.state_dict(), case.config), group(golden, "trace.student."))
    if "trace.proxy" in golden:
        assert_near(case.companions["proxy"](), golden["trace.proxy"], ATOL, what="proxy")


# --- Teachers


def list_teachers(golden) -> list[str]:
    return sorted({name.partition(".")[0] for name in golden.tensors if ".state." in name})


@pytest.mark.parametrize(("golden", "architecture"), golden_params("reliant", "teachers", list_teachers))
def test_teacher(golden, architecture):
    official = group(golden, f"{architecture}.state.")
    config = infer_config(official, has_proxy=False, **NO_DROPOUT)
    model, batch = ReliantForNodeClassification(config), build_batch(golden)
    model.load_state_dict(convert_state_dict(official, config))

    outputs = model(batch["node_features"], batch["edge_index"])
    loss = teacher_step(model, batch)["loss"]
    loss.backward()

    assert_near(outputs.logits, golden[f"{architecture}.logits"], ATOL, what="logits")
    assert_near(outputs.node_embeddings, golden[f"{architecture}.emb"], ATOL, what="embeddings")
    assert_near(loss.reshape(1), golden[f"{architecture}.loss"], ATOL, what="loss")
    assert_all_near(official_gradients(model), group(golden, f"{architecture}.grad."))


# --- Scores and surrogates


def metric_cases(golden) -> list[str]:
    return sorted({name.partition(".")[0] for name in golden.tensors if name[0].isdigit()})


@pytest.mark.parametrize(("golden", "case"), golden_params("reliant", "metrics", metric_cases))
def test_group_differences(golden, case):
    values = group(golden, f"{case}.")

    differences = compute_differences(values["pred"], values["label"], values["sens"])

    assert differences == approximately(values["dsp_deo"])


@pytest.mark.parametrize(("golden", "case"), golden_params("reliant", "metrics", metric_cases))
def test_surrogates(golden, case):
    values = group(golden, f"{case}.")
    selected, logits = to_mask(values["idx"], len(values["label"])), values["probs"].log()

    parity = compute_fairness_penalty(logits, values["sens"], selected)
    opportunity = compute_fairness_penalty(logits, values["sens"], selected, values["label"])

    assert_near(compute_surrogate(values["probs"]), values["h_probs"], ATOL, what="surrogate")
    assert_near(parity.reshape(1), values["surrogate_sp"], ATOL, what="statistical parity")
    assert_near(opportunity.reshape(1), values["surrogate_eo"], ATOL, what="equal opportunity")


@pytest.mark.parametrize("golden", golden_params("reliant", "metrics"))
def test_surrogate_on_a_grid(golden):
    assert_near(compute_surrogate(golden["h.grid"]), golden["h.value"], METRIC_ATOL)
