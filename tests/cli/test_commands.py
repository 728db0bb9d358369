"""The other subcommands, as a user meets them."""

from __future__ import annotations

import json

import pytest

from cli.main import SUBCOMMANDS

pytestmark = pytest.mark.xdist_group("shop")


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_has_an_example(shop, name):
    done = shop.cat2dog(name, "--help")
    assert done.returncode == 0
    assert f"example: cat2dog {name}" in " ".join(done.stdout.split())


def test_export_twice_writes_once(shop, exported):
    stamp = exported.stat().st_mtime_ns
    done = shop.cat2dog("export", "--model", "models/tiny-128", "--json")
    assert done.returncode == 0, done.stderr
    assert exported.stat().st_mtime_ns == stamp
    facts = json.loads(done.stdout)
    assert facts["attention_nodes"] == 7 and facts["weights_bytes"] > 6_000_000


def test_convert_brings_a_checkpoint_back(shop):
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(shop.folder / "models/tiny-128/model.safetensors")
    torch.save({"state_dict": {f"module.net.{name}": tensor for name, tensor in weights.items()}}, shop.folder / "t.pt")
    names = {f"net.{name}": name for name in weights}
    (shop.folder / "map.json").write_text(json.dumps(names))
    config = shop.folder / "models/tiny-128/config.json"
    words = ("--weights", "t.pt", "--key-map", "map.json", "--config", config, "--model", "models/back")
    done = shop.cat2dog("convert", *words)
    assert done.returncode == 0, done.stderr
    back = load_file(shop.folder / "models/back/model.safetensors")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)

    save_file({"embed.weight": torch.zeros(3, 3), "stranger": torch.zeros(1)}, shop.folder / "wrong.safetensors")
    done = shop.cat2dog("convert", "--weights", "wrong.safetensors", "--config", config, "--model", "models/wrong")
    assert done.returncode == 2
    for said in ("stranger", "head.weight", "embed.weight", "blocks.6.mlp.down.bias"):
        assert said in done.stderr
    assert not (shop.folder / "models/wrong").exists()


def test_doctor(shop):
    done = shop.cat2dog("doctor", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    works = {step["what"]: step["works"] for step in facts["steps"]}
    assert works["run in ONNX Runtime"] and works["init, convert, export, FP32 reference"]
    assert {flavor["name"] for flavor in facts["flavors"]} == {"tensorrt", "tensorrt_rtx"}
    assert all(step["works"] or step["how"] for step in facts["steps"])


def test_init_is_seeded(shop):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        config = shop.folder / "models/tiny-128/config.json"
        done = shop.cat2dog("init", "--model", f"seeds/{name}", "--config", config, "--seed", seed)
        assert done.returncode == 0, done.stderr
    a, b, c = ((shop.folder / "seeds" / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c
