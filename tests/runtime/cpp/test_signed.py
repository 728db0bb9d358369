"""Only signed engines: the runner refuses what Python refuses, in the same words, before it looks for a GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace

import pytest

from runtime.errors import InputError, ToolchainError
from runtime.manifest import Gate, read_manifest, write_manifest
from runtime.signing import VARIABLE, check_policy, new_key, sign, signature_path, verify
from tests.runtime.cpp.conftest import ROOT
from tests.runtime.cpp.test_engine import IMAGES, engine, expected, run

pytest.importorskip("cryptography", reason="needs the package cryptography: pip install 'cat2dog[sign]'")
pytestmark = pytest.mark.xdist_group("cpp_runner")


@pytest.fixture
def signing(runner, fake):
    """The runner, where it checks signatures and loads engines."""
    return runner.with_openssl()


@pytest.fixture
def keys(tmp_path):
    """A folder with two public keys, of which `mine.pem` signs."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("mine.pem", "their.pem"):
        new_key(folder / name)
    return folder


@pytest.fixture
def mine(keys, major, tmp_path):
    """An engine that is signed by the key `mine.pem`."""
    path = engine(tmp_path, major, plan=b"FAKE plan")
    sign(path, keys / "mine.pem")
    return path


def refused(signing, path, keys, monkeypatch, same=True):
    """What is said, with exit code 4, where there is neither TensorRT nor a driver; Python says the same."""
    given = ["--network", path, "--images", *IMAGES, "--library", "/absent.so"]
    done = signing.run(*given, **{VARIABLE: str(keys), "CAT2DOG_LIBCUDA": "/absent.so"})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1), done.stderr
    monkeypatch.setenv(VARIABLE, str(keys))
    with pytest.raises(ToolchainError) as error:
        check_policy(path, read_manifest(path))
    assert error.value.exit_code == 4
    if same:
        assert done.stderr == f"error: {error.value}\n"
    return done.stderr


@pytest.mark.parametrize("names", ["mine.pem.pub", ""], ids=["a key", "a folder of keys"])
def test_a_signed_engine_runs(signing, fake, mine, keys, names):
    for given, environment in (([], {VARIABLE: str(keys / names)}), (["--signed-by", keys / names], {})):
        done = run(signing, fake, mine, *given, **environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == expected(0)[0]


def test_the_option_is_stronger_than_the_variable(signing, fake, mine, keys):
    their = keys / "their.pem.pub"
    assert run(signing, fake, mine, "--signed-by", keys, **{VARIABLE: str(their)}).returncode == 0
    assert run(signing, fake, mine, "--signed-by", their, **{VARIABLE: str(keys)}).returncode == 4


def test_an_engine_that_nobody_signed(signing, mine, keys, monkeypatch):
    signature_path(mine).unlink()
    assert "is not signed, and only engines signed by" in refused(signing, mine, keys, monkeypatch)


def test_an_engine_that_another_signed(signing, mine, keys, monkeypatch):
    assert "is signed by key" in refused(signing, mine, keys / "their.pem.pub", monkeypatch)
    # Another's signature under this key's name.
    sound = json.loads(signature_path(mine).read_text())
    sign(mine, keys / "their.pem")
    forged = {**json.loads(signature_path(mine).read_text()), "key": sound["key"]}
    signature_path(mine).write_text(json.dumps(forged))
    assert "is not of this engine" in refused(signing, mine, keys, monkeypatch)


def test_an_altered_plan(signing, mine, keys):
    for plan, words in (
        (b"FAKE plaN", "was altered: its sha256 begins with"),
        (b"FAKE", "has 4 bytes, but 9 were built"),
    ):
        mine.write_bytes(plan)
        given = ["--network", mine, "--images", *IMAGES, "--library", "/absent.so", "--signed-by", keys]
        done = signing.run(*given, CAT2DOG_LIBCUDA="/absent.so")
        assert (done.returncode, done.stderr.count("\n")) == (4, 1) and words in done.stderr, done.stderr


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: {"sha256": "0" * 64},
        lambda manifest: {"engine": "other.engine"},
        lambda manifest: {"gate": replace(manifest.gate, threshold=0.5)},
        lambda manifest: {"key": replace(manifest.key, gpu="Other GPU")},
        lambda manifest: {"build": replace(manifest.build, command="rm -r ~")},
    ],
    ids=["sha256", "engine", "gate", "key", "build"],
)
def test_an_altered_manifest(signing, mine, keys, monkeypatch, change):
    """Sealed again, as anyone can."""
    manifest = read_manifest(mine)
    write_manifest(mine, replace(manifest, **change(manifest)))
    assert "is not of this engine: it was altered, or built again" in refused(signing, mine, keys, monkeypatch)


def test_what_a_gate_measured_is_not_part_of_it(signing, fake, mine, keys):
    manifest = read_manifest(mine)
    write_manifest(mine, replace(manifest, gate=replace(manifest.gate, scores=(0.99991, 1.0), note="here")))
    assert run(signing, fake, mine, "--signed-by", keys).returncode == 0
    write_manifest(mine, replace(manifest, gate=Gate("failed", *list(vars(manifest.gate).values())[1:])))
    assert run(signing, fake, mine, "--signed-by", keys).returncode == 3


def test_an_altered_signature(signing, mine, keys, monkeypatch):
    path = signature_path(mine)
    sound = path.read_text()
    digits = sound.index('"signature": "') + len('"signature": "')
    # A bit of the signature, of the key's name and of a field's name.
    for at, words in (
        (digits + 20, "is not of this engine"),
        (sound.index('"key": "') + 9, "which is not in"),
        (5, "is damaged ("),
    ):
        path.write_text(sound[:at] + ("0" if sound[at] != "0" else "1") + sound[at + 1 :])
        assert words in refused(signing, mine, keys, monkeypatch, same="damaged" not in words)
    for content in (b"", b"[]", b"{}", b"[" * 5000, b" " * 20_000, b"\xff", sound.encode() * 2):
        path.write_bytes(content)
        assert f"signature {path} is damaged (" in refused(signing, mine, keys, monkeypatch, same=False)
    path.unlink()
    path.mkdir()
    assert "is damaged (" in refused(signing, mine, keys, monkeypatch, same=False)


def test_what_is_no_key(signing, fake, mine, tmp_path, keys):
    rsa, encrypted, none = tmp_path / "rsa.pub", tmp_path / "encrypted.pub", tmp_path / "none"
    subprocess.run(["openssl", "genrsa", "-out", tmp_path / "rsa.pem", "1024"], check=True, capture_output=True)
    subprocess.run(
        ["openssl", "rsa", "-in", tmp_path / "rsa.pem", "-pubout", "-out", rsa], check=True, capture_output=True
    )
    # OpenSSL would ask the terminal for a password.
    head, _, rest = (keys / "mine.pem.pub").read_text().partition("\n")
    encrypted.write_text(f"{head}\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,{'0' * 32}\n\n{rest}")
    none.mkdir()
    (tmp_path / "huge.pub").write_bytes(b" " * 20_000)
    cases = [
        (mine, "is no public key"), (rsa, "is no Ed25519 key"), (encrypted, "is no public key"),
        (keys / "mine.pem", "is no public key"), (tmp_path / "absent", "cannot read the public key"),
        (tmp_path / "huge.pub", "more than the 16384 allowed"), (none, "there is no public key in"),
        ("", "the path of the public keys is empty"),
    ]  # fmt: skip
    for named, words in cases:
        done = run(signing, fake, mine, **{VARIABLE: str(named)})
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1) and words in done.stderr, (
            done.stderr
        )
    assert "--signed-by lacks its value" in run(signing, fake, mine, "--signed-by").stderr
    shutil.copy(rsa, keys / "a.pub")  # one that is no key spoils the folder, as in Python
    assert run(signing, fake, mine, "--signed-by", keys).returncode == 2


def test_a_folder_of_too_many_keys(signing, fake, mine, keys):
    """Which hundred would count? None, as in Python."""
    for number in range(98):
        shutil.copy(keys / "their.pem.pub", keys / f"a{number:02}.pub")
    assert run(signing, fake, mine, "--signed-by", keys).returncode == 0
    shutil.copy(keys / "their.pem.pub", keys / "a99.pub")
    done = run(signing, fake, mine, "--signed-by", keys)
    assert done.returncode == 2 and "has 101 public keys, more than 100: keep those" in done.stderr
    with pytest.raises(InputError, match="has 101 public keys, more than 100: keep those"):
        verify(mine, read_manifest(mine), keys)


def test_who_writes_into_the_plan_while_it_is_loaded(signing, fake, mine, keys):
    """What was hashed is what is loaded, whatever becomes of the file."""
    done = run(signing, fake, mine, "--signed-by", keys, FAKE_REWRITE=str(mine))
    assert done.returncode == 0, done.stderr
    assert mine.read_bytes() == b"GONE plan"


def test_a_runner_without_openssl_loads_nothing(runner, fake, mine, keys):
    for given, environment in (([], {VARIABLE: str(keys)}), (["--signed-by", keys], {}), ([], {VARIABLE: ""})):
        done = run(runner, fake, mine, *given, program="tests/bare_runner", **environment)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert "was built without OpenSSL and cannot check signatures: install libssl-dev" in done.stderr
    assert run(runner, fake, mine, program="tests/bare_runner").returncode == 0
    assert "built without OpenSSL: where only signed" in runner.run("--version", program="tests/bare_runner").stdout


def test_configuring_it_without_openssl_says_so(runner, tmp_path):
    command = ["cmake", "-S", ROOT / "runtime/cpp", "-B", tmp_path, "-DCMAKE_DISABLE_FIND_PACKAGE_OpenSSL=ON"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no OpenSSL with headers here (`apt-get install libssl-dev`): the runner cannot check" in done.stderr
