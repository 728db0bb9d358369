"""Tuning tables: strict reading, choosing one, and whether what ships is still what the compilers make."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import pytest

from engines.kernels import images
from engines.kernels.plan import make_plan
from engines.kernels.tables import (
    SHIPPED,
    Entry,
    InBlock,
    ProblemKey,
    Table,
    Timing,
    choose_table,
    read_table,
    table_name,
)
from engines.kernels.tune import hashes
from engines.kernels.variants import Sm90Variant, TritonVariant
from runtime.errors import InputError

KEY = ProblemKey("fp16", 20, 64, 256, 256, 1, "packed", "tokens", True, True)
FAST = Timing(Sm90Variant(2, 128, 2, turns=False), 12.5, 12.25, 13.0, ("0123456789abcdef",), 3.2e-4)
SLOW = Timing(TritonVariant(64, 64, 4, 2), 20.0, 19.0, 30.0, ("fedcba9876543210", "00"), None)
TABLE = Table(
    "NVIDIA H100", "9.0", 132, "580.1", {"triton": "3.7.1"}, "2025-01-01", "cat2dog tune", (Entry(KEY, (FAST, SLOW)),)
)
TABLES = [pytest.param(path, id=path.name) for path in sorted(SHIPPED.glob("*.json"))] or [
    pytest.param(None, id="none", marks=pytest.mark.skip(reason="no tuning table ships yet"))
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "table.json"
    TABLE.write(path)
    return path


def test_round_trip(path):
    assert read_table(path) == TABLE
    first = path.read_bytes()
    read_table(path).write(path)
    assert path.read_bytes() == first


def test_what_a_block_takes(tmp_path):
    path = tmp_path / "table.json"
    taken = InBlock(SLOW, (40.5, 40.0, 42.0))
    among = replace(TABLE, entries=(Entry(KEY, (FAST, SLOW), taken),))
    among.write(path)
    assert read_table(path) == among
    assert among.entries[0].choices == (SLOW, FAST, SLOW)
    assert TABLE.entries[0].choices == (FAST, SLOW)
    for bad in ({"timing": json.loads(path.read_text())["entries"][0]["timings"][0]}, {"us": [1, 1, 1]}, [], None):
        content = json.loads(path.read_text())
        content["entries"][0]["in_block"] = bad
        other = tmp_path / "bad.json"
        other.write_text(json.dumps(content))
        with pytest.raises(InputError, match="is no tuning table"):
            read_table(other)
    content = json.loads(path.read_text())
    content["entries"][0]["in_block"]["us"] = [40.5, 41.0, 42.0]
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="a timing of"):
        read_table(tmp_path / "bad.json")


def test_an_empty_table_is_one(path):
    empty = replace(TABLE, entries=())
    empty.write(path)
    assert read_table(path) == empty
    assert empty.nearest(KEY) is None and empty.find(KEY) is None


def changed(content, place, value):
    """`content` with another value at a place such as "entries 0 timings 0 us"."""
    *outer, last = [int(step) if step.isdigit() else step for step in place.split()]
    inner = functools.reduce(lambda found, step: found[step], outer, content)
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    return content


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("schema", 2),
        ("schema", KeyError),
        ("gpu", 7),
        ("gpu", KeyError),
        ("unknown", 1),
        ("compute_capability", 9.0),
        ("compute_capability", "nine"),
        ("compute_capability", "90"),
        ("multiprocessors", "132"),
        ("multiprocessors", True),
        ("multiprocessors", 0),
        ("compilers", []),
        ("entries", {}),
        ("entries", None),
        ("entries", "text"),
        ("entries 0", []),
        ("entries 0 note", "no"),
        ("entries 0 timings", []),
        ("entries 0 timings", {}),
        ("entries 0 problem", []),
        ("entries 0 problem heads", "20"),
        ("entries 0 problem heads", 0),
        ("entries 0 problem heads", 2**40),
        ("entries 0 problem keys", 77),
        ("entries 0 problem batch", -1),
        ("entries 0 problem batch", 1.0),
        ("entries 0 problem layout", "rows"),
        ("entries 0 problem rope", 1),
        ("entries 0 problem rope", KeyError),
        ("entries 0 problem causal", False),
        ("entries 0 timings 0 us", [1.0, 2.0]),
        ("entries 0 timings 0 us", [float("nan")] * 3),
        ("entries 0 timings 0 us", [float("inf")] * 3),
        ("entries 0 timings 0 us", [1.0, 2.0, 3.0]),
        ("entries 0 timings 0 us", [0, 0, 0]),
        ("entries 0 timings 0 us", [10**400] * 3),
        ("entries 0 timings 0 us", "123"),
        ("entries 0 timings 0 error", "small"),
        ("entries 0 timings 0 error", float("nan")),
        ("entries 0 timings 0 images", "0123"),
        ("entries 0 timings 0 variant kind", "gluon"),
        ("entries 0 timings 0 variant stages", 0),
        ("entries 0 timings 0 variant", []),
        ("entries 0 timings 0 variant", KeyError),
        ("entries 0 timings 0 note", "no"),
    ],
)
def test_what_is_no_table(path, place, value):
    path.write_text(json.dumps(changed(json.loads(path.read_text()), place, value)))
    refused(path)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b" " * ((8 << 20) + 1)])
def test_damaged_and_huge_files(path, data):
    path.write_bytes(data)
    refused(path)


def test_the_same_problem_twice(path):
    replace(TABLE, entries=TABLE.entries * 2).write(path)
    refused(path)


def test_a_missing_table(tmp_path):
    refused(tmp_path / "none.json")
    refused(tmp_path)


def refused(path):
    with pytest.raises(InputError) as error:
        read_table(path)
    message = str(error.value)
    assert message.startswith(f"{path} is no tuning table (") and len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 300


def at(capability, gpu):
    return replace(TABLE, compute_capability=capability, gpu=gpu)


@pytest.mark.parametrize(
    ("there", "gpu", "capability", "taken", "words"),
    [
        (["9.0 H100", "9.0 H200"], "H200", "9.0", "H200", "tuned on H200"),
        (["8.0 A100", "9.0 H200"], "H100", "9.0", "H200", "taken from H200, of the same compute capability (9.0)"),
        (
            ["8.0 A100", "9.0 H200"],
            "RTX 3090",
            "8.6",
            "A100",
            "taken from A100, of the nearest compute capability (8.0)",
        ),
        (["8.6 RTX 3090", "9.0 H200"], "RTX 4090", "8.9", "RTX 3090", "of the nearest compute capability (8.6)"),
        (["9.0 H200"], "RTX 4090", "8.9", "H200", "of the nearest compute capability (9.0)"),
        (["8.0 A100", "12.0 RTX 5090"], "B200", "10.0", "A100", "of the nearest compute capability (8.0)"),
    ],
)
def test_choosing_a_table(there, gpu, capability, taken, words):
    tables = [at(*each.split(" ", 1)) for each in there]
    for order in (tables, tables[::-1]):
        chosen, why = choose_table(order, gpu, capability)
        assert chosen.gpu == taken and words in why
        if gpu != taken:
            assert why.startswith(f"{gpu} has no tuning table; ") and why.endswith("`cat2dog tune` measures it here")


@pytest.mark.parametrize("gpu", [TABLE.gpu, "NVIDIA GH200"])
def test_the_first_of_two_tables_of_one_gpu_counts_and_the_other_adds_to_it(gpu):
    mine = Entry(KEY, (SLOW,))
    other = Entry(replace(KEY, queries=1024, keys=1024), (FAST,))
    here, ships = replace(TABLE, date="today", entries=(mine,)), replace(TABLE, entries=(*TABLE.entries, other))
    chosen, _ = choose_table([here, ships], gpu, "9.0")
    assert chosen == replace(here, entries=(mine, other))
    assert choose_table([ships, here], gpu, "9.0")[0] == ships


def test_no_table():
    assert choose_table([], "H100", "9.0") == (None, "no tuning table is here")


def test_the_name_of_a_table():
    assert table_name("NVIDIA H200", "9.0") == "sm90_nvidia-h200.json"
    assert table_name("../GeForce RTX (TM) 5090/", "12.0") == "sm120_geforce-rtx-tm-5090.json"


@pytest.mark.parametrize(
    ("wanted", "nearest"),
    [
        ({"queries": 200, "keys": 200}, 0),
        ({"queries": 900, "keys": 900, "precision": "bf16"}, 1),
        ({"head_size": 128, "queries": 4096, "keys": 4096}, 2),
        ({"head_size": 96}, 2),
        ({"qk_norm": False, "rope": False, "queries": 1000, "keys": 1000}, 3),
        ({"queries": 1, "keys": 1, "batch": 1024}, 0),
    ],
)
def test_the_nearest_problem(wanted, nearest):
    keys = [
        KEY,
        replace(KEY, queries=1024, keys=1024),
        replace(KEY, head_size=128, heads=14),
        replace(KEY, qk_norm=False, rope=False),
    ]
    table = replace(TABLE, entries=tuple(Entry(key, (SLOW,)) for key in keys))
    assert table.nearest(replace(KEY, **wanted)).key == keys[nearest]
    assert table.find(replace(KEY, **wanted)) is None
    assert table.find(keys[nearest]).key == keys[nearest]


def test_merged_takes_the_newer_and_keeps_an_order():
    big = Entry(replace(KEY, queries=1024, keys=1024), (FAST,))
    bf16 = Entry(replace(KEY, precision="bf16"), (FAST,))
    newer = Entry(KEY, (SLOW,))
    merged = TABLE.merged([big, bf16, newer])
    assert merged.entries == (newer, bf16, big)
    assert merged.merged([]) == merged and TABLE.entries == (Entry(KEY, (FAST, SLOW)),)


def test_a_key_in_words_and_of_a_problem():
    assert str(KEY) == "256 tokens, 20 heads of 64, batch 1, fp16, QK-norm, RoPE"
    across = replace(KEY, keys=77, layout="tokens", qk_norm=False, rope=False)
    assert str(across) == "256 to 77 tokens, 20 heads of 64, batch 1, fp16"
    for key in (KEY, across):
        assert ProblemKey.of(key.problem()) == key
    assert ProblemKey.of(replace(KEY.problem(), batch=(1, 4, 8))).batch == 4
    assert ProblemKey.of(replace(KEY.problem(), batch=(1, 4, 8)), 8).batch == 8


@pytest.mark.parametrize("path", TABLES)
def test_shipped_tables_are_read_and_make_plans(compilers, path):
    table = read_table(path)
    assert path.name == table_name(table.gpu, table.compute_capability)
    assert dict(table.compilers) == images.compiler_versions(), "tuned with other compilers than are pinned"
    for entry in table.entries:
        assert list(entry.timings) == sorted(entry.timings, key=lambda timing: timing.median)
        for timing in entry.choices:
            plan = make_plan(entry.key.problem(), timing.variant, table.compute_capability)
            assert len(plan.images) == len(timing.images)


def compare(path, step=1):
    table = read_table(path)
    for entry in table.entries[::step]:
        timing = entry.choices[0]
        plan = make_plan(entry.key.problem(), timing.variant, table.compute_capability)
        assert hashes(plan) == timing.images, f"{timing.variant} at {entry.key} is not what was measured"


needs_compilers = pytest.mark.skipif(bool(images.why_not()), reason=images.why_not())


@needs_compilers
@pytest.mark.parametrize("path", TABLES)
def test_what_ships_is_what_was_measured(compiled, path):
    compare(path, -(-len(read_table(path).entries) // 12) or 1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@needs_compilers
@pytest.mark.parametrize("path", TABLES)
def test_all_that_ships_is_what_was_measured(compiled, path):
    compare(path)
