"""`cat2dog bench`, as a user meets it."""

from __future__ import annotations

import json

import pytest

from bench.schema import read_result

pytestmark = pytest.mark.xdist_group("shop")
SHORT = ("--rounds", "2", "--turn-ms", "20", "--startups", "1", "--images", "2")


def test_a_peer_from_checkpoint_to_result(shop):
    words = ("bench", "--model", "models/tiny-128", "--precision", "fp32", "--peers", "torch-sdpa")
    done = shop.cat2dog(*words, "--batch", "1,2", *SHORT, "--output", "result.json")
    assert done.returncode == 0, done.stderr
    assert "result.json: 1 of 1 measured" in done.stdout and "torch-sdpa" in done.stdout
    result = read_result(shop.folder / "result.json")
    assert result["complete"] and result["kind"] == "peers"
    assert result["machine"]["command"].startswith("cat2dog bench --model models/tiny-128 --precision fp32 --batch 1,2")
    subject = result["subject"]
    assert (subject["checkpoint"], subject["images"], subject["tokens"]) == ("tiny-128", 2, 256)
    assert subject["flops"] > subject["attention_flops"] > 0
    (peer,) = result["peers"]
    # The pictures went through the file and the pipes as they were.
    assert peer["psnr_db"]["worst"] is None or peer["psnr_db"]["worst"] > 55
    assert {(each["level"], each["batch"]) for each in peer["latency"]} == {
        ("network", 1), ("host", 1), ("picture", 1), ("stream", 1), ("network", 2), ("host", 2), ("stream", 2),
    }  # fmt: skip


def test_the_list(shop):
    done = shop.cat2dog("bench", "--model", "models/tiny-128", "--list", "--json")
    assert done.returncode == 0, done.stderr
    names = {row["name"]: row["state"] for row in json.loads(done.stdout)}
    assert names["torch-sdpa"] == "runs" and names["onnxruntime-cpu"] == "runs"
    done = shop.cat2dog("bench", "--model", "models/tiny-128", "--list", "--ladder")
    assert done.returncode == 0 and "research form" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--batch", "0"), "batch '0' is not a list of sizes such as 1,4,8"),
        (("--batch", "1;4"), "batch '1;4' is not a list of sizes such as 1,4,8"),
        (("--rounds", "1"), "--rounds 1 is too little; expected at least 2"),
        (("--list", "--peers", "fast"), "there is no peer 'fast' here; expected some of torch-naive, "),
        (("--list", "--engine", "none.engine"), "engine none.engine does not exist; build it with `cat2dog build`"),
        (("--list", "--engine", "a=x.engine", "a=y.engine"), "two engines are called 'a': give them names"),
    ],
)
def test_wrong_usage(shop, words, said):
    done = shop.cat2dog("bench", "--model", "models/tiny-128", *words)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
