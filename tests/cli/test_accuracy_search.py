"""`cat2dog accuracy --search`, and what takes the policy it writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli import accuracy_search
from cli.compose import rebuild_command
from cli.main import parse
from runtime.errors import ToolchainError

pytestmark = pytest.mark.xdist_group("shop")

# Eight channels, of which the squares of one do not fit FP16; a norm that does not call itself one.
MODELS = '''
import torch
from torch import nn

from export.recipe import ModuleRecipe
from runtime.runner import TensorSpec


class Scale(nn.Module):
    def forward(self, x):
        x = 3000 * x
        return x / (x * x).mean((1, 2, 3), keepdim=True).sqrt()


def overflowing():
    def build():
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Scale(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    return ModuleRecipe("overflowing", build, [TensorSpec("image", "float32", (-1, 3, 16, 16))],
                        [TensorSpec("means", "float32", (-1, 8))], samples=2)
'''  # fmt: skip
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
    done = shop.cat2dog("export", *RECIPE, "--policy", policy, "--precision", "bf16")
    assert done.returncode == 2 and "is of fp16: give --precision fp16" in done.stderr
    words = ("build", *RECIPE, "--policy", policy)
    assert f"--policy {policy}" in rebuild_command(parse(list(words)))


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
def test_what_cannot_be_searched(shop, words, message):
    done = shop.cat2dog("accuracy", "--model", "models/tiny-128", "--search", *words)
    assert done.returncode == 2 and message in done.stderr


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
