"""What is signed, in C++ and in Python: the same bytes of every manifest, however it is written."""

from __future__ import annotations

import hashlib
import json
import math
import random

import pytest

from runtime.manifest import sealed
from tests.runtime.cpp.manifests import NUMBERS, compare, double, manifest, python

pytestmark = pytest.mark.xdist_group("cpp_runner")


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
