"""A folder with a checkpoint, and the command run in it as a user would: another process, another working directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Shop:
    """A working folder with `models/tiny-128` and a `build` folder shared by the tests of this room."""

    def __init__(self, folder: Path):
        self.folder = folder

    def cat2dog(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `cat2dog ...` here; never on a terminal."""
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment(**environment), capture_output=True,
            text=True, stdin=subprocess.DEVNULL, timeout=280,
        )  # fmt: skip

    def command(self, *arguments: object) -> list[str]:
        """The words of the command."""
        return [sys.executable, "-m", "cli", *map(str, arguments)]

    def environment(self, **more: str) -> dict[str, str]:
        """This one's, with the rooms on the path and no GPU."""
        return {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", **more}

    def files(self) -> set[Path]:
        """Every file here but locks and the memo of hashes, which say nothing of results."""
        return {
            path.relative_to(self.folder)
            for path in self.folder.rglob("*")
            if path.is_file() and not path.name.endswith(".lock") and path.name != "hashes.json"
        }


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A working folder with a checkpoint, made by `cat2dog init` itself."""
    shop = Shop(tmp_path_factory.mktemp("shop"))
    (shop.folder / "images").symlink_to(ROOT / "images")
    done = shop.cat2dog("init", "--model", "models/tiny-128")
    assert done.returncode == 0, done.stderr
    return shop


@pytest.fixture(scope="session")
def exported(shop: Shop) -> Path:
    """The tiny checkpoint's FP16 ONNX."""
    done = shop.cat2dog("export", "--model", "models/tiny-128")
    assert done.returncode == 0, done.stderr
    return shop.folder / "build/onnx/tiny-128_fp16.onnx"
