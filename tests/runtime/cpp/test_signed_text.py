"""What is signed, in C++ and in Python: the same bytes of every manifest, and of a damaged one none."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import struct

import pytest

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
    sealed,
)
from runtime.signing import read_signature, signed_text

pytestmark = pytest.mark.xdist_group("cpp_runner")
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


def test_the_same_text_of_many_manifests(runner):
    generator = random.Random(7)
    cases = []
    for number in range(400):
        made = manifest(generator).to_json()
        if number % 2:  # another order of the names, other blanks, and characters as they are
            content = json.loads(made)
            shuffled = dict(generator.sample(sorted(content.items()), len(content)))
            made = "{\n" + json.dumps(shuffled, ensure_ascii=number % 4 == 1, indent=number % 3 or None)[1:].lstrip(
                "\n"
            )
        cases.append(sealed(made).encode())
    assert compare(runner, cases) == len(cases)


def test_numbers(runner):
    """As Python writes a float: powers of two and ten, where the digits are fewest or hardest, and any bits."""
    generator = random.Random(8)
    numbers = [
        *NUMBERS,
        *(2.0**power for power in range(-1074, 997)),
        *(float(f"1e{power}") for power in range(-323, 300)),
    ]
    numbers += [math.nextafter(number, side) for number in numbers for side in (0, math.inf) if number]
    numbers += [double(generator) for _ in range(12_000)]
    lines = [repr(number) for number in numbers]
    # Ways to write a number that Python never takes.
    odd = ["1E5", "1e+5", "1.50", "123456789012345678901234567890", "0.1e1", "4.35e-1", "1.7976931348623157e+299"]
    odd += [f"{number:.25e}" for number in numbers[:3000]]
    answers = runner.ask(*(f"float {line}" for line in [*lines, *odd]))
    assert answers == [*lines, *(repr(float(line)) for line in odd)]
    refused = runner.ask("float 1e300", "float -1e301", "float 1e400", "float 1e-400")
    assert all(answer.startswith("! 4 ") for answer in refused), refused


def edits(content: dict) -> None:
    """Each makes of a sound manifest one that is a little different, sound or not."""
    key, gate = content["key"], content["gate"]
    yield lambda: content.pop("linear")
    yield lambda: content.update(more=1)
    yield lambda: content.update(schema=3)
    yield lambda: content.update(size=4.0)
    yield lambda: content.update(size=-1)
    yield lambda: content.update(size=2**63)
    yield lambda: content.update(size=True)
    yield lambda: content.update(key8="00000000")
    yield lambda: content.update(engine="../x.engine")
    yield lambda: content.update(engine=".x.engine")
    yield lambda: content.update(engine="x" * 247 + ".engine")
    yield lambda: content.update(sha256="A" * 64)
    yield lambda: content.update(tensors={})
    yield lambda: content.update(tensors=[{"name": "a", "mode": "input", "dtype": "b", "shape": [-2]}])
    yield lambda: content.update(tensors=[{"name": "a", "mode": "input", "dtype": "b", "shape": [-1.0]}])
    yield lambda: content.update(tensors=[[]] * 10_001)
    yield lambda: content.update(attention=[{"node": "a", "form": "other", "why": "", "milliseconds": {}}])
    yield lambda: content.update(attention=[{"node": "a", "form": "plugin", "why": "", "milliseconds": {"b": 1}}])
    yield lambda: gate.update(threshold=30)
    yield lambda: gate.update(threshold="30")
    yield lambda: gate.update(threshold=10**299)
    yield lambda: gate.update(threshold=10**400)
    yield lambda: gate.update(scores=["inf", "-inf", 1])
    yield lambda: gate.update(scores=["nan"])
    yield lambda: gate.update(state="unknown")
    yield lambda: gate.pop("note")
    yield lambda: gate.update(note="a" * 4096)
    yield lambda: gate.update(note="🐱" * 4096)
    yield lambda: gate.update(note="a" * 4097)
    for bad in ("\n", "\x7f", "\x9f", "\ud800", "\udc00\ud800"):
        yield lambda bad=bad: content["build"].update(command=bad)
        yield lambda bad=bad: content["build"]["versions"].update({bad: "x"})
    for value in (
        1,
        1.0,
        -0.0,
        0,
        True,
        None,
        "x",
        [],
        {},
        10**299,
        10**305,
        0.1,
        1e22,
        123456789012345678901234567890,
    ):
        yield lambda value=value: key["options"].update(o=value)
    for sizes in ([1, 1], [0, 1, 1], [2, 1, 1], [1, 2, 3], [1, 1.0, 1]):
        yield lambda sizes=sizes: key.update(batch=sizes)
    for capability in ("9", "9.00", "123.0", "x.0", ""):
        yield lambda capability=capability: key.update(compute_capability=capability)
    yield lambda: key.update(gpu=None, targets=[])
    yield lambda: key.update(gpu="", compute_capability="9.0", targets=[])


def test_what_is_sound_to_one_is_sound_to_the_other(runner):
    made = manifest(random.Random(9)).to_json()
    cases = []
    for number in range(len(list(edits(json.loads(made))))):
        content = json.loads(made)
        list(edits(content))[number]()
        if content["key8"] != "00000000":  # of the changed key, so that it is the change alone that is refused
            content["key8"] = key8_of(content["key"])
        cases.append(sealed(json.dumps(content, indent=2) + "\n").encode())
    answers = runner.ask(*(f"signed {case.hex()}" for case in cases))
    verdicts = [answer.startswith("! ") for answer in answers]
    assert verdicts == [python(case).startswith("! ") for case in cases]
    assert 10 < sum(verdicts) < len(verdicts) - 10
    compare(runner, cases)


def test_ways_to_write_a_value(runner):
    """Numbers and texts as `json.dumps` would not write them; the key's own hash sees what they mean."""
    texts = ["-0", "-0.0", "0", "1E2", "1e+2", "100", "1.0", "1.10", "0.1e1", "5e-324"]
    texts += ['"\\/"', '"\\u00e9"', '"é"', '"\\ud83d\\udc31"']
    # Invalid UTF-8: cut off, overlong, a surrogate, beyond Unicode, no first byte.
    broken = [
        "e2 82",
        "c3 28",
        "e2 28 a1",
        "c1 81",
        "e0 80 af",
        "f0 80 80 af",
        "ed a0 80",
        "f4 90 80 80",
        "f8 88 80 80 80",
        "80",
        "ff",
    ]
    values = [text.encode() for text in texts]
    values += [b'"' + bytes.fromhex(each) + b'"' for each in broken]
    cases = []
    for value in values:
        content = json.loads(manifest(random.Random(3)).to_json())
        content["key"]["options"] = {"o": json.loads(value.decode(errors="replace"))}
        content["key8"] = key8_of(content["key"])
        content["key"]["options"] = {"o": "HERE"}
        rest = json.dumps(content, indent=2)[2:].encode().replace(b'"HERE"', value)
        cases.append(b'{\n  "seal": "' + hashlib.sha256(rest).hexdigest().encode() + b'",\n' + rest)
    answers = runner.ask(*(f"signed {case.hex()}" for case in cases))
    assert answers[: len(texts)] == [python(case) for case in cases[: len(texts)]]
    assert not any(answer.startswith("! ") for answer in answers[: len(texts)])
    for text in ("-0", "-0.0", "30", "3e1"):  # where a float is meant
        content = json.loads(manifest(random.Random(3)).to_json())
        content["gate"]["threshold"] = "HERE"
        rest = json.dumps(content, indent=2).replace('"HERE"', text)
        assert compare(runner, [sealed(rest).encode()]) == 1, text
    for case, answer in list(zip(cases, answers, strict=True))[len(texts) :]:
        assert answer == "! 4 a text is not valid Unicode" and python(case).startswith("! "), case


def key8_of(key: dict) -> str:
    from runtime.files import sha256_text

    return sha256_text(json.dumps(key, sort_keys=True, separators=(",", ":")))[:8]


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
