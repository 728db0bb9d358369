"""Manifests of every sound kind, what Python signs of them, and whether C++ signs the same."""

from __future__ import annotations

import math
import random
import struct

from runtime.manifest import (
    ATTENTION_FORMS,
    GATE_STATES,
    LINEAR_FORMS,
    PRECISIONS,
    TENSOR_MODES,
    AttentionChoice,
    Build,
    EngineKey,
    EngineTensor,
    Gate,
    LinearChoice,
    Manifest,
    parse_manifest,
)
from runtime.signing import signed_text

TEXTS = [
    "",
    "a",
    'q"\\/',
    "Katze ä ü",
    "猫と犬",
    "🐱🐶",
    "\u2028\ufeff",
    "z",
    "é",
    "e\u0301",
    "\uffff",
    "\U0010ffff",
    "\xa0",
    "~",
]
NUMBERS = [
    0.0, -0.0, 1.0, 0.1, 1e-05, 0.0001, 0.00012345, 1e15, 1e16, 123456789012345680.0, 9007199254740993.0, 1e22, 1e23,
    5e-324, 2.2250738585072014e-308, 9.99e299, -2.5, 30.0, 1 / 3, 0.30000000000000004, 2.0**-44, 5e-5, 100.0, 1e100,
]  # fmt: skip


def double(generator: random.Random) -> float:
    """One under 1e300 of any size, or of those that people write."""
    if generator.random() < 0.4:
        return generator.choice(NUMBERS)
    if generator.random() < 0.3:
        return round(generator.uniform(-1000, 1000), generator.randrange(6))
    value = struct.unpack("<d", generator.randbytes(8))[0]
    return value if math.isfinite(value) and abs(value) < 1e300 else 1.5


def manifest(generator: random.Random) -> Manifest:
    """Any that is sound."""

    def text() -> str:
        return "".join(generator.choice(TEXTS) for _ in range(generator.randrange(4)))

    def some(make, most=3):
        return tuple(make() for _ in range(generator.randrange(most + 1)))

    def named(make):
        return {text(): make() for _ in range(generator.randrange(8))}

    def scalar():
        return generator.choice(
            [None, True, False, text(), double(generator), generator.randrange(-5, 5), 10**40, 2**63]
        )

    def whole():
        return generator.choice([0, 1, 2**53 + 1, 2**63 - 1, generator.getrandbits(40)])

    def score():
        return generator.choice([math.inf, -math.inf, double(generator)])

    def tensor():
        shape = some(lambda: generator.choice([-1, whole()]))
        return EngineTensor(text(), generator.choice(TENSOR_MODES), text(), shape)

    def choice(of, forms):
        return of(text(), generator.choice(forms), text(), named(lambda: double(generator)))

    def capability():
        return generator.choice(["8.0", "9.0", "12.0"])

    sizes = sorted(generator.choice([1, 2, 8, 2**63 - 1]) for _ in range(3))
    key = EngineKey(
        text(), generator.randbytes(32).hex(), generator.randbytes(32).hex(), generator.choice(PRECISIONS),
        generator.choice(ATTENTION_FORMS), text(), text(), (sizes[0], sizes[1], sizes[2]),
        *((text(), capability(), some(capability)) if generator.random() < 0.5 else (None, None, ("8.6",))),
        some(text), named(scalar),
    )  # fmt: skip
    return Manifest(
        "x.engine", generator.randbytes(32).hex(), whole(), key,
        Gate(generator.choice(GATE_STATES), text(), double(generator), text(), some(score), some(score), text()),
        Build(double(generator), whole(), text(), text(), named(text), some(text)),
        some(tensor),
        some(lambda: choice(AttentionChoice, ATTENTION_FORMS)),
        some(lambda: choice(LinearChoice, LINEAR_FORMS)),
    )  # fmt: skip


def python(data: bytes) -> str:
    try:
        return signed_text(parse_manifest(data)).decode().replace("\n", " ", 1)
    except ValueError as error:
        return f"! {error}"


def compare(runner, cases: list[bytes]) -> int:
    """How many of them both take. What C++ takes, Python takes as the same text; what only Python takes has a number
    that is larger or smaller than any that a manifest is written with."""
    taken = 0
    answers = runner.ask(*(f"signed {case.hex() or '-'}" for case in cases))
    for case, answer in zip(cases, answers, strict=True):
        known = python(case)
        if answer.startswith("! 4 ") and not known.startswith("! "):
            assert answer.endswith(" out of range"), (case, answer)
        elif not answer.startswith("! "):
            assert answer == known, case
            taken += 1
    return taken
