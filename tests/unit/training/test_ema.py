"""The average of the weights against a slow one in float64, and its exchange with the model's own."""

import pytest
import torch

from decahub.training.ema import ExponentialMovingAverage, compute_ema_decay


TOLERANCES = {"rtol": 1e-6, "atol": 1e-6}  # float32 rounding of a few updates


def build_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))


def change(model: torch.nn.Module) -> None:
    """Move weights, and statistics with them."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model(torch.randn(4, 3))


@pytest.mark.parametrize("warmup", [False, True], ids=["constant", "warmup"])
def test_equals_slow_average(warmup):
    model = build_model()
    ema = ExponentialMovingAverage(model, 0.7, warmup=warmup)
    expected = {name: tensor.double() for name, tensor in model.state_dict().items()}

    for update in range(6):
        change(model)
        ema.update(update)
        decay = min(0.7, (1 + update) / (10 + update)) if warmup else 0.7
        for name, tensor in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    expected["1.num_batches_tracked"] = torch.tensor(6.0).double()  # a counter is copied

    actual = {name: tensor.double() for name, tensor in ema.tensors.items()}
    torch.testing.assert_close(actual, expected, **TOLERANCES)


@pytest.mark.parametrize(
    ("num_updates", "expected"), [(0, 0.1), (8, 0.5), (10**6, 0.9998)], ids=["first", "ninth", "late"]
)
def test_warmup_of_decay(num_updates, expected):
    assert compute_ema_decay(0.9998, num_updates, warmup=True) == pytest.approx(expected, abs=1e-15)


def test_own_weights_come_back_bit_for_bit_after_an_error():
    model = build_model()
    ema = ExponentialMovingAverage(model, 0.7)
    change(model)
    inside: dict[str, torch.Tensor] = {}
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def fail_inside():
        with ema.applied_to(model):
            inside.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail_inside()

    torch.testing.assert_close(inside, ema.tensors, rtol=0, atol=0)
    torch.testing.assert_close(dict(model.state_dict()), own, rtol=0, atol=0)


def test_half_precision_is_averaged_in_float32():
    model = build_model().bfloat16()
    ema = ExponentialMovingAverage(model, 0.999)
    start = ema.tensors["0.bias"].clone()

    with torch.no_grad():
        model[0].bias.add_(1)
    ema.update(0)

    torch.testing.assert_close(ema.tensors["0.bias"] - start, torch.full((5,), 0.001), rtol=0, atol=1e-5)


def test_file_round_trip(tmp_path):
    saved, loaded = (ExponentialMovingAverage(build_model(), 0.7) for _ in range(2))
    for tensor in loaded.tensors.values():
        tensor.zero_()

    saved.save(tmp_path / "ema.safetensors")
    loaded.load(tmp_path / "ema.safetensors")

    torch.testing.assert_close(loaded.tensors, saved.tensors, rtol=0, atol=0)


def test_refuses_average_of_another_model(tmp_path):
    ExponentialMovingAverage(torch.nn.Linear(3, 5), 0.7).save(tmp_path / "ema.safetensors")

    with pytest.raises(ValueError, match=r"`ema.safetensors` must hold the tensors of the model; 9 differ.*'0.bias'"):
        ExponentialMovingAverage(build_model(), 0.7).load(tmp_path / "ema.safetensors")
