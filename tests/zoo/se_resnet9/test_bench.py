"""The bench's own logic, its result and drawings, and the profile, on a CPU with a few images."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from bench.schema import read_result, write_result
from runtime.errors import InputError
from zoo.se_resnet9 import bench, plot
from zoo.se_resnet9.bench import verdicts
from zoo.se_resnet9.cases import INFERENCE, TRAINING, Case, Ready, cases
from zoo.se_resnet9.plot import drawings
from zoo.se_resnet9.profile import hotspots, kind_of, shares


def test_what_is_compared_is_there():
    names = {what: [case.name for case in cases(what)] for what in (INFERENCE, TRAINING)}
    for what in names:
        for name in ("eager fp32", "eager fp16", "channels-last fp16", "TorchScript fp16", "torch.compile fp16"):
            assert name in names[what]
        assert "fast fp16, graph" in names[what]
    assert "folded triton fp16, graph" in names[INFERENCE]
    assert "folded triton fp16, graph" not in [case.name for case in cases(INFERENCE, ("fused",))]


def test_it_measures_and_draws_on_a_cpu_and_says_what_is_absent_or_failed(tmp_path, monkeypatch, capsys):
    """Eager FP32 is measured, graphs fail for want of a GPU; of the others only those that are quick are tried."""
    kept = ("eager fp32", "fast fp16, graph")
    monkeypatch.setattr(bench, "cases", lambda what, forms: [case for case in cases(what) if case.name in kept])
    path = tmp_path / "measured.json"
    words = ["--cpu", "--batch", "1", "--only", TRAINING, "--seconds", "250", "--output", str(path)]
    assert bench.main(words) == 0
    result = read_result(path)
    by_name = {peer["name"]: peer for peer in result["peers"]}
    plain = by_name["training step: eager fp32"]
    assert plain["status"] == "measured" and plain["latency"][0]["level"] == TRAINING and not result["complete"]
    assert "a CUDA graph needs its tensors on a GPU" in by_name["training step: fast fp16, graph"]["reason"]
    assert bench.main([*words[:-2], "--seconds", "1", "--output", str(path)]) == 0
    assert "were over before its turn" in read_result(path)["peers"][0]["reason"]
    assert bench.main(["--output", str(path)]) in (0, 1)
    if not torch.cuda.is_available():
        assert "there is no GPU here" in capsys.readouterr().err


class Strange(Exception):
    """As Triton's errors: none of Python's own."""


def test_a_way_that_fails_costs_no_other_its_times(tmp_path, monkeypatch):
    def way(name, sound_runs):
        def make(network, image, gradient):
            left = [sound_runs]

            def run():
                left[0] -= 1
                if left[0] < 0:
                    raise Strange("no shared\nmemory")
                with torch.no_grad():
                    return network(image)

            return Ready(run, network)

        return Case(name, "", "fp32", make)

    # Four runs prepare, a round is one.
    ways = [way("sound", 99), way("never", 0), way("once", 5), way("after", 99)]
    monkeypatch.setattr(bench, "cases", lambda what, forms: ways)
    words = ["--cpu", "--batch", "1", "--seconds", "60", "--output", str(tmp_path / "x.json")]
    assert bench.main([*words, "--only", INFERENCE]) == 0
    sound, never, once, after = read_result(tmp_path / "x.json")["peers"]
    assert [peer["status"] for peer in (sound, never, once, after)] == ["measured", "failed", "partly", "measured"]
    assert never["reason"] == once["reason"] == "Strange: no shared memory" and never["latency"] == []
    assert [peer["latency"][0]["ms"]["rounds"] for peer in (sound, once, after)] == [5, 1, 5]

    def lost(network, what, *rest):
        if what == TRAINING:
            raise Strange("the GPU is lost")
        return expected(network, what, *rest)

    expected = bench._expected
    monkeypatch.setattr(bench, "_expected", lost)
    assert bench.main(words) == 0
    peers = read_result(tmp_path / "x.json")["peers"]
    assert [peer["status"] for peer in peers[:2]] == ["measured", "failed"]
    assert {peer["reason"] for peer in peers[4:]} == {"Strange: the GPU is lost"}


def of_the_gpu():
    """A result as a GPU's, of the times that a test needs."""
    times = {
        f"{INFERENCE}: TorchScript fp16": 0.4,
        f"{INFERENCE}: folded fused fp16, graph": 0.08,
        f"{INFERENCE}: fast fp16, graph": 0.12,
        f"{INFERENCE}: engine fp16": 0.1,
        f"{TRAINING}: eager fp16": 6.0,
        f"{TRAINING}: fast fp16, graph": 4.0,
    }
    machine = {name: "x" for name in ("date", "gpu", "driver", "cuda", "cpu", "python", "command")}
    peers = []
    for name, ms in times.items():
        spread = {"median": ms, "p95": ms, "least": ms, "most": ms, "low": ms, "high": ms, "spread": 0.0}
        level = "network" if name.startswith(INFERENCE) else TRAINING
        latency = {"batch": 1, "level": level, "ms": {**spread, "count": 1, "rounds": 1}, "images_per_second": 1.0}
        peer = {"name": name, "about": "", "device": "gpu", "precision": "fp16", "status": "measured"}
        peers.append({**peer, "latency": [latency]})
    return {
        "schema": "cat2dog-bench/1", "kind": "network", "complete": True, "method": "x", "peers": peers,
        "machine": {**machine, "cores": 1, "versions": {}},
    }  # fmt: skip


def test_the_goals_are_judged_by_the_fastest_way_of_ours():
    first, second = verdicts(of_the_gpu())
    assert first.startswith("inference: folded fused fp16, graph 0.0800 ms, 5.00 times") and first.endswith("4 is met")
    assert second.startswith("training step: fast fp16, graph 4.0000 ms, 1.50 times") and second.endswith("2 is missed")


def test_bars_are_drawn_of_a_result(tmp_path, capsys):
    write_result(tmp_path / "se.json", of_the_gpu())
    assert plot.main(["--result", str(tmp_path / "se.json")]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / f"se_{what}.svg") for what in ("inference", "training_step")
    ]
    text = (tmp_path / "se_inference.svg").read_text()
    ElementTree.fromstring(text)
    assert "5.00x" in text and "4 times as fast as TorchScript fp16" in text
    with pytest.raises(InputError, match="no way of this result has a time"):
        drawings({"peers": []})


def test_hotspots_are_what_takes_the_time():
    a, small = torch.randn(400, 400), torch.randn(4)

    def work():
        torch.relu(small)
        return a @ a

    rows = hotspots(work, 3)
    assert rows[0]["kind"] == "matrix product" and sum(row["share"] for row in rows) == pytest.approx(1, abs=0.01)
    assert next(iter(shares(rows))) == "matrix product"
    assert kind_of("void cudnn::ops::nchwToNhwcKernel<__half>") == "layout"
    assert kind_of("sm90_xmma_fprop_implicit_gemm_f16") == "convolution"
    assert kind_of("void at::native::vectorized_elementwise_kernel<8>") == "elementwise"
    json.dumps(rows)
