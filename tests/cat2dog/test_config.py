import json
import subprocess
import sys
from dataclasses import replace

import pytest

from cat2dog.config import NAMED, Config, load_config, lookup, nearest_name, parameter_count
from runtime.errors import InputError

TINY = NAMED["tiny-128"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 7}, "heads 7 does not divide width 192 into heads of a multiple of 4 channels, as RoPE needs; "
                       "the nearest that does: 6"),
        ({"heads": 7, "rope": False}, "heads 7 does not divide width 192 evenly; the nearest that does: 6"),
        ({"width": 9, "heads": 1}, "heads 1 does not divide width 9 into heads of a multiple of 4 channels, "
                                   "as RoPE needs; widen it"),
        ({"resolution": 131}, "resolution 131 is not a multiple of patch 8; the nearest that is: 128"),
        ({"resolution": 100_000}, "resolution is 100000; expected a whole number from 8 to 8192"),
        ({"resolution": 8192}, "resolution 8192 with patch 8 makes 1048576 tokens; expected at most 65536: "
                               "take a larger patch"),
        ({"width": 16128, "depth": 256}, "width 16128 and depth 256 make 799,126,535,616 parameters; "
                                         "expected at most 20,000,000,000"),
        ({"depth": 0}, "depth is 0; expected a whole number from 1 to 256"),
        ({"depth": True}, "depth is True; expected a whole number from 1 to 256"),
        ({"depth": 7.0}, "depth is 7.0; expected a whole number from 1 to 256"),
        ({"depth": 10**5000}, "depth is a number of over 60 digits; expected a whole number from 1 to 256"),
        ({"norm": "batchnorm"}, "norm is 'batchnorm'; expected 'layernorm' or 'rmsnorm'"),
        ({"mlp": ["gelu"]}, "mlp is ['gelu']; expected 'gelu' or 'swiglu'"),
        ({"rope": 1}, "rope is 1; expected true or false"),
        ({"norm_eps": float("nan")}, "norm_eps is nan; expected a number from 1e-12 to 0.1"),
        ({"mlp_ratio": 1e9}, "mlp_ratio is 1000000000.0; expected a number from 0.125 to 16"),
    ],
)  # fmt: skip
def test_impossible_configs_are_refused_when_made(change, message):
    with pytest.raises(InputError) as caught:
        replace(TINY, **change)
    assert str(caught.value) == message


def test_a_switch_given_as_unhashable_is_refused():
    with pytest.raises(InputError, match=r"norm is \{\}; expected"):
        replace(TINY, norm={})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config is not JSON"),
        ("[" * 100_000, "config is not JSON"),
        ("[]", 'config is a JSON list; expected an object such as {"width": 1280, ...}'),
        ("{}", "config lacks resolution, patch, width, depth, heads; expected at least resolution, patch"),
        ('{"widht": 1}', "config has the unknown key 'widht'; did you mean 'width'?"),
    ],
)
def test_what_is_no_config_is_refused(text, message):
    with pytest.raises(InputError) as caught:
        Config.from_json(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_json_goes_both_ways_and_defaults_may_be_left_out():
    for config in NAMED.values():
        assert Config.from_json(config.to_json()) == config
    short = {"resolution": 128, "patch": 8, "width": 192, "depth": 7, "heads": 6}
    assert Config.from_json(json.dumps(short)) == TINY


def test_load_config_names_the_path(tmp_path):
    with pytest.raises(InputError) as caught:
        load_config(tmp_path)
    assert str(caught.value) == (
        f"cannot read {tmp_path}/config.json: No such file or directory; expected a checkpoint's config"
    )
    path = tmp_path / "config.json"
    path.write_text(TINY.to_json())
    assert load_config(tmp_path) == TINY
    path.write_text(TINY.to_json().replace('"heads": 6', '"heads": 7'))
    with pytest.raises(InputError, match=f"{path}: heads 7 does not divide width 192 .*nearest that does: 6"):
        load_config(tmp_path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match=r"is not UTF-8 text; expected a small JSON object"):
        load_config(tmp_path)
    path.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(InputError, match="is over 1048576 bytes; expected a small JSON object"):
        load_config(tmp_path)


def test_the_hash_depends_on_the_switches_alone(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(json.loads(TINY.to_json()), indent=7))
    assert load_config(tmp_path).sha256() == TINY.sha256()
    assert replace(TINY, rope_base=101.0).sha256() != TINY.sha256()


def test_unknown_names_suggest_the_nearest():
    assert lookup("500m-256").width == 1280
    with pytest.raises(InputError, match="no checkpoint is named '500-256'; did you mean '500m-256'"):
        lookup("500-256")
    assert nearest_name("my-dgo", ["my-dog"]) == "my-dog"


def test_named_parameters_are_within_five_percent_of_the_name():
    for name, config in NAMED.items():
        size = name.split("-")[0]
        wanted = {"500m": 500e6, "1b": 1e9, "2b": 2e9, "tiny": 3.1e6}[size]
        assert abs(parameter_count(config) / wanted - 1) < 0.05, name
    assert len(NAMED) == 10


def test_importing_the_config_needs_no_torch():
    code = "import sys, cat2dog.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
