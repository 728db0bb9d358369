import json
import os
import pickle
import re
import struct
import subprocess
import sys
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from cat2dog import tensors as safetensors_tensors
from cat2dog.checkpoint import load, save
from cat2dog.config import NAMED, Config
from cat2dog.fingerprint import fingerprint
from cat2dog.model import Cat2Dog
from runtime.errors import InputError, ToolchainError

SMALL = Config(resolution=32, patch=8, width=48, depth=2, heads=3)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save(tmp_path / "small", SMALL, Cat2Dog(SMALL))
    return tmp_path / "small"


def one_line(folder):
    with pytest.raises(InputError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_header(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(start, end, dtype="F32", shape=None):
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


def test_what_is_saved_is_loaded(folder):
    torch.manual_seed(0)
    original = Cat2Dog(SMALL).eval()
    loaded = load(folder)
    image = torch.randn(2, 3, 32, 32)
    assert not loaded.training
    assert torch.equal(loaded(image), original(image))
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    assert os.listdir(folder.parent) == ["small"]
    library = safetensors.torch.load_file(folder / "model.safetensors")
    assert all(torch.equal(library[name], value) for name, value in original.named_parameters())


def test_weights_of_other_writers_and_precisions_load(folder):
    weights = {name: value.half() for name, value in reversed(load(folder).state_dict().items())}
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    model = load(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.embed.weight, weights["embed.weight"].float())


def test_loading_maps_and_does_not_copy(tmp_path):
    config = replace(NAMED["500m-256"], depth=4)  # 330 MB
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in Cat2Dog(config).named_parameters()}
    save(tmp_path / "big", config, ((name, torch.ones(shape)) for name, shape in shapes.items()))
    code = """if True:
        import resource, sys
        from cat2dog.checkpoint import load
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        model = load(sys.argv[1])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "big"], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 100_000  # KiB
    assert (tmp_path / "big" / "model.safetensors").stat().st_size > 300_000_000


def test_a_missing_folder_names_the_nearest(folder, tmp_path):
    assert one_line(tmp_path / "smal") == (
        f"no checkpoint {tmp_path}/smal; the nearest is {tmp_path}/small, which is there"
    )
    assert one_line(tmp_path / "500-256") == (
        f"no checkpoint {tmp_path}/500-256; the nearest is {tmp_path}/500m-256, "
        f"made by: cat2dog init --model {tmp_path}/500m-256"
    )
    assert one_line(tmp_path / "none" / "tiny-129").startswith(
        f"no checkpoint {tmp_path}/none/tiny-129; the nearest is"
    )
    assert one_line(folder / "config.json").endswith(
        "is a file; expected a checkpoint folder with config.json and model.safetensors"
    )


def test_missing_parts_are_named(folder):
    os.rename(folder / "model.safetensors", folder / "elsewhere")
    assert one_line(folder) == (
        f"{folder} has no model.safetensors; expected a checkpoint folder with config.json and model.safetensors"
    )
    os.rename(folder / "elsewhere", folder / "model.safetensors")
    os.remove(folder / "config.json")
    assert one_line(folder).startswith(f"{folder} has no config.json;")


def test_empty_short_and_long_files_are_refused(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    (header,) = struct.unpack("<Q", whole[:8])
    for cut, message in [
        (b"", f"{path} is empty; expected safetensors weights: copy or make it again"),
        (whole[:5], f"{path} has 5 bytes, too few for safetensors: copy or make it again"),
        (whole[:100], f"{path} is truncated: it has 100 bytes, its header alone needs {8 + header}"),
        (
            whole[:-1],
            f"{path} is truncated: it has {len(whole) - 1} bytes, "
            f"its header promises {len(whole)}; copy or make it again",
        ),
        (whole + b"x", f"{path} is damaged: it has {len(whole) + 1} bytes, its header promises {len(whole)}"),
    ]:
        path.write_bytes(cut)
        assert one_line(folder) == message


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_dressed_as_weights_is_not_opened(folder, protocol):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(folder / "sprung"),)

    path = folder / "model.safetensors"
    path.write_bytes(pickle.dumps(Trap(), protocol=protocol))
    assert one_line(folder) == f"{path} is a pickle, not safetensors; import it with: cat2dog convert"
    assert not (folder / "sprung").exists()


def test_a_zip_dressed_as_weights_is_named(folder):
    path = folder / "model.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    assert one_line(folder) == (
        f"{path} is a zip archive (as torch.save writes), not safetensors; import it with: cat2dog convert"
    )


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"{", b"", "is not safetensors: its header is not JSON"),
        (b"[" * 100_000, b"", "is not safetensors: its header is not JSON"),
        (b"[]", b"", "is not safetensors: its header is not a JSON object"),
        ({"a": 1}, b"", "is not safetensors: the entry of tensor 'a' is malformed"),
        ({"a": entry(0, 4, shape=[-1])}, bytes(4), "is not safetensors: the entry of tensor 'a' is malformed"),
        ({"a": entry(0, 4, shape=[1 << 62, 4])}, bytes(4), "is not safetensors: the entry of tensor 'a' is malformed"),
        ({"a": entry(0, 4, shape=[True])}, bytes(4), "is not safetensors: the entry of tensor 'a' is malformed"),
        ({"a": entry(0, 4, "F31")}, bytes(4), "tensor 'a' is 'F31'; expected one of F64, F32"),
        ({"a": entry(0, 8, shape=[1])}, bytes(8), "tensor 'a' is F32 [1] but has 8 bytes: the file is damaged"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12), "is damaged: tensor 'b' overlaps the one before it"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12), "is damaged: tensor 'b' leaves a gap before it"),
        ({"a": entry(0, 1 << 40)}, bytes(4), "is truncated: it has"),
    ],
)
def test_unsound_headers_are_refused_before_memory_is_touched(folder, header, data, message):
    with_header(folder / "model.safetensors", header, data)
    assert message in one_line(folder)


def test_a_header_longer_than_memory_is_refused(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    assert f"is not safetensors: its header would be {1 << 60} bytes long" in one_line(folder)


def test_a_mismatch_names_path_shape_and_type(folder):
    weights = load(folder).state_dict()
    weights["head.extra"] = weights.pop("head.bias")
    weights["embed.weight"] = torch.zeros(48, 191)
    weights["norm.bias"] = torch.zeros(48, dtype=torch.int64)
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    assert one_line(folder) == (
        f"{folder}/model.safetensors does not fit config.json: missing head.bias [192]; extra head.extra; "
        "embed.weight is F32 [48, 191], expected F32 [48, 192]; norm.bias is I64 [48], expected F32 [48]"
    )
    (folder / "config.json").write_text(replace(SMALL, width=96).to_json())
    assert re.search(r"; and \d+ more$", one_line(folder))


def test_an_existing_folder_is_replaced_only_when_allowed(folder):
    other = replace(SMALL, depth=1)
    with pytest.raises(InputError, match="small exists already; remove it, or replace it with --overwrite"):
        save(folder, other, Cat2Dog(other))
    save(folder, other, Cat2Dog(other), overwrite=True)
    assert load(folder).config == other
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="exists and is not a checkpoint, so it is not overwritten"):
        save(folder, other, Cat2Dog(other), overwrite=True)
    assert os.listdir(folder.parent) == ["small"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read_it(tmp_path, umask):
    before = os.umask(umask)
    try:
        save(tmp_path / "small", SMALL, Cat2Dog(SMALL))
    finally:
        os.umask(before)
    paths = [tmp_path / "small", *(tmp_path / "small").iterdir()]
    assert len(paths) == 3
    for path in paths:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask


def test_what_fails_halfway_leaves_nothing(folder):
    def interrupted():
        yield "embed.weight", torch.zeros(48, 192)
        raise KeyboardInterrupt

    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        save(folder, SMALL, interrupted(), overwrite=True)
    with pytest.raises(ValueError, match="never came"):
        save(folder.parent / "new", SMALL, [("embed.weight", torch.zeros(48, 192))])
    with pytest.raises(ValueError, match=r"unexpected tensor embed.weight \(1,\)"):
        save(folder.parent / "new", SMALL, [("embed.weight", torch.zeros(1))])
    assert os.listdir(folder.parent) == ["small"]
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors_tensors.os, "posix_fallocate", full)
    with pytest.raises(
        ToolchainError, match=r"cannot write model.safetensors: No space left on device; free some"
    ) as caught:
        save(tmp_path / "small", SMALL, Cat2Dog(SMALL))
    assert caught.value.exit_code == 1
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot make .*; choose a place that can be written"):
        save(tmp_path / "file" / "small", SMALL, Cat2Dog(SMALL))


def test_the_fingerprint_changes_with_config_and_weights(folder, tmp_path):
    memo = tmp_path / "hashes.json"
    first = fingerprint(folder, memo)
    assert set(first) == {"config", "weights"}
    assert fingerprint(folder, memo) == first
    save(folder, SMALL, Cat2Dog(SMALL), overwrite=True)
    second = fingerprint(folder, memo)
    assert second["config"] == first["config"]
    assert second["weights"] != first["weights"]
    with pytest.raises(InputError, match=r"no checkpoint .*smal; the nearest is .*small, which is there"):
        fingerprint(tmp_path / "smal", memo)
