"""The source of a recipe whose FP16 overflows, for tests that write it into a module of their own.

That module has imported nn, ModuleRecipe and TensorSpec before.
"""

from __future__ import annotations

OVERFLOWING = '''
class Scale(nn.Module):
    """Divides by the root of the mean square of large numbers, without calling itself a norm."""

    def forward(self, x):
        x = 3000 * x
        return x / (x * x).mean((1, 2, 3), keepdim=True).sqrt()


def overflowing():
    def build():
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Scale(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    return ModuleRecipe("overflowing", build, [TensorSpec("image", "float32", (-1, 3, 16, 16))],
                        [TensorSpec("means", "float32", (-1, 8))], samples=2)
'''  # fmt: skip
