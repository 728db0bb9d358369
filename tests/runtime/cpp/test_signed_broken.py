"""Damaged manifests and signatures: what C++ takes, Python takes as the same."""

from __future__ import annotations

import base64
import json
import random

import pytest

from runtime.manifest import sealed
from runtime.signing import read_signature
from tests.runtime.cpp.manifests import compare, manifest

pytestmark = pytest.mark.xdist_group("cpp_runner")


def mutated(data: bytes, generator: random.Random) -> bytes:
    """Some bytes changed, dropped, doubled, or replaced by what parsers stumble over."""
    pieces = [b'"', b"\\", b"\\u", b"{", b"}", b"[", b"]", b",", b":", b"-0", b"1e5", b".", b"e", b"null", b"\xc0\x80"]
    pieces += [
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\\ud83d",
        b"\\u0000",
        b"1e-400",
        b"0",
        b" ",
        b"\xef\xbb\xbf",
        b"",
    ]
    for _ in range(generator.choice((1, 1, 1, 2, 8))):
        start = generator.randrange(len(data) + 1)
        end = min(len(data), start + generator.choice((0, 0, 1, 1, 4, 40)))
        middle = generator.choice((generator.choice(pieces), generator.randbytes(1), data[start:end] * 2))
        data = data[:start] + middle + data[end:]
    return data


def sealed_again(data: bytes) -> bytes:
    """With the seal of what follows it, where there is one, so that the parser sees the change."""
    text = data.decode(errors="surrogateescape")
    at = text.find('",\n')
    if not text.startswith('{\n  "seal": "') or at != 77:
        return data
    try:
        return sealed("{\n" + text[80:]).encode()
    except UnicodeEncodeError:
        return data  # not UTF-8: Python says so before it looks at the seal


def fuzz(runner, seed: int, rounds: int) -> int:
    generator = random.Random(seed)
    taken = 0
    for _ in range(rounds):
        sound = [sealed(manifest(generator).to_json()).encode() for _ in range(4)]
        taken += compare(runner, [sealed_again(mutated(generator.choice(sound), generator)) for _ in range(250)])
    return taken


def fuzz_signatures(runner, seed: int, count: int) -> int:
    """Whatever C++ takes is the same to Python."""
    generator = random.Random(seed)
    content = {"algorithm": "ed25519", "key": "ab" * 32, "signature": base64.b64encode(bytes(range(190, 254))).decode()}
    sound = (json.dumps(content, indent=2) + "\n").encode()
    cases = [sound, *(mutated(sound, generator) for _ in range(count))]
    taken = 0
    for case, answer in zip(cases, runner.ask(*(f"signature {case.hex() or '-'}" for case in cases)), strict=True):
        if answer.startswith("! "):
            continue
        key, signature = read_signature(case)
        assert answer == f"{key} {signature.hex()}", case
        taken += 1
    return taken


def test_bits_of_base64_that_stand_for_nothing(runner):
    """Python takes them; here a signature is written in one way alone."""
    content = {"algorithm": "ed25519", "key": "ab" * 32, "signature": base64.b64encode(bytes(64)).decode()}
    sound = json.dumps(content).encode()
    other = sound.replace(b"A==", b"B==")
    assert read_signature(other) == read_signature(sound)
    answers = runner.ask(f"signature {sound.hex()}", f"signature {other.hex()}")
    assert answers[0] == f"{'ab' * 32} {'00' * 64}"
    assert answers[1] == "! 4 its signature is not base64 as it is written"


def test_broken_manifests_and_signatures(runner):
    assert fuzz(runner, 10, 4) > 20
    assert 1 <= fuzz_signatures(runner, 11, 1000) < 800


@pytest.mark.slow
def test_many_broken_manifests_and_signatures(runner):
    assert fuzz(runner, 12, 120) > 500
    assert fuzz_signatures(runner, 13, 30_000) > 10
