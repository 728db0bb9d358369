import torch

from cat2dog.pixels import denormalise, normalise


def test_every_grey_level_comes_back():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    floats = normalise(levels)
    assert floats.shape == (1, 3, 16, 16)
    assert floats.min() == -1
    assert floats.max() == 1
    assert torch.equal(denormalise(floats), levels)
    assert torch.equal(denormalise(normalise(levels, torch.float16)), levels)


def test_halves_round_to_even_and_the_rest_is_clamped():
    levels = torch.arange(255) + 0.5
    floats = levels / 127.5 - 1
    floats = floats[(floats + 1) * 127.5 == levels]  # those that FP32 brings back to exactly a half
    even = [2 * round(level / 2) for level in ((floats + 1) * 127.5).tolist()]
    assert len({level % 4 for level in even}) == 2
    row = torch.cat([floats, torch.tensor([-2.0, 7.0])])
    pixels = denormalise(row.expand(1, 3, len(row), len(row)))
    assert pixels[0, 0, :, 0].tolist() == [*even, 0, 255]
