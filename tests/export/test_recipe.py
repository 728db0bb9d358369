"""Recipes by name, and the ready-made recipe around a module."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from torch import nn

from export.recipe import ModuleRecipe, Recipe, load_recipe, random_tensor
from runtime.errors import InputError
from runtime.runner import TensorSpec

X = TensorSpec("x", "float32", (-1, 4))


def small():
    """A factory, as a user writes it."""
    return ModuleRecipe("small", lambda: nn.Linear(4, 2), [X], [TensorSpec("y", "float32", (-1, 2))])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A module `user_models` in the current folder, which is not on the path."""
    (tmp_path / "user_models.py").write_text(
        "from tests.export.test_recipe import small\n"
        "number = 3\n"
        "class Half:\n    name = 'half'\n"
        "def badly_named():\n    recipe = small()\n    recipe.name = '../x'\n    return recipe\n"
    )
    (tmp_path / "needs_more.py").write_text("import surely_not_installed\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("user_models", "needs_more"):
        sys.modules.pop(name, None)


def test_a_factory_of_the_current_folder(package):
    recipe = load_recipe("user_models:small")
    assert isinstance(recipe, Recipe) and recipe.name == "small"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("user_models", r"^recipe 'user_models' is not of the form package\.module:factory, for example "),
        (":small", r"^recipe ':small' is not of the form package\.module:factory"),
        ("nowhere.at_all:f", r"^recipe 'nowhere\.at_all:f': there is no module 'nowhere\.at_all' here or installed$"),
        (
            "needs_more:f",
            r"^recipe 'needs_more:f' imports 'surely_not_installed', which is not installed: pip install it$",
        ),
        (
            "user_models:smal",
            r"^recipe 'user_models:smal': 'user_models' has no factory 'smal'; it has: small, Half, badly_named$",
        ),
        ("user_models:number", r"^recipe 'user_models:number': 'user_models' has no factory 'number'; it has: "),
        ("user_models:Half", r"^recipe 'user_models:Half' returned a Half that lacks inputs, outputs, judge, module, "),
        (
            "user_models:badly_named",
            r"^recipe 'user_models:badly_named' is named '\.\./x'; a name is letters, digits, ",
        ),
    ],
)
def test_what_is_no_recipe_is_one_line(package, target, message):
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(target)
    assert "\n" not in str(caught.value)


def test_a_module_recipe_is_the_same_each_time():
    first, second = small(), small()
    assert first.identity() == second.identity()
    feed = first.validation()
    assert np.array_equal(feed["x"], second.validation()["x"]) and feed["x"].shape == (4, 4)
    assert np.array_equal(first.reference(feed)["y"], second.reference(feed)["y"])
    assert len(first.validation(2)["x"]) == 2 and first.flops() == 2 * 4 * 2


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float32", "float16"])
def test_random_tensors_are_of_their_spec(dtype):
    tensor = random_tensor(TensorSpec("t", dtype, (-1, 3)), 5, np.random.default_rng(0))
    assert tensor.shape == (5, 3) and tensor.dtype == np.dtype(dtype)


def test_threads_that_ask_at_once_get_one_module():
    for _ in range(10):  # a race: without the lock about one in eight goes wrong
        layers = [TensorSpec("x", "float32", (-1, 64))], [TensorSpec("y", "float32", (-1, 64))]
        recipe = ModuleRecipe("n", lambda: nn.Sequential(*(nn.Linear(64, 64) for _ in range(20))), *layers)
        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(lambda _, r=recipe: r.identity()["weights_sha256"], range(4)))) == 1
