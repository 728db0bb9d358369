"""A policy as a file: read back as it was written, anything else refused in one line; `#` in a module's path."""

from __future__ import annotations

import json

import pytest

from export.policy import POLICIES, Island, Policy
from export.policy_file import load_policy, policy_digest, save_policy
from runtime.errors import InputError


@pytest.mark.parametrize("policy", [*POLICIES.values(), Policy("bf16", (Island("why", module="a.#", residual=True),))])
def test_saved_and_loaded(policy, tmp_path):
    save_policy(tmp_path / "p.json", policy, {"measured": "45 dB"})
    assert load_policy(tmp_path / "p.json") == policy
    said = json.loads((tmp_path / "p.json").read_text())
    assert said["measured"] == "45 dB" and all("kind" not in i or i["kind"] != "*" for i in said["islands"])


GOOD = {"precision": "fp16", "islands": [{"why": "w", "module": "a"}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "is not of the form"),
        ('{"precision": "fp16"}', "is not of the form"),
        ({**GOOD, "precision": "fp8"}, "precision 'fp8' is not one of"),
        ({**GOOD, "islands": ["a"]}, "island 'a' has no 'why'"),
        ({**GOOD, "islands": [{"why": "w", "modul": "a"}]}, "has a field 'modul'; expected why, module, op"),
        ({**GOOD, "islands": [{"why": "w", "module": 3}]}, "'module' is 3, expected a str"),
        ({**GOOD, "islands": [{"why": "w", "residual": "yes"}]}, "'residual' is 'yes', expected a bool"),
        ({**GOOD, "islands": [{"why": "w"}]}, "names no module, op, kind or residual"),
    ],
)
def test_anything_else_is_refused(content, message, tmp_path):
    path = tmp_path / "p.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError) as caught:
        load_policy(path)
    assert str(path) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_says_what_writes_one(tmp_path):
    with pytest.raises(InputError, match=r"No such file or directory.*accuracy --search"):
        load_policy(tmp_path / "none.json")


def test_a_number_sign_stands_for_a_number():
    island = Island("why", module="net.blocks.#")
    assert island.holds("net.blocks.3", "Add", "Block", True) and island.holds("net.blocks.12", "Add", "Block", True)
    for other in ("net.blocks.3.norm", "net.blocks.", "net.blocks.a", "net.blocks.3a", "xnet.blocks.3", "net.blocks.#"):
        assert not island.holds(other, "Add", "Block", True)
    assert Island("why", module="*.#.mlp.*").holds("net.7.mlp.up", "MatMul", "Linear", False)


def test_the_digest_is_of_what_is_picked():
    a, b = Island("one reason", module="a"), Island("another", module="a")
    assert policy_digest(Policy("fp16", (a,))) == policy_digest(Policy("fp16", (b,)))
    others = [Policy("bf16", (a,)), Policy("fp16"), Policy("fp16", (Island("w", op="a"),)), Policy("fp16", (a, b))]
    assert len({policy_digest(policy) for policy in [Policy("fp16", (a,)), *others[:3]]}) == 4
