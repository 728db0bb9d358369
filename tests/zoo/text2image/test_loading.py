"""Folders that are loaded, and those that would run what came with them: a poisoned file must not be read."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest

from runtime.errors import InputError
from tests.zoo.text2image import tiny
from zoo.text2image.caption import Captioner
from zoo.text2image.folder import components
from zoo.text2image.loading import open_pipeline, place

# One process imports diffusers.
pytestmark = pytest.mark.xdist_group("text2image")


class Poison:
    """Leaves a file where it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (open, (str(self.trace), "w"))


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(tiny.stable_diffusion(), tmp_path / "pipeline")


def poison(path, trace):
    path.write_bytes(pickle.dumps(Poison(trace)))
    pickle.loads(path.read_bytes())  # noqa: S301 (shows that it would work)
    assert trace.exists()
    trace.unlink()


def edit_index(folder, **values):
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_both_families_are_loaded_and_what_is_left_out_is_left_out():
    assert set(components(tiny.stable_diffusion())) == {"scheduler", "text_encoder", "tokenizer", "unet", "vae"}
    pipeline = open_pipeline(str(tiny.stable_diffusion_3()))
    assert pipeline.text_encoder_3 is None and type(pipeline).__name__ == "StableDiffusion3Pipeline"
    assert (pipeline.device.type, str(pipeline.dtype)) == (place("auto"), "torch.float32")
    assert not pipeline.transformer.training


def test_an_image_to_image_pipelines_folder_makes_pictures_of_texts_too(folder):
    edit_index(folder, _class_name="StableDiffusionImg2ImgPipeline")
    assert type(open_pipeline(str(folder))).__name__ == "StableDiffusionPipeline"


@pytest.mark.parametrize(
    ("component", "name"), [("unet", "diffusion_pytorch_model"), ("text_encoder", "pytorch_model")]
)
def test_pickled_weights_are_refused_unread(folder, tmp_path, component, name):
    for file in (folder / component).glob("*.safetensors"):
        file.unlink()
    poison(folder / component / f"{name}.bin", tmp_path / "trace")
    with pytest.raises(InputError, match=rf"{name}.bin is pickled, which can run code .*; expected safetensors"):
        open_pipeline(str(folder))
    assert not (tmp_path / "trace").exists()


def test_a_pickle_beside_safetensors_is_not_read(folder, tmp_path):
    for component, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "pytorch_model"), ("vae", "x")):
        poison(folder / component / f"{name}.bin", tmp_path / "trace")
    open_pipeline(str(folder))
    assert not (tmp_path / "trace").exists()


def test_safetensors_of_another_component_do_not_open_the_door_for_pickles(folder, tmp_path):
    # Named as safetensors, but of another file than is looked for: the library must not go on to the pickle.
    file = next((folder / "unet").glob("*.safetensors"))
    file.rename(file.with_name("other.safetensors"))
    poison(folder / "unet" / "diffusion_pytorch_model.bin", tmp_path / "trace")
    with pytest.raises(InputError, match="cannot be loaded"):
        open_pipeline(str(folder))
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"unet": ["evil", "Model"]}, "component 'unet' is a Model of 'evil', not of diffusers or transformers"),
        ({"unet": ["os.path", "join"]}, "not of diffusers or transformers"),
        ({"unet": ["../unet", "Model"]}, "not of diffusers or transformers"),
        ({"_class_name": ["evil", "Pipeline"]}, "names no pipeline of diffusers"),
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
        ({"../x": ["diffusers", "UNet2DConditionModel"]}, r"component '\.\./x'"),
        ({"unet": ["diffusers"]}, r"component 'unet' is \['diffusers'\]; expected \[library, class\]"),
        ({"unet": ["diffusers", "NoSuchModel"]}, "cannot be loaded"),
    ],
)
def test_classes_of_others_are_refused(folder, tmp_path, values, says):
    code = f"open({str(tmp_path / 'trace')!r}, 'w')"
    for name in ("evil.py", "unet/evil.py", "pipeline.py"):
        (folder / name).write_text(code)
    edit_index(folder, **values)
    with pytest.raises(InputError, match=says):
        open_pipeline(str(folder))
    assert not (tmp_path / "trace").exists()


def test_damaged_folders_are_refused_in_one_line(folder, tmp_path):
    def says(text):
        with pytest.raises(InputError, match=text) as refused:
            open_pipeline(str(folder))
        assert "\n" not in str(refused.value)

    weights = next((folder / "unet").glob("*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    says("cannot be loaded")
    weights.write_bytes(whole)
    shutil.move(folder / "vae", tmp_path / "vae")
    says("vae is missing; expected the folder of that component")
    (folder / "model_index.json").write_text("{")
    says("model_index.json cannot be read")
    (folder / "model_index.json").write_text("[" * 100_000)
    says("model_index.json cannot be read")
    (folder / "model_index.json").write_text(" " * (2 << 20))
    says("names no pipeline")
    (folder / "model_index.json").unlink()
    says("is no diffusers pipeline: it has no model_index.json")


def test_names_on_the_hub_are_not_downloaded_unless_asked(tmp_path, monkeypatch):
    import socket

    def no_network(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(InputError, match=r"owner/no-such-model.*not in the local cache.*--allow-download"):
        open_pipeline("owner/no-such-model")
    for source in ("", "no-such-folder", "a/b/c", str(tmp_path / "none")):
        with pytest.raises(InputError, match="is no folder; expected a diffusers pipeline's folder, or OWNER/NAME"):
            open_pipeline(source)


def test_devices_and_types_that_are_not_there():
    import torch

    with pytest.raises(InputError, match="device 'tpu' is not one of auto, cpu, cuda"):
        open_pipeline(str(tiny.stable_diffusion()), "tpu")
    with pytest.raises(InputError, match="dtype 'int3' is not one of"):
        open_pipeline(str(tiny.stable_diffusion()), "cpu", "int3")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="finds no CUDA GPU here; give --device cpu"):
            open_pipeline(str(tiny.stable_diffusion()), "cuda")


def test_a_pickled_captioner_is_refused_unread(tmp_path):
    folder = shutil.copytree(tiny.captioner(), tmp_path / "captioner")
    (folder / "model.safetensors").unlink()
    poison(folder / "pytorch_model.bin", tmp_path / "trace")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is pickled"):
        Captioner(folder, "cpu")
    assert not (tmp_path / "trace").exists()
