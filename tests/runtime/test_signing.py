"""Signed engines: whose are loaded, and what of them is vouched for."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import AccuracyError, EngineMismatch, InputError
from runtime.manifest import Gate, read_manifest, write_manifest
from runtime.signing import VARIABLE, check_policy, new_key, read_signature, sign, signature_path, signed_only, verify
from tests.runtime.test_engine_file import file_engine

pytest.importorskip("cryptography", reason="needs the package cryptography: pip install 'cat2dog[sign]'")


@pytest.fixture
def engine(tmp_path):
    return file_engine(tmp_path / "tiny.engine")


@pytest.fixture
def key(tmp_path):
    (tmp_path / "keys").mkdir()
    new_key(tmp_path / "keys/mine.pem")
    return tmp_path / "keys/mine.pem"


def refused(engine, keys) -> str:
    with pytest.raises(EngineMismatch) as error:
        verify(engine, read_manifest(engine), keys)
    assert "\n" not in str(error.value) and error.value.exit_code == 4
    return str(error.value)


def test_a_signed_engine_is_known_by_its_key(engine, key):
    assert sign(engine, key) == signature_path(engine) == engine.with_suffix(".sig")
    name = json.loads(signature_path(engine).read_text())["key"][:16]
    assert verify(engine, read_manifest(engine), f"{key}.pub") == name
    assert verify(engine, read_manifest(engine), key.parent) == name
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(key):
    before = key.read_bytes()
    with pytest.raises(InputError, match="a key is never overwritten"):
        new_key(key)
    assert key.read_bytes() == before


def test_an_engine_that_nobody_signed(engine, key):
    assert "is not signed, and only engines signed by" in refused(engine, key.parent)


def test_an_engine_that_another_signed(engine, key, tmp_path):
    new_key(tmp_path / "other.pem")
    sign(engine, tmp_path / "other.pem")
    assert "which is not in" in refused(engine, key.parent)


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "0" * 64},
        {"size": 5},
        {"engine": "other.engine"},
        {"gate": Gate("passed", "psnr", 3.0, "PyTorch fp32", (50.0,))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_vouched_for(change, engine, key):
    sign(engine, key)
    write_manifest(engine, replace(read_manifest(engine), **change))
    assert "is not of this engine: it was altered, or built again" in refused(engine, key.parent)


def test_what_a_gate_measured_here_is_not_part_of_it(engine, key):
    manifest = read_manifest(engine)
    write_manifest(engine, replace(manifest, gate=replace(manifest.gate, state="pending", scores=())))
    sign(engine, key)
    write_manifest(engine, manifest)
    verify(engine, manifest, key.parent)


def test_every_flipped_bit_of_a_signature_is_seen(engine, key):
    path = sign(engine, key)
    sound, base64_end = path.read_bytes(), path.read_bytes().index(b'=="')
    for index in range(len(sound)):
        flipped = bytearray(sound)
        flipped[index] ^= 1 << index % 8
        path.write_bytes(flipped)
        try:
            verify(engine, read_manifest(engine), key.parent)
        except EngineMismatch as error:
            assert "\n" not in str(error)
        else:  # white space, and bits of base64 that stand for nothing
            assert read_signature(bytes(flipped)) == read_signature(sound) or index == base64_end - 1


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b"[" * 5000, b'{"algorithm": "none", "key": "", "signature": ""}',
        b'{"algorithm": "ed25519", "key": 1, "signature": "AA=="}',
        b'{"algorithm": "ed25519", "key": "a", "signature": 5}',
        json.dumps({"algorithm": "ed25519", "key": "\x1b[2J\n" * 8, "signature": "A" * 86 + "=="}).encode(),
        b'{"algorithm": "ed25519", "key": "a", "signature": "\\ud800"}', b" " * 20_000,
    ],
)  # fmt: skip
def test_damaged_signatures(content, engine, key):
    signature_path(engine).write_bytes(content)
    assert "is damaged" in refused(engine, key.parent)


def test_what_is_not_signed(engine, key):
    engine.write_bytes(b"another plan")
    with pytest.raises(EngineMismatch, match="it is not signed"):
        sign(engine, key)
    failed = file_engine(engine.with_name("failed.engine"), gate=Gate("failed", "psnr", 30.0, "x", (3.0,)))
    with pytest.raises(AccuracyError, match="it is not signed"):
        sign(failed, key)
    assert not signature_path(failed).exists()


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key(content, engine, key, tmp_path):
    (tmp_path / "bad.pem").write_bytes(content)
    with pytest.raises(InputError, match="is no private key"):
        sign(engine, tmp_path / "bad.pem")
    sign(engine, key)
    with pytest.raises(InputError, match="is no public key"):
        verify(engine, read_manifest(engine), tmp_path / "bad.pem")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="there is no public key in"):
        verify(engine, read_manifest(engine), tmp_path / "none")


def test_the_policy(engine, key, monkeypatch):
    manifest = read_manifest(engine)
    monkeypatch.delenv(VARIABLE, raising=False)
    check_policy(engine, manifest)
    assert not signed_only()
    monkeypatch.setenv(VARIABLE, str(key.parent))
    assert signed_only()
    with pytest.raises(EngineMismatch, match="is not signed"):
        check_policy(engine, manifest)
    sign(engine, key)
    check_policy(engine, manifest)
    monkeypatch.setenv(VARIABLE, "")  # an unset variable in a script is no leave to load anything
    monkeypatch.chdir(key.parent)  # though there is a key
    with pytest.raises(InputError, match="CAT2DOG_SIGNED_BY is empty"):
        check_policy(engine, manifest)


def test_too_many_keys(engine, key, tmp_path):
    sign(engine, key)
    for number in range(101):
        (tmp_path / f"{number}.pub").write_bytes(Path(f"{key}.pub").read_bytes())
    with pytest.raises(InputError, match="more than 100: keep those you trust"):
        verify(engine, read_manifest(engine), tmp_path)
