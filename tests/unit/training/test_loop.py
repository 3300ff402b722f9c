"""The loop against loops written out by hand, and what it says, writes and refuses. Resuming is in tests/faults."""

import json
import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from decahub.training import DivergenceError, LoopArguments, Update, train
from decahub.training.batches import EpochBatches
from decahub.training.ema import ExponentialMovingAverage
from decahub.training.updates import call_model
from tests.tiny.training import NUM_FEATURES, NUM_LABELS, ToyRows, build_model, compute_loss


# Float64 sums of the same numbers in another order.
FLOAT64 = {"rtol": 1e-12, "atol": 1e-12}
# Float32: the loop averages terms in another order than the loop that is written out.
FLOAT32 = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture
def build_arguments(tmp_path):
    def build(**changes) -> LoopArguments:
        values = {"output_dir": str(tmp_path / "run"), "max_steps": 6, "per_device_train_batch_size": 8}
        return LoopArguments(**{**values, "logging_steps": 1, **changes})

    return build


@pytest.fixture
def rows() -> ToyRows:
    return ToyRows(num_rows=23, noise=0.0)


def build_update(model: nn.Module, step=compute_loss, **options) -> Update:
    return Update(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), step, **options)


def get_state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def read_log(result) -> list[dict]:
    return [json.loads(line) for line in result.train_log.read_text().splitlines()]


def stack(rows: ToyRows, batch: list[int]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([rows[index][name] for index in batch]) for name in ("features", "labels")}


def test_a_folder_with_a_model_is_no_folder_of_a_run(rows, build_arguments, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "run" / "train_log.jsonl").write_text('{"step": 3}\n')

    with pytest.raises(ValueError, match=r"must be the folder of a run; .* holds a model \(config.json\)"):
        train(build_model(), build_update(build_model()), rows, build_arguments())
    assert (tmp_path / "run" / "train_log.jsonl").read_text() == '{"step": 3}\n'


# What is computed


def test_equals_a_loop_written_out(rows, build_arguments):
    expected = build_model(dropout=0.0).train()
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1, momentum=0.9)
    batches = EpochBatches(len(rows), 8)
    for epoch in range(3):  # of two steps each
        batches.set_position(epoch)
        for batch in batches:
            optimizer.zero_grad()
            compute_loss(expected, stack(rows, batch))["loss"].backward()
            nn.utils.clip_grad_norm_(expected.parameters(), 0.25)
            optimizer.step()

    model = build_model(dropout=0.0)
    result = train(model, build_update(model), rows, build_arguments(max_grad_norm=0.25))

    torch.testing.assert_close(get_state(result.model), get_state(expected), **FLOAT32)
    assert (result.step, result.epoch) == (6, 3.0)


def test_accumulation_equals_a_large_batch(rows, build_arguments, tmp_path):
    results = []
    for name, options in {
        "large": {"per_device_train_batch_size": 6},
        "accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
    }.items():
        model = build_model(dropout=0.0).double()
        model.norm = nn.Identity()  # batch norm sees micro-batches, so it is no part of the claim

        def step(model, batch):
            return compute_loss(model, {"features": batch["features"].double(), "labels": batch["labels"]})

        arguments = build_arguments(output_dir=str(tmp_path / name), max_grad_norm=0.1, **options)
        results.append(train(model, build_update(model, step), rows, arguments))

    large, accumulated = results
    torch.testing.assert_close(get_state(accumulated.model), get_state(large.model), **FLOAT64)
    losses = [[record["loss"] for record in read_log(result)] for result in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # the log has seven digits


def test_updates_alternate_and_learn_only_their_own(rows, build_arguments):
    model, rival = build_model(dropout=0.0), nn.Linear(NUM_LABELS, NUM_FEATURES)
    calls = []

    def step_model(model, batch, rival):
        calls.append("model")
        calls.append(get_state(rival)["bias"])
        return {"loss": -F.mse_loss(rival(model(batch["features"])), batch["features"])}

    def step_rival(model, batch, rival):
        calls.append("rival")
        return {"loss": F.mse_loss(rival(model(batch["features"])), batch["features"])}

    updates = [
        build_update(model, step_model),
        Update(torch.optim.SGD(rival.parameters(), lr=0.1), step_rival, every=2, name="critic"),
    ]
    result = train(model, updates, rows, build_arguments(max_steps=3), companions={"rival": rival})

    assert [call for call in calls if isinstance(call, str)] == ["model", "rival", "model", "model", "rival"]
    biases = [call for call in calls if not isinstance(call, str)]
    assert not torch.equal(biases[0], biases[1])  # by its own update, after the model's
    assert torch.equal(biases[1], biases[2])  # not by the model's update, whose gradients reach it
    assert [sorted(record) for record in read_log(result)][1] == [
        "0/grad_norm", "0/learning_rate", "0/loss", "critic/learning_rate", "epoch", "samples_per_second", "step",
    ]  # fmt: skip


def test_gradients_of_another_update_are_not_used(rows, build_arguments):
    model = build_model(dropout=0.0)
    before = get_state(model)

    def step_rival(model, batch, rival):  # leaves gradients in the model
        return {"loss": rival(model(batch["features"])).square().mean()}

    def step_model(model, batch, rival):
        return {"loss": 0.0 * model(batch["features"]).sum()}

    rival = nn.Linear(NUM_LABELS, 1)
    updates = [
        Update(torch.optim.SGD(rival.parameters(), lr=0.1), step_rival),
        Update(torch.optim.SGD(model.parameters(), lr=0.1), step_model),
    ]
    result = train(model, updates, rows, build_arguments(), companions={"rival": rival})

    names = [name for name, _ in model.named_parameters()]
    torch.testing.assert_close(
        {name: get_state(result.model)[name] for name in names}, {name: before[name] for name in names}, rtol=0, atol=0
    )


def test_schedules_step_once_an_update(rows, build_arguments):
    model = build_model()
    lengths = []

    def build_scheduler(optimizer, num_training_steps):
        lengths.append(num_training_steps)
        return LambdaLR(optimizer, lambda step: 1.0 + step)

    updates = [build_update(model, scheduler=build_scheduler), build_update(model, scheduler=build_scheduler, every=4)]
    result = train(model, updates, rows, build_arguments())

    assert lengths == [6, 2]
    records = read_log(result)
    rates = [record["0/learning_rate"] for record in records]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert [record["1/learning_rate"] for record in records] == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.2, 0.2])


def test_returns_the_average_of_the_weights(rows, build_arguments):
    model = build_model(dropout=0.0)
    average = ExponentialMovingAverage(model, 0.6, warmup=True)
    updates = 0

    class Observed(torch.optim.SGD):
        def step(self, closure=None):
            nonlocal updates
            super().step(closure)
            average.update(updates)
            updates += 1

    update = Update(Observed(model.parameters(), lr=0.1), compute_loss)
    result = train(model, update, rows, build_arguments(ema_decay=0.6, ema_warmup=True))

    torch.testing.assert_close(get_state(result.model), average.tensors, rtol=0, atol=0)
    assert result.model is model
    assert not result.model.training


def test_bfloat16_run_returns_a_plain_float32_model(rows, build_arguments, monkeypatch):
    # Accelerate keeps the precision of the first accelerator of a process.
    monkeypatch.setattr("accelerate.state.AcceleratorState._shared_state", {})
    dtypes = []

    def step(model, batch):
        model.hidden.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
        return compute_loss(model, batch)

    model = build_model(dropout=0.0)
    result = train(model, build_update(model, step), rows, build_arguments(mixed_precision="bf16", max_steps=1))

    assert dtypes[0] == torch.bfloat16
    features = rows.features[:2]
    torch.testing.assert_close(result.model(features), build_copy(result.model)(features), rtol=0, atol=0)


def build_copy(model: nn.Module) -> nn.Module:
    copy = build_model(dropout=0.0)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def test_draws_differ_between_steps_batches_and_updates_but_not_between_runs(rows, build_arguments, tmp_path):
    draws: list[float] = []

    def step(model, batch):
        draws.append(torch.rand(()).item())
        return compute_loss(model, batch)

    for name in ("one", "other"):
        model = build_model()
        arguments = build_arguments(output_dir=str(tmp_path / name), max_steps=3, gradient_accumulation_steps=2)
        train(model, [build_update(model, step), build_update(model, step)], rows, arguments)

    assert draws[:12] == draws[12:]
    assert len(set(draws)) == 12  # three steps of two updates of two micro-batches


# Updates without a step, without an optimizer, and what follows them


class ModelWithTerms(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = build_model(dropout=0.0)

    def forward(self, features, labels):
        logits = self.model(features)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits, "entropy": logits.exp().mean(), "cache": 3}


def test_model_is_called_by_default_and_its_scalars_are_logged(rows, build_arguments):
    model, expected = ModelWithTerms(), ModelWithTerms()
    update = Update(torch.optim.SGD(model.parameters(), lr=0.1))
    other = Update(
        torch.optim.SGD(expected.parameters(), lr=0.1), lambda model, batch: {"loss": model(**batch)["loss"]}
    )

    result = train(model, update, rows, build_arguments(max_steps=3))
    train(expected, other, rows, build_arguments(max_steps=3, output_dir=str(result.train_log.parent / "other")))

    assert {"loss", "entropy", "grad_norm"} <= read_log(result)[0].keys() - {"logits", "cache"}
    torch.testing.assert_close(get_state(model), get_state(expected), rtol=0, atol=0)


def test_after_follows_each_update_that_was_made(rows, build_arguments):
    calls = []

    def after(model, batch, rival):
        calls.append((len(batch["labels"]), type(rival), torch.is_grad_enabled()))

    model, rival = build_model(), nn.Linear(1, 1)
    step = spoil({1, 4})
    update = build_update(model, lambda model, batch, rival: step(model, batch), after=after)

    train(model, update, rows, build_arguments(gradient_accumulation_steps=2), companions={"rival": rival})

    assert calls == [(8, nn.Linear, False)] * 4  # of 6: calls 1 and 4 spoiled steps 0 and 2


def test_update_without_optimizer_has_no_gradients_and_changes_nothing(rows, build_arguments, tmp_path):
    modes, calls = [], []

    def measure(model, batch):
        modes.append(torch.is_grad_enabled())
        return {"mean": model(batch["features"]).mean()}

    def count(model, batch):
        calls.append(1)

    results = []
    for name, number in {"with": 1, "without": 0}.items():
        model = build_model()
        model.norm = nn.Identity()  # which would keep statistics of a further forward pass
        observer = Update(step=measure, every=2, name="observer", after=count)
        arguments = build_arguments(output_dir=str(tmp_path / name), max_grad_norm=1e-3)
        results.append(train(model, [build_update(model, name="model"), *[observer] * number], rows, arguments))

    assert modes == [False] * 3
    assert len(calls) == 3
    torch.testing.assert_close(get_state(results[0].model), get_state(results[1].model), rtol=0, atol=0)
    assert "observer/mean" in read_log(results[0])[0]
    assert not any(name.startswith("observer/") for name in read_log(results[0])[1])


def test_update_without_optimizer_is_skipped_where_its_loss_is_not_finite(rows, build_arguments):
    calls = []
    update = Update(step=lambda model, batch: {"loss": torch.tensor(float("nan"))}, after=lambda *_: calls.append(1))

    result = train(build_model(), update, rows, build_arguments(max_steps=2))

    assert (result.skipped_updates, calls) == (2, [])


# Lengths


@pytest.mark.parametrize(
    ("num_rows", "options", "steps"),
    [
        (1, {"num_train_epochs": 4}, 4),
        (5, {"num_train_epochs": 2}, 2),
        (23, {"num_train_epochs": 1.5}, 3),
        (23, {"num_train_epochs": 2, "dataloader_drop_last": False}, 6),
        (23, {"num_train_epochs": 0.01}, 1),
        (240, {"num_train_epochs": 0.1}, 3),
    ],
    ids=["one-row", "less-than-a-batch", "fraction", "rest", "at-least-one", "not-rounded-up"],
)
def test_number_of_steps(num_rows, options, steps, build_arguments):
    model = build_model()
    model.norm = nn.Identity()  # batch norm cannot learn from one row

    result = train(model, build_update(model), ToyRows(num_rows), build_arguments(max_steps=None, **options))

    assert result.step == steps


def test_workers_prepare_the_same_batches(build_arguments, tmp_path):
    states, rows = [], ToyRows(num_rows=23, noise=0.1)
    for workers in (0, 2):
        model = build_model()
        arguments = build_arguments(output_dir=str(tmp_path / str(workers)), dataloader_num_workers=workers)
        states.append(get_state(train(model, build_update(model), rows, arguments).model))

    torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)


def test_epoch_is_told_to_all_who_listen(rows, build_arguments):
    class Listener:
        def __init__(self, function=None):
            self.function = function
            self.epochs = []

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

        def __call__(self, *args):
            return self.function(*args)

    model = build_model()
    rows.set_epoch = Listener().set_epoch
    collate, step = Listener(torch.utils.data.default_collate), Listener(compute_loss)
    train(model, build_update(model, step), rows, build_arguments(), collate_fn=collate)

    assert [rows.set_epoch.__self__.epochs, collate.epochs, step.epochs] == [[0, 1, 2]] * 3


# Evaluation


def test_evaluation_sees_the_average_and_changes_nothing(rows, build_arguments, tmp_path):
    seen, own = [], []

    def evaluate(model):
        seen.append((get_state(model), model.training, torch.is_grad_enabled()))
        torch.randn(3)  # draws are nobody's business
        return {"accuracy": 0.5}

    def step(model, batch):
        own.append(get_state(model))
        assert model.training
        return compute_loss(model, batch)

    results = []
    for name, options in {"with": {"eval_steps": 2}, "without": {}}.items():
        model = build_model()
        arguments = build_arguments(output_dir=str(tmp_path / name), ema_decay=0.5, **options)
        results.append(train(model, build_update(model, step), rows, arguments, evaluate=evaluate))

    assert len(seen) == 3 + 1  # after steps 2, 4 and 6; and at the end of the other run
    assert not torch.equal(seen[0][0]["hidden.weight"], own[2]["hidden.weight"])  # the model went on with its own
    assert {(training, grad) for _, training, grad in seen} == {(False, False)}
    torch.testing.assert_close(get_state(results[0].model), get_state(results[1].model), rtol=0, atol=0)
    torch.testing.assert_close(seen[2][0], get_state(results[0].model), rtol=0, atol=0)


def test_denormal_numbers_are_flushed_during_the_run_alone(rows, build_arguments):
    tiny = torch.finfo(torch.float32).tiny
    seen = []

    def step(model, batch):
        seen.append((torch.tensor(tiny) * 0.5).item())
        return compute_loss(model, batch)

    model = build_model()
    train(model, build_update(model, step), rows, build_arguments(max_steps=1))

    assert seen == [0.0]
    assert torch.tensor(tiny) * 0.5 > 0


def test_evaluation_leaves_frozen_parts_in_their_mode(rows, build_arguments):
    modes = []

    def step(model, batch):
        model.norm.eval()  # as a backbone with frozen statistics does
        modes.append(model.norm.training)
        return compute_loss(model, batch)

    class Frozen(nn.Module):
        def forward(self, features):
            modes.append(self.training)
            return features

    model = build_model()
    model.dropout = Frozen()
    train(model, build_update(model, step), rows, build_arguments(eval_steps=1), evaluate=lambda model: {})

    assert modes == [False, True] * 6


def test_returns_the_best_weights(rows, build_arguments):
    states, values = [], iter([0.1, 0.7, float("nan"), 0.7, 0.3, 0.2])

    def evaluate(model):
        states.append(get_state(model))
        return {"accuracy": next(values), "count": len(states)}

    model = build_model()
    arguments = build_arguments(eval_steps=1, metric_for_best_model="accuracy")
    result = train(model, build_update(model), rows, arguments, evaluate=evaluate)

    assert result.metrics == {"accuracy": 0.7, "count": 2}
    torch.testing.assert_close(get_state(result.model), states[1], rtol=0, atol=0)


def test_smaller_can_be_better(rows, build_arguments):
    values = iter([0.3, 0.2, 0.4])

    model = build_model()
    arguments = build_arguments(eval_epochs=1, metric_for_best_model="error", greater_is_better=False)
    result = train(model, build_update(model), rows, arguments, evaluate=lambda model: {"error": next(values)})

    assert result.metrics == {"error": 0.2}


# Log


def test_log_has_means_over_the_steps_between(rows, build_arguments):
    losses = []

    def step(model, batch):
        terms = compute_loss(model, batch)
        losses.append(terms["loss"].item())
        return {**terms, "twice": 2 * terms["loss"]}

    model = build_model()
    arguments = build_arguments(max_steps=5, logging_steps=2, eval_steps=4)
    result = train(model, build_update(model, step), rows, arguments, evaluate=lambda model: {"accuracy": 0.5})

    records = read_log(result)
    assert [(record["step"], record["epoch"]) for record in records] == [(2, 1), (4, 2), (4, 2), (5, 2.5), (5, 2.5)]
    means = [sum(losses[:2]) / 2, sum(losses[2:4]) / 2, losses[4]]
    assert [record["loss"] for record in records if "loss" in record] == pytest.approx(means, rel=1e-6)
    assert [record["twice"] for record in records if "loss" in record] == pytest.approx(
        [2 * m for m in means], rel=1e-6
    )
    assert [record["eval_accuracy"] for record in records if "eval_accuracy" in record] == [0.5, 0.5]


def test_score_that_is_not_finite_is_null_in_the_log(rows, build_arguments):
    model = build_model()

    result = train(
        model, build_update(model), rows, build_arguments(max_steps=1), evaluate=lambda model: {"score": float("nan")}
    )

    assert read_log(result)[-1] == {"step": 1, "epoch": 0.5, "eval_score": None}


def test_tracker_gets_the_log(rows, build_arguments):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard: pip install tensorboard"
    )
    model = build_model()

    result = train(model, build_update(model), rows, build_arguments(report_to="tensorboard"))

    folder = next(result.train_log.parent.glob("decahub/events*")).parent
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    logged = [event.value for event in events.Scalars("loss")]
    assert logged == pytest.approx([record["loss"] for record in read_log(result)], rel=1e-6)


def test_refuses_tracker_that_is_not_installed(rows, build_arguments, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    model = build_model()

    with pytest.raises(ImportError, match="`report_to` is 'trackio', which is not installed: pip install trackio"):
        train(model, build_update(model), rows, build_arguments(report_to="trackio"))


# Losses that are not finite


def spoil(calls: set[int]):
    """Step whose loss is NaN in the given calls."""
    count = -1

    def step(model, batch):
        nonlocal count
        count += 1
        loss = compute_loss(model, batch)["loss"]
        return {"loss": loss * float("nan") if count in calls else loss}

    return step


def test_step_without_finite_loss_is_skipped_and_counted(rows, build_arguments, caplog):
    states = []

    def watch(model, batch):
        states.append({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
        return step(model, batch)

    step = spoil({1, 4})
    model = build_model()
    with caplog.at_level(logging.WARNING):
        result = train(model, build_update(model, watch), rows, build_arguments())

    torch.testing.assert_close(states[2], states[1], rtol=0, atol=0)
    assert not torch.equal(states[1]["hidden.weight"], states[0]["hidden.weight"])
    assert result.skipped_updates == 2
    assert [record.get("skipped_updates") for record in read_log(result)] == [None, 1, 1, 1, 2, 2]
    assert "Step 1 is skipped: loss nan" in caplog.text


def test_run_of_skips_ends_with_an_error_and_keeps_the_checkpoint(rows, build_arguments, tmp_path):
    model = build_model()
    arguments = build_arguments(max_steps=40, save_steps=4)

    with pytest.raises(DivergenceError, match=r"must be finite; they were not in 10 updates in a row up to step 14"):
        train(model, build_update(model, spoil(set(range(5, 40)))), rows, arguments)

    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-12", "checkpoint-8"]


def test_spoiled_statistics_end_the_run_at_once(rows, build_arguments):
    rows.features[3] = float("inf")
    model = build_model()

    with pytest.raises(DivergenceError, match=r"Running statistics of the model must be finite.*infinite values in"):
        train(model, build_update(model), rows, build_arguments(per_device_train_batch_size=23))


# What is refused


def return_number(model, batch):
    return {"loss": compute_loss(model, batch)["loss"].item()}


def return_vector(model, batch):
    return {**compute_loss(model, batch), "norms": model.hidden.weight.norm(dim=0)}


def return_bare_loss(model, batch):
    return compute_loss(model, batch)["loss"]


def return_constant(model, batch):
    return {"loss": compute_loss(model, batch)["loss"].detach()}


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (return_number, TypeError, r"`loss` in what `step` returns must be a tensor of shape \(\); got float"),
        (return_vector, TypeError, r"`norms` in what `step` returns must be .*; got shape \(5,\)"),
        (return_bare_loss, TypeError, r"`step` must return a mapping with the key 'loss'; got Tensor"),
        (lambda model, batch: {"mse": 0}, TypeError, r"mapping with the key 'loss'; got \['mse'\]"),
        (return_constant, ValueError, r"`loss` must require a gradient"),
    ],
    ids=["number", "vector", "bare", "no-loss", "constant"],
)
def test_refuses_what_a_step_returns(step, error, message, rows, build_arguments):
    model = build_model()

    with pytest.raises(error, match=message):
        train(model, build_update(model, step), rows, build_arguments())


def test_refuses_no_update(rows, build_arguments):
    with pytest.raises(TypeError, match=r"`updates` must hold at least one Update and nothing else; got \[\]"):
        train(build_model(), [], rows, build_arguments())


def test_refuses_model_without_named_outputs_and_without_step(rows, build_arguments):
    model = build_model()
    model.forward = lambda features, labels: features.sum()
    update = Update(torch.optim.SGD(model.parameters()))

    with pytest.raises(TypeError, match="The model must return a mapping such as a `ModelOutput`; got Tensor"):
        train(model, update, rows, build_arguments())


def test_refuses_arguments_that_were_changed_afterwards(rows, build_arguments):
    arguments, model = build_arguments(), build_model()
    arguments.per_device_train_batch_size = -5

    with pytest.raises(ValueError, match="`per_device_train_batch_size` must be positive; got -5"):
        train(model, build_update(model), rows, arguments)


def test_refuses_no_row(build_arguments):
    model = build_model()

    with pytest.raises(ValueError, match=r"`train_dataset` must have at least one row; got none"):
        train(model, build_update(model), [], build_arguments())


def test_refuses_companion_that_is_no_module(rows, build_arguments):
    model = build_model()

    with pytest.raises(TypeError, match=r"`companions` must be modules; got int for 'teacher'"):
        train(model, build_update(model), rows, build_arguments(), companions={"teacher": 3})


def test_refuses_best_model_without_evaluation(rows, build_arguments):
    model = build_model()
    arguments = build_arguments(eval_steps=1, metric_for_best_model="accuracy")

    with pytest.raises(ValueError, match=r"`evaluate` must be given for `metric_for_best_model`"):
        train(model, build_update(model), rows, arguments)


def test_refuses_score_that_evaluation_lacks(rows, build_arguments):
    model = build_model()
    arguments = build_arguments(eval_steps=1, metric_for_best_model="acuracy")

    with pytest.raises(ValueError, match=r"must be a score of `evaluate` \(accuracy\); got 'acuracy'"):
        train(model, build_update(model), rows, arguments, evaluate=lambda model: {"accuracy": 1.0})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": 3}, TypeError, "`optimizer` must be a torch.optim.Optimizer; got int"),
        ({"step": 3}, TypeError, "`step` must be a function of .*; got 3"),
        ({"every": 0}, ValueError, "`every` must be at least 1; got 0"),
        ({"after": 3}, TypeError, "`after` must be a function of .*; got 3"),
        ({"optimizer": None, "step": call_model}, ValueError, "`optimizer` or `step` must be given; got neither"),
        ({"optimizer": None, "scheduler": print}, ValueError, "`scheduler` must come with an `optimizer`; got none"),
    ],
    ids=["optimizer", "step", "every", "after", "nothing", "scheduler"],
)
def test_refuses_update(options, error, message):
    optimizer = torch.optim.SGD(build_model().parameters(), lr=0.1)

    with pytest.raises(error, match=message):
        Update(**{"optimizer": optimizer, "step": compute_loss, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train_epochs": 0}, "`num_train_epochs` must be positive; got 0"),
        ({"num_train_epochs": float("nan")}, "`num_train_epochs` must be positive; got nan"),
        ({"per_device_train_batch_size": -1}, "`per_device_train_batch_size` must be positive; got -1"),
        ({"save_total_limit": 0}, "`save_total_limit` must be positive; got 0"),
        ({"learning_rate": float("inf")}, "`learning_rate` must not be negative; got inf"),
        ({"warmup_steps": -1}, "`warmup_steps` must not be negative; got -1"),
        ({"warmup_ratio": 1.0}, r"`warmup_ratio` must be in \[0, 1\); got 1.0"),
        ({"ema_decay": 1.0}, r"`ema_decay` must be in \[0, 1\); got 1.0"),
        ({"ema_warmup": True}, "`ema_warmup` must come with `ema_decay`"),
        ({"metric_for_best_model": "x"}, "`metric_for_best_model` must come with `eval_steps` or `eval_epochs`"),
    ],
)
def test_refuses_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        LoopArguments(**options)
