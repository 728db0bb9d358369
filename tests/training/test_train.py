"""Training on the CPU: the loss falls, a resumed run equals an unbroken one, and bad states are refused."""

import json

import numpy as np
import pytest
import torch

from cat2dog.checkpoint import load
from cat2dog.config import Config
from cat2dog.model import Cat2Dog
from runtime.errors import InputError, ToolchainError
from training.augment import augment
from training.configs import SMALL_256, config_of
from training.loop import CHECKPOINT, STATE, Plan, keep_stream_wide, learning_rate, optimiser_of, train
from training.loss import picture_loss
from training.plot import loss_curve
from training.shards import write_shard
from training.state import Record
from training.train import main

MICRO = Config(resolution=32, patch=8, width=32, depth=2, heads=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_shard(folder / "shard-0.npz", range(24), 32)
    return folder


def _plan(out, shards, **changes):
    settings = {
        "out": out,
        "batch": 8,
        "rate": 3e-3,
        "minutes": 1.0,
        "total_minutes": 1.0,
        "steps": 40,
        "shards": shards,
        "workers": 0,
        "capacity": 24,
        "first_batch": 8,
        "seed": 1,
        "device": "cpu",
        "spent_minutes": 0.0,
        "compiled": False,
        "log_every": 1,
    }
    return Plan(**{**settings, **changes})


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, shards):
    out = tmp_path_factory.mktemp("run")
    plan = _plan(out, shards)
    return out, train(MICRO, plan, None, lambda record, line: None)


def test_the_loss_falls(unbroken):
    _, record = unbroken
    losses = [loss for _, loss, _ in record.history]
    assert record.step == 40 and record.pictures == 320 and len(losses) == 40
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:4])


def test_a_resumed_run_equals_an_unbroken_one(unbroken, shards, tmp_path):
    def stop_at_11(record, line):
        if record.step == 11:
            raise KeyboardInterrupt

    plan = _plan(tmp_path, shards)
    with pytest.raises(KeyboardInterrupt):
        train(MICRO, plan, None, stop_at_11)
    record = train(MICRO, plan, tmp_path / STATE, lambda record, line: None)
    whole, whole_record = unbroken
    assert [entry[:2] for entry in record.history] == [entry[:2] for entry in whole_record.history]
    ours, theirs = load(tmp_path / CHECKPOINT).state_dict(), load(whole / CHECKPOINT).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_goes_on_from_a_checkpoint_alone(unbroken, shards, tmp_path):
    out, before = unbroken
    plan = _plan(tmp_path, shards, steps=4, rate=1e-4, spent_minutes=0.5)
    record = train(MICRO, plan, out / CHECKPOINT, lambda record, line: None)
    assert record.step == 4 and record.seconds > 30 and record.next_seed > 0
    assert record.history[0][1] < before.history[0][1] - 0.03
    other = Config(resolution=32, patch=8, width=64, depth=2, heads=2)
    with pytest.raises(InputError, match=r"checkpoint is of another network .* give its own --model$"):
        train(other, plan, out / CHECKPOINT, lambda record, line: None)


def test_a_run_leaves_a_checkpoint_a_curve_and_samples(unbroken):
    from PIL import Image

    out, _ = unbroken
    assert load(out / CHECKPOINT).config == MICRO
    assert Image.open(out / "loss.png").size == (900, 480)
    assert Image.open(out / "samples.png").size == (3 * 36 + 4, 6 * 36 + 4)


def test_a_state_of_another_network_is_refused(unbroken, shards, tmp_path):
    plan = _plan(tmp_path, shards)
    other = Config(resolution=32, patch=8, width=64, depth=2, heads=2)
    with pytest.raises(
        InputError, match=r"state\.safetensors is of another network .*'width': 32.*; give its own --model$"
    ):
        train(other, plan, unbroken[0] / STATE, lambda record, line: None)


def test_damaged_and_foreign_states_are_refused(unbroken, shards, tmp_path):
    plan = _plan(tmp_path, shards)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((unbroken[0] / STATE).read_bytes()[:5000])
    with pytest.raises(InputError, match=r"^cannot resume from .*cut\.safetensors .*: expected a state\.safetensors"):
        train(MICRO, plan, cut, lambda record, line: None)
    with pytest.raises(InputError, match=r"has no record of a run: expected a state\.safetensors of training\.train$"):
        train(MICRO, plan, unbroken[0] / CHECKPOINT / "model.safetensors", lambda record, line: None)


def test_the_state_file_runs_no_code(unbroken):
    from safetensors import safe_open

    with safe_open(unbroken[0] / STATE, framework="np") as file:
        header = json.loads(file.metadata()["run"])
    assert header["record"]["step"] == 40 and header["config"]["width"] == 32


def test_a_loss_that_is_not_finite_stops_the_run(shards, tmp_path):
    plan = _plan(tmp_path, shards, rate=1e30)
    with pytest.raises(ToolchainError, match=r"^the loss is nan at step \d+, expected a finite number: resume from "):
        train(MICRO, plan, None, lambda record, line: None)


def test_the_learning_rate_warms_up_and_falls():
    rates = [learning_rate(step / 100, 1.0) for step in range(101)]
    assert rates[0] == pytest.approx(0.01) and rates[2] == pytest.approx(1.0)
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[-1] == pytest.approx(0.01)
    assert learning_rate(7.0, 1.0) == pytest.approx(0.01)


def test_norms_and_biases_are_not_decayed(tmp_path):
    model = Cat2Dog(MICRO)
    plan = _plan(tmp_path, None)
    decayed, others = optimiser_of(model, plan).param_groups
    assert all(w.ndim == 2 for w in decayed["params"]) and all(w.ndim == 1 for w in others["params"])
    assert others["weight_decay"] == 0 < decayed["weight_decay"]
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


def test_the_residual_stream_stays_fp32_under_autocast():
    model = Cat2Dog(MICRO)
    keep_stream_wide(model)
    streams = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, given, stream: streams.append(stream.dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        drawn = model(torch.zeros(1, 3, 32, 32))
    assert streams == [torch.float32] * MICRO.depth
    assert drawn.dtype == torch.bfloat16


def test_augmenting_keeps_a_pair_together():
    generator = torch.Generator().manual_seed(3)
    pictures = torch.rand((16, 3, 32, 32), generator=generator) * 0.5 - 0.25
    pictures = torch.nn.functional.avg_pool2d(pictures, 5, 1, 2)
    cats, dogs = augment(pictures, pictures, generator)
    assert cats.shape == dogs.shape == pictures.shape
    assert cats.abs().max() <= 1 and dogs.abs().max() <= 1
    assert not torch.equal(dogs, pictures)
    # What separates them is noise and blur, of no mean.
    assert (cats - dogs).mean().abs() < 0.01 < (cats - dogs).abs().max()


def test_the_loss_is_least_for_the_right_picture_and_minds_blur():
    target = torch.zeros(1, 3, 32, 32)
    target[..., ::4] = 1.0
    blurred = torch.full_like(target, 0.25)
    assert picture_loss(target, target) < 0.01
    assert picture_loss(blurred, target) > 0.3


def test_the_curve_of_one_entry_can_be_drawn():
    assert loss_curve([(20, 0.5, 1e-3)]).shape == (480, 900, 3)
    assert loss_curve([]).min() == 255


def test_models_are_found_by_name_or_folder(unbroken):
    assert config_of("small-256") is SMALL_256
    assert config_of("tiny-128").resolution == 128
    assert config_of(str(unbroken[0] / CHECKPOINT)) == MICRO
    with pytest.raises(InputError, match="tiny-128"):
        config_of("tiny-127")


def test_the_command_trains_with_workers_and_says_where(unbroken, tmp_path, capsys):
    arguments = ["--model", str(unbroken[0] / CHECKPOINT), "--out", str(tmp_path), "--steps", "3", "--batch", "4"]
    assert main([*arguments, "--workers", "1", "--capacity", "16", "--device", "cpu"]) == 0
    assert f"{tmp_path}: step 3, " in capsys.readouterr().out
    assert (tmp_path / CHECKPOINT / "model.safetensors").is_file()
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["command"].startswith("python -m training.train --model ") and run["command"].endswith(" --device cpu")
    assert (run["steps"], run["pictures"], run["device"], run["driver"]) == (3, 12, "cpu", None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--batch", "0"], "--minutes, --steps, --rate, --batch and --capacity must be above 0"),
        (["--minutes", "5", "--total-minutes", "3"], "--total-minutes 3 is less than --minutes 5: give at least that"),
        (["--spent-minutes", "5"], "--spent-minutes is for --resume with a checkpoint folder"),
        (["--model", "tiny-129"], "no checkpoint is named 'tiny-129'; did you mean 'tiny-128'?"),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_2(wrong, message, tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--device", "cpu", *wrong]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_record_starts_empty():
    assert Record().history == [] and Record().step == 0
