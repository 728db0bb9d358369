"""`cat2dog accuracy --search`, and what takes the policy it writes."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli import accuracy_search
from cli.compose import policy_of, rebuild_command
from cli.main import main, parse
from export.policy import Island, Policy
from export.policy_file import load_policy
from runtime.errors import AccuracyError, InputError, ToolchainError
from runtime.flavors import Flavor
from runtime.gpu import Gpu
from tests.cli.overflowing_model import OVERFLOWING

pytestmark = pytest.mark.xdist_group("shop")

# Eight channels, of which the squares of one do not fit FP16; a norm that does not call itself one.
MODELS = (
    """
import torch
from torch import nn

from export.recipe import ModuleRecipe
from runtime.runner import TensorSpec
"""
    + OVERFLOWING
)
RECIPE = ("--recipe", "search_models:overflowing")


@pytest.fixture(scope="module")
def searched(shop):
    (shop.folder / "search_models.py").write_text(MODELS)
    done = shop.cat2dog("accuracy", *RECIPE, "--search", "--attention", "decomposed")
    assert done.returncode == 0, done.stderr
    return done.stdout, shop.folder / "build/accuracy/overflowing_fp16_search"


def test_the_island_is_found_and_what_it_costs(searched):
    printed, folder = searched
    facts = json.loads((folder / "search.json").read_text())
    assert facts["reached"] and facts["wished"] == 0.999 and facts["metric"] == "cosine" and facts["samples"] == 2
    assert [island["module"] for island in facts["islands"]] == ["1"]
    overflow = facts["overflow_without_islands"]
    assert overflow.startswith("1/Mul") and overflow.endswith("FP16 ends at 65504") and overflow in printed
    rows = {row["what"]: row for row in facts["trade"]}
    assert float(rows["no islands"]["score"]) < 0.999 <= float(rows["found"]["score"])
    assert rows["no islands"]["relative_time_estimated"] == 1.0 < rows["found"]["relative_time_estimated"] < 2
    assert all(row["engine_ms"] is None for row in facts["trade"])
    assert "estimate" in printed and "no engine was timed" in printed
    assert {path.name for path in folder.iterdir()} == {"policy.json", "search.json"}


@pytest.mark.slow
def test_its_policy_is_taken(shop, searched):
    _, folder = searched
    policy = str(folder / "policy.json")
    done = shop.cat2dog("accuracy", *RECIPE, "--policy", policy, "--attention", "decomposed", "--no-blocks", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert [each["passed"] for each in facts["candidates"]] == [True] * 3
    done = shop.cat2dog("export", *RECIPE, "--policy", policy, "--json")
    exported = json.loads(done.stdout)
    assert Path(exported["onnx"]).name.startswith("overflowing_fp16_policy-") and exported["nodes"]["fp32"] > 0
    args = parse(["build", *RECIPE, "--policy", policy])
    assert f"--policy {policy}" in rebuild_command(args) and policy_of(args, "fp16").islands
    assert policy_of(args, "fp32") is None  # what islands are compared with has none
    with pytest.raises(InputError, match="is of fp16: give --precision fp16"):
        policy_of(args, "bf16")


@pytest.mark.slow
def test_nothing_is_enough(shop, searched):
    done = shop.cat2dog("accuracy", *RECIPE, "--search", "2", "--output", "never")
    assert done.returncode == 3 and "even with every module in FP32" in done.stderr
    assert {path.name for path in (shop.folder / "never").iterdir()} == {"search.json"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--precision", "fp32"), "FP32 has no islands to search for: give --precision fp16 or bf16"),
        (("--policy", "p.json"), "leave out --policy"),
    ],
)
def test_what_cannot_be_searched(words, message, capsys):
    assert main(["accuracy", "--model", "models/tiny-128", "--search", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_latency_is_that_of_the_bench(tmp_path):
    """The bench of engines in a process of the flavor's own Python; here a stand-in that answers as it does."""
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f"#!{sys.executable}\nimport json, sys\nassert sys.argv[1:4] == ['-m', 'bench.engine', '--engine']\n"
        "if 'bad' in sys.argv[4]:\n    sys.exit('Traceback\\nerror: the engine is of another GPU')\n"
        "rows = [{'ms': {'median': 1.25}}]\nopen(sys.argv[6], 'w').write(json.dumps({'engines': rows}))\n"
    )
    stand_in.chmod(0o755)
    assert accuracy_search.engine_ms(str(stand_in), tmp_path / "good.engine") == 1.25
    with pytest.raises(ToolchainError, match=r"bench of bad\.engine failed: error: the engine is of another GPU"):
        accuracy_search.engine_ms(str(stand_in), tmp_path / "bad.engine")


def test_on_a_gpu_each_policy_becomes_an_engine_that_is_timed(tmp_path, monkeypatch):
    """Stand-ins build and time; what the gate refuses is noted, and rows without a policy are left out."""
    flavor = Flavor("tensorrt", "10.14.0", "its-python", can_build=True, can_run=True)
    monkeypatch.setattr("runtime.gpu.find_gpus", lambda: [Gpu(0, "NVIDIA H100", "9.0", 80 << 30, "13.0")])
    monkeypatch.setattr("runtime.flavors.find_flavors", lambda: [flavor])
    monkeypatch.setattr("cli.compose.validation_of", lambda *given: None)
    asked = []

    @dataclass(frozen=True)
    class Request:
        policy: Policy
        validation: object = None

    def request_of(args, recipe, update):
        asked.append(args.policy.name)
        return Request(load_policy(args.policy))

    def build(request, update):
        if not request.policy.islands:
            raise AccuracyError("0/Mul (Mul) reaches 9e+04, and FP16 ends at 65504")
        return SimpleNamespace(path=Path(f"{len(request.policy.islands)}.engine"))

    monkeypatch.setattr("cli.compose.build_request", request_of)
    monkeypatch.setattr("engines.build.find", lambda request: None)
    monkeypatch.setattr("engines.build.build", build)
    monkeypatch.setattr(accuracy_search, "engine_ms", lambda python, path: {"its-python": 1.5}[python] + len(path.stem))
    two = Policy("fp16", (Island("why", module="a"), Island("why", module="b")))
    trade = [
        {"what": what, "policy": policy, "engine_ms": None}
        for what, policy in (("no islands", Policy("fp16")), ("with a", None), ("found", two))
    ]
    args = parse(["accuracy", "--model", "models/tiny-128", "--search"])
    notes = accuracy_search._time_engines(args, None, trade, tmp_path, lambda what, fraction: None)
    assert [row["engine_ms"] for row in trade] == [None, None, 2.5]
    assert notes == ["no islands: no engine was timed: 0/Mul (Mul) reaches 9e+04, and FP16 ends at 65504"]
    assert asked == ["policy_no-islands.json", "policy_found.json"]
