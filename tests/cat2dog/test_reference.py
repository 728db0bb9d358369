import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cat2dog import exact
from cat2dog.checkpoint import load, save
from cat2dog.config import Config
from cat2dog.initialise import random_weights
from cat2dog.pixels import denormalise, normalise
from cat2dog.reference import reference
from runtime.errors import InputError

SMALL = Config(resolution=32, patch=8, width=48, depth=2, heads=3)


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "small", SMALL, random_weights(SMALL, 0))
    return tmp_path / "small"


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def counting():
    calls = []
    return calls, lambda done, total: calls.append((done, total))


@pytest.mark.parametrize("scores", [1, 40, 1 << 26])
def test_plain_attention_in_blocks_is_attention(monkeypatch, scores):
    monkeypatch.setattr(exact, "_MAX_SCORES", scores)
    q, k, v = torch.randn(3, 2, 3, 17, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    torch.testing.assert_close(exact.plain_attention(q, k, v), F.scaled_dot_product_attention(q, k, v))


def test_the_reference_is_the_network(folder, images):
    outputs = reference(folder, images, None)
    with torch.no_grad():
        wanted = denormalise(load(folder)(normalise(torch.from_numpy(images)))).numpy()
    difference = np.abs(outputs.astype(int) - wanted)
    assert outputs.dtype == np.uint8
    assert difference.max() <= 1  # sums in another order may cross a half
    assert (difference > 0).mean() < 1e-3
    assert outputs.std() > 40


def test_outputs_are_cached_image_by_image(folder, images, tmp_path):
    calls, progress = counting()
    first = reference(folder, images[:2], tmp_path / "cache", progress)
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 2
    calls, progress = counting()
    again = reference(folder, images, tmp_path / "cache", progress)
    assert calls == [(1, 2), (2, 2)]  # the third alone
    assert np.array_equal(again[:2], first)


def test_other_weights_have_other_entries(folder, images, tmp_path):
    first = reference(folder, images[:1], tmp_path / "cache")
    save(folder, SMALL, random_weights(SMALL, 1), overwrite=True)
    assert not np.array_equal(reference(folder, images[:1], tmp_path / "cache"), first)


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "other shape", "pickled"])
def test_a_damaged_entry_is_computed_again(folder, images, tmp_path, damage):
    first = reference(folder, images[:1], tmp_path / "cache")
    (entry,) = (tmp_path / "cache").glob("*.npz")
    whole = entry.read_bytes()
    if damage == "other shape":
        np.savez(entry, dog=np.zeros(3, np.uint8), sha256=np.zeros(32, np.uint8))
    elif damage == "pickled":
        np.savez(entry, dog=np.array([{}], dtype=object), sha256=np.zeros(32, np.uint8))
    elif damage == "flipped":
        with np.load(entry) as loaded:
            np.savez(entry, dog=loaded["dog"] ^ 1, sha256=loaded["sha256"])
    else:
        entry.write_bytes(whole[: 0 if damage == "empty" else len(whole) // 2])
    calls, progress = counting()
    assert np.array_equal(reference(folder, images[:1], tmp_path / "cache", progress), first)
    assert calls
    calls, progress = counting()
    reference(folder, images[:1], tmp_path / "cache", progress)
    assert not calls


def test_the_cache_is_read_without_torch(folder, images, tmp_path):
    reference(folder, images, tmp_path / "cache")
    np.save(tmp_path / "images.npy", images)
    code = """if True:
        import sys
        import numpy as np
        from cat2dog.reference import reference
        reference(sys.argv[1], np.load(sys.argv[2]), sys.argv[3])
        sys.exit('torch' in sys.modules)
    """
    arguments = [sys.executable, "-c", code, folder, tmp_path / "images.npy", tmp_path / "cache"]
    assert subprocess.run(arguments, check=False).returncode == 0


def test_images_that_do_not_fit_are_refused(folder, images):
    with pytest.raises(InputError) as caught:
        reference(folder, images[:, :16], None)
    assert str(caught.value) == (f"images are uint8 [3, 16, 32, 3]; {folder} takes uint8 [B, 32, 32, 3]: resize them")
    with pytest.raises(InputError, match=r"images are float32 "):
        reference(folder, images.astype(np.float32), None)


def test_no_images_give_no_outputs(folder, images, tmp_path):
    assert reference(folder, images[:0], tmp_path / "cache").shape == (0, 32, 32, 3)


def test_a_damaged_config_is_told_before_anything_else(folder, images):
    text = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**text, "heads": 5}))
    with pytest.raises(InputError, match="heads 5 does not divide width 48"):
        reference(folder, images, None)


def test_a_missing_checkpoint_names_the_nearest(folder, images):
    with pytest.raises(InputError, match=r"no checkpoint .*smal; the nearest is .*small, which is there"):
        reference(folder.with_name("smal"), images, None)
