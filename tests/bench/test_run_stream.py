"""The bench of the stream runs, and says what it found."""

from __future__ import annotations

import json

from bench.run_stream import main


def test_a_small_run(tmp_path, capsys):
    path = tmp_path / "results.json"
    words = ["--pictures", "21", "--resolution", "32", "--batch", "4", "--ms", "2", "--output", str(path)]
    assert main(words) == 0
    result = json.loads(path.read_text())
    assert result == json.loads(capsys.readouterr().out)
    assert (result["pictures"], result["batch"], result["lanes"]) == (21, 4, 2)
    assert set(result["seconds_alone"]) == {"decode", "run", "encode"}
    assert result["seconds_alone"]["run"] >= 6 * 0.002
    assert 0 < result["seconds_together"] < 30 and result["machine"]["python"]
