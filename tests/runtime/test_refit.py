"""New weights into a loaded engine, on a stand-in for TensorRT's refitter that knows names and sizes as that does."""

from __future__ import annotations

import threading
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest

from runtime.errors import InputError, ToolchainError
from runtime.refit import refit
from tests.runtime.stand_ins import image_network, images

Role = Enum("Role", "KERNEL CONSTANT")
LOG = SimpleNamespace(last=lambda: ": the log's last line")


class FakeRefitter:
    """Takes weights of the sizes that `engine.weights` have; `needed` are those that TensorRT joined with others."""

    def __init__(self, engine, log):
        self.engine, self.given = engine, {}

    def get_all_weights(self):
        return [name for name in self.engine.weights if name not in self.engine.only_layers]

    def get_all(self):
        return [*self.engine.only_layers, "conv"], [Role.CONSTANT] * len(self.engine.only_layers) + [Role.KERNEL]

    def set_named_weights(self, name, weights):
        if weights.size != self.engine.weights[name].size:
            return False
        self.given[name] = weights
        return True

    def set_weights(self, layer, role, weights):
        assert role == Role.CONSTANT and layer in self.engine.only_layers
        return self.set_named_weights(layer, weights)

    def get_missing_weights(self):
        return [name for name in self.engine.needed if name not in self.given]

    def refit_cuda_engine(self):
        if self.engine.broken:
            return False
        self.engine.weights.update({name: weights.copy() for name, weights in self.given.items()})
        return True


TRT = SimpleNamespace(Refitter=FakeRefitter, WeightsRole=Role, Weights=lambda array: array)


def engine(**changed):
    weights = {"stem.weight": np.zeros((2, 3), np.float16), "b1a": np.zeros(1, np.float16)}
    state = {"weights": weights, "only_layers": [], "needed": [], "broken": False}
    return SimpleNamespace(**{**state, **changed})


def ones():
    return {"stem.weight": np.ones((2, 3), np.float16), "b1a": np.ones(1, np.float16)}


@pytest.mark.parametrize("only_layers", [[], ["b1a"]])
def test_weights_of_the_same_names_are_replaced(only_layers):
    made = engine(only_layers=only_layers)
    done = refit(TRT, LOG, made, ones())
    assert done.weights == 2 and done.given_seconds >= 0 and done.placed_seconds >= 0
    assert all((weights == 1).all() for weights in made.weights.values())


@pytest.mark.parametrize(
    "changed, weights, message",
    [
        ({"weights": {}}, ones(), "build it with --refit"),
        ({}, {"b1a": np.ones(1, np.float16)}, "weights 'stem.weight' are not among those given"),
        ({}, {**ones(), "b9": np.ones(1, np.float16)}, "knows no weights 'b9'"),
        ({}, {**ones(), "b1a": np.ones(2, np.float16)}, r"refused float16 \[2\] for the weights 'b1a': the log's last"),
        ({"needed": ["folded"]}, ones(), "wants new weights for 'folded'"),
    ],
)
def test_weights_that_are_not_the_engines_change_nothing(changed, weights, message):
    made = engine(**changed)
    before = {name: each.copy() for name, each in made.weights.items()}
    with pytest.raises(InputError, match=message):
        refit(TRT, LOG, made, weights)
    assert all(np.array_equal(made.weights[name], each) for name, each in before.items())


def test_a_refit_that_fails_half_way_is_told():
    with pytest.raises(ToolchainError, match="could not put the new weights in place: the log's last line"):
        refit(TRT, LOG, engine(broken=True), ones())


def fitted(load, monkeypatch, **changed):
    """A runner whose engine and TensorRT can be refitted."""
    runner, fake = load(image_network())
    for name, value in vars(engine(**changed)).items():
        setattr(fake, name, value)
    for name, value in vars(TRT).items():
        setattr(runner._engine._trt, name, value)
    return runner, fake


def test_a_runner_makes_contexts_and_graphs_anew(load, monkeypatch):
    runner, fake = fitted(load, monkeypatch)
    for _ in range(2):
        runner.infer({"image": images(2)})
    before = fake.contexts
    assert runner.refit(ones()).weights == 2 and fake.weights["b1a"] == 1
    np.testing.assert_array_equal(runner.infer({"image": images(2)})["dog"], images(2))
    assert fake.contexts == before + 1


def test_a_runner_goes_on_after_weights_that_were_refused_and_stops_after_half_a_refit(load, monkeypatch):
    runner, fake = fitted(load, monkeypatch)
    with pytest.raises(InputError, match="knows no weights 'b9'"):
        runner.refit({**ones(), "b9": np.ones(1)})
    runner.infer({"image": images(2)})
    fake.broken = True
    with pytest.raises(ToolchainError, match="could not put"):
        runner.refit(ones())
    with pytest.raises(ToolchainError, match=r"half in place.*make a new runner"):
        runner.infer({"image": images(2)})


def test_many_threads_may_run_and_refit(load, monkeypatch):
    runner, _ = fitted(load, monkeypatch)
    faults = []

    def work(seed):
        try:
            for turn in range(10):
                if turn % 3 == 0:
                    runner.refit(ones(), timeout=20)
                got = runner.infer({"image": images(2, seed)}, timeout=20)["dog"]
                np.testing.assert_array_equal(got, images(2, seed))
        except Exception as error:  # noqa: BLE001  told below, whatever it is
            faults.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults and not any(thread.is_alive() for thread in threads)
