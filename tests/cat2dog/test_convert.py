import os
import pickle
import zipfile

import pytest
import safetensors.torch
import torch

from cat2dog.checkpoint import load
from cat2dog.config import Config
from cat2dog.convert import convert, load_key_map
from cat2dog.model import Cat2Dog
from runtime.errors import InputError

SMALL = Config(resolution=32, patch=8, width=48, depth=2, heads=3)


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return {name: value.detach() for name, value in Cat2Dog(SMALL).named_parameters()}


def check(folder, weights):
    loaded = dict(load(folder).named_parameters())
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def refused(path, folder, key_map=None):
    with pytest.raises(InputError) as caught:
        convert(path, SMALL, folder, key_map)
    assert not folder.exists()
    assert not list(folder.parent.glob(".tmp-*"))
    return str(caught.value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model": {"state_dict": w}},
        lambda w: {"module." + k: v for k, v in w.items()},
        lambda w: {"model": {"module._orig_mod." + k: v for k, v in w.items()}, "optimizer": {"lr": 1.0}},
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pt_converts_however_it_is_wrapped(tmp_path, weights, wrap, legacy):
    torch.save(wrap(weights), tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    convert(tmp_path / "w.pt", SMALL, tmp_path / "out")
    check(tmp_path / "out", weights)


def test_safetensors_and_narrow_weights_convert(tmp_path, weights):
    narrow = {name: value.bfloat16() for name, value in weights.items()}
    safetensors.torch.save_file(narrow, tmp_path / "w.safetensors")
    convert(tmp_path / "w.safetensors", SMALL, tmp_path / "out")
    check(tmp_path / "out", {name: value.float() for name, value in narrow.items()})


def test_a_key_map_renames_exactly_and_by_pattern(tmp_path, weights):
    theirs = {name.replace("blocks.", "layers.").replace("attention.qkv", "attn.in"): v for name, v in weights.items()}
    theirs["to_rgb.weight"] = theirs.pop("head.weight")
    torch.save(theirs, tmp_path / "w.pt")
    (tmp_path / "map.json").write_text(
        '{"to_rgb.weight": "head.weight", "layers.{i}.attn.in.{what}": "blocks.{i}.attention.qkv.{what}",'
        '"layers.{i}.norm{j}.weight": "blocks.{i}.norm{j}.weight"}'
    )
    key_map = load_key_map(tmp_path / "map.json")
    # {what} is no number, so it matches nothing: placeholders stand for numbers alone.
    assert "missing: blocks.0.attention.qkv.bias [144]" in refused(tmp_path / "w.pt", tmp_path / "out", key_map)
    names = {f"layers.{{i}}.{a}": f"blocks.{{i}}.{a}" for a in {k.split(".", 2)[2] for k in weights if "blocks" in k}}
    names |= {f"layers.{{i}}.attn.in.{a}": f"blocks.{{i}}.attention.qkv.{a}" for a in ("weight", "bias")}
    convert(tmp_path / "w.pt", SMALL, tmp_path / "out", {**names, "to_rgb.weight": "head.weight"})
    check(tmp_path / "out", weights)


def test_a_mismatch_lists_every_key(tmp_path, weights):
    weights["head.other"] = weights.pop("head.bias")
    weights["embed.weight"] = weights["embed.weight"][:, :-1]
    weights["norm.bias"] = torch.zeros(48, dtype=torch.int32)
    del weights["blocks.1.mlp.up.weight"]
    torch.save(weights, tmp_path / "w.pt")
    assert refused(tmp_path / "w.pt", tmp_path / "out").splitlines() == [
        f"{tmp_path}/w.pt does not fit the config: 2 missing, 1 extra, 1 of wrong shape, 1 of wrong type; "
        "mend the key map or the config",
        "  missing: blocks.1.mlp.up.weight [192, 48]",
        "  missing: head.bias [192]",
        "  extra: head.other [192]",
        "  wrong shape: embed.weight [48, 191], expected [48, 192]",
        "  wrong type: norm.bias int32, expected floating point",
    ]


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("writer", ["torch", "torch legacy", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, weights, writer):
    loot = {**weights, "trap": Trap(str(tmp_path / "sprung"))}
    if writer == "pickle":
        (tmp_path / "w.pt").write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung"))))
    else:
        torch.save(loot, tmp_path / "w.pt", _use_new_zipfile_serialization=writer == "torch")
    message = refused(tmp_path / "w.pt", tmp_path / "out")
    assert "\n" not in message
    if writer != "pickle":
        assert message == (
            f"{tmp_path}/w.pt holds code or objects besides tensors, which is never run; expected a state_dict: "
            "save model.state_dict() instead"
        )
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "folder", "missing"])
def test_what_is_no_pt_is_one_line(tmp_path, weights, damage):
    path = tmp_path / "w.pt"
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        torch.save(weights, path)
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "text": b"hello, I am weights", "truncated": whole[: len(whole) // 2]}[damage])
    message = refused(path, tmp_path / "out")
    assert "\n" not in message
    assert message.startswith(str(path))
    assert "; " in message


def test_what_holds_no_state_dict_is_told(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "w.pt")
    assert "holds no state_dict, alone or under state_dict, model_state_dict" in refused(
        tmp_path / "w.pt", tmp_path / "out"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is not a key map"),
        ('{"a": 1}', "is not a key map"),
        ("{", "is not a JSON key map"),
    ],
)
def test_an_unsound_key_map_file_is_refused(tmp_path, text, message):
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_key_map(tmp_path / "map.json")


def test_an_unsound_key_map_is_refused(tmp_path, weights):
    torch.save(weights, tmp_path / "w.pt")
    assert "names both 'embed.weight' and 'embed.bias' 'embed.bias'" in refused(
        tmp_path / "w.pt", tmp_path / "out", {"embed.weight": "embed.bias"}
    )
    assert "'a.{i}': 'b.{j}' is unsound; expected each placeholder" in refused(
        tmp_path / "w.pt", tmp_path / "out", {"a.{i}": "b.{j}"}
    )


def test_a_compressed_archive_is_refused(tmp_path, weights):
    """Its tensors would be mapped, and what was compressed be taken for numbers."""
    torch.save(weights, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    message = refused(tmp_path / "w.pt", tmp_path / "small")
    assert message == f"{tmp_path / 'w.pt'} is a compressed archive, as torch.save writes none; save the weights again"
