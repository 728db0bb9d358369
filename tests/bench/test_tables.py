"""The tables in the READMEs are those that the results make."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bench import (
    attention_ladder,
    attention_table,
    block_table,
    engine_ladder,
    engine_table,
    linear_table,
    timeline_table,
    turning_table,
)

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench/results"


def shown(path: str, name: str) -> str:
    text = (ROOT / path).read_text("utf-8")
    (found,) = re.findall(rf"<!-- {name} -->\n(.*?)\n<!-- end of \w+ -->", text, re.DOTALL)
    return found


def test_attention_beside_its_peers():
    files = [RESULTS / f"attention/attention_{name}.json" for name in ("fp16", "bf16", "1024_batch4")]
    assert shown("engines/kernels/README.md", "attention table") == attention_table.table(files)


def test_what_turning_costs():
    """The table stands there once it is measured, and not before."""
    path = RESULTS / "linear/turning_h200.json"
    text = (ROOT / "engines/kernels/README.md").read_text("utf-8")
    if not path.exists():
        assert "<!-- turning table -->" not in text
    else:
        assert shown("engines/kernels/README.md", "turning table") == turning_table.table(path)


def test_the_sentence_about_speed():
    gains: dict[int, list[float]] = {}
    for precision in ("fp16", "bf16"):
        for row in json.loads((RESULTS / f"attention/attention_{precision}.json").read_text("utf-8"))["rows"]:
            if row["batch"] == 1:
                ours = (attention_table.OURS, attention_table.TURNED)
                best = min(us for name, us in row["us"].items() if name not in ours)
                gains.setdefault(row["tokens"], []).append(100 * (best / row["us"][attention_table.OURS] - 1))
    said = (
        f"at 4096 tokens {min(gains[4096]):.0f} to {max(gains[4096]):.0f} % faster than cuDNN, at 1024 at least "
        f"{int(min(gains[1024]))} % and at 256 at least {int(min(gains[256]))} % faster than the best peer"
    )
    assert said in " ".join((ROOT / "README.md").read_text("utf-8").split())


def test_what_each_step_of_the_kernels_brought():
    made = attention_ladder.table(RESULTS / "attention/tuning_wide_plain.json")
    assert shown("engines/kernels/README.md", "attention ladder") == made


def test_linear_layers_on_an_h200():
    assert shown("engines/kernels/README.md", "linear table") == linear_table.table(RESULTS / "linear/tuning_500m.json")


def test_where_the_time_of_linear_launches_goes():
    made = timeline_table.table(RESULTS / "linear/timeline_h200.json")
    assert shown("engines/kernels/README.md", "timeline table") == made


def test_what_is_said_of_turning():
    """At most 10 % by the better of both ways but for one case in each precision."""
    over = set()
    for row in json.loads((RESULTS / "linear/turning_h200.json").read_text("utf-8"))["rows"]:
        us = row["us"]
        if min(us["in the QKV layer"], us["in attention"]) / us["plain"] > 1.105:
            over.add((row["tokens"], row["heads"], row["batch"]))
    assert over == {(256, 14, 4)}


def test_kernels_chosen_in_their_block():
    made = block_table.table(ROOT / "engines/kernels/tuned/sm90_nvidia-h200.json")
    assert shown("engines/kernels/README.md", "block table") == made


def test_what_each_step_made_of_engines():
    assert shown("engines/kernels/README.md", "engine ladder") == engine_ladder.table(RESULTS)


def test_what_is_said_of_programmatic_launch_and_of_kinds():
    """The sentences on what is left."""
    text = " ".join((ROOT / "engines/kernels/README.md").read_text("utf-8").split())
    graphs = json.loads((RESULTS / "linear/launches_500m_h200.json").read_text("utf-8"))["graphs"]
    small = graphs[0]
    gain = small["plain_ms"]["median"] - small["ms"]["median"]
    assert f"gains {gain:.2f} ms at 256 tokens" in text
    large = graphs[2]
    assert large["plain_ms"]["median"] <= large["ms"]["median"]
    assert all(graph["kinds_ms"] < graph["ms"]["median"] for graph in graphs[1:])


def test_engines_on_an_h200():
    names = ("500m-256", "500m-256_auto", "500m-256_linear", "500m-512_linear", "500m-1024_linear")
    files = [RESULTS / f"engines/{name}_h200.json" for name in names]
    assert shown("README.md", "engine table") == engine_table.table(files)
