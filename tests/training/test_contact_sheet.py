"""The sheet of pairs and its command."""

import numpy as np
import pytest

from runtime.errors import InputError
from training.contact_sheet import grid, main, seeds_of
from training.draw import pair


def test_the_command_writes_the_pairs_side_by_side(tmp_path, capsys):
    from PIL import Image

    path = tmp_path / "sheet.png"
    assert main(["--seeds", "3:6", "--size", "32", "--columns", "2", "--out", str(path)]) == 0
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (2 * 36 + 4, 4 * 36 + 4, 3)
    cat, dog = pair(3, 32)
    assert (sheet[4:36, 4:36] == cat).all() and (sheet[4:36, 40:72] == dog).all()
    assert capsys.readouterr().out == f"{path}: 3 pairs\n"


def test_seeds():
    assert seeds_of("0:24") == range(24) and seeds_of("7") == range(7, 8)
    with pytest.raises(InputError, match=r"^seeds 'a:3' cannot be read: expected FIRST:END such as 0:24$"):
        seeds_of("a:3")
    with pytest.raises(InputError, match=r"^seeds '5:5' are 0 pictures: expected 1 to 400, such as 0:24$"):
        seeds_of("5:5")


def test_a_size_that_cannot_be_drawn_is_one_line_and_exit_code_2(tmp_path, capsys):
    path = tmp_path / "sheet.png"
    assert main(["--seeds", "0:1", "--size", "7", "--out", str(path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: size 7 cannot be drawn: expected an even number") and message.count("\n") == 1
    assert not path.exists()


def test_a_short_last_row_is_filled_with_white():
    black = np.zeros((8, 8, 3), dtype=np.uint8)
    sheet = grid([[black, black], [black]])
    assert (sheet[16:24, 16:24] == 255).all() and (sheet[16:24, 4:12] == 0).all()
