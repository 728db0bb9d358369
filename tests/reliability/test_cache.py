"""The store of engines under fire, in short: `make soak` does the same hundreds of times."""

from __future__ import annotations

import os

import pytest

from runtime.flavors import find_flavor
from soak.cache import crowded_builds, killed_builds, shop_in
from soak.flipped import flipped_bits
from soak.full_disk import full_disk
from soak.shut_out import read_only, symbolic_links
from soak.written import killed_writes

pytestmark = pytest.mark.xdist_group("fire")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    if not (flavor := find_flavor("tensorrt_rtx")).can_build:
        pytest.skip(f"needs TensorRT-RTX: {flavor.reason}")
    return shop_in(tmp_path_factory.mktemp("fire"), graphs=2)


def test_builds_that_are_killed(shop):
    counts = killed_builds(shop, 6)
    assert counts["killed"] + counts["killed_builders"] + counts["outlived"] == counts["builds"] == 6
    assert counts["killed"] and counts["locks"]


def test_writes_that_are_killed(tmp_path):
    assert killed_writes(tmp_path / "writes", 12)["killed"] > 0


def test_eight_processes_at_once(shop):
    counts = crowded_builds(shop, 1)
    assert (counts["processes"], counts["built"], counts["engines"]) == (8, 2, 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_disks_that_are_full_or_read_only(shop):
    counts = full_disk(shop, 2)
    assert counts["refused"] == counts["built_after_room_was_made"] == 1 and counts["built"] == 1
    assert read_only(shop) == {"found": 1, "loaded": 1, "refused": 2}


def test_symbolic_links(shop):
    assert symbolic_links(shop)["victims_untouched"] == 3


def test_flipped_bits(shop):
    assert set(flipped_bits(shop, 24).values()) == {24}
