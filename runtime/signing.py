"""Signed engines: who vouches for a plan, which is code that runs on the GPU.

`X.sig` beside `X.engine` holds an Ed25519 signature (RFC 8032, by the package `cryptography`) of the manifest, and so
of the plan's SHA-256, of all that the plan was built from, and of the bar its gate has to pass. What a gate measured is
not signed: an engine that was built where it cannot run is judged by each machine that runs it. Where the variable
`CAT2DOG_SIGNED_BY` names public keys (a PEM file, or a folder of `*.pub`), engines without a signature by one of them
are not loaded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runtime import files
from runtime.errors import AccuracyError, EngineMismatch, InputError, MissingExtra
from runtime.manifest import Manifest, read_manifest

VARIABLE = "CAT2DOG_SIGNED_BY"
_CONTEXT = b"cat2dog engine 1\n"  # so that a signature of anything else is none of an engine
_MOST_BYTES = 1 << 14
_MOST_KEYS = 100
_KEY_NAME = re.compile(r"[0-9a-f]{64}")
_OUTCOME = ("state", "scores", "proxy_scores", "note")


def signature_path(engine: str | os.PathLike[str]) -> Path:
    """`X.sig` beside `X.engine`."""
    return Path(engine).with_suffix(".sig")


def new_key(path: str | os.PathLike[str]) -> Path:
    """Make a private key at `path` (PEM, readable by its owner alone) and its public one at `path` + `.pub`.

    Raises InputError where there is one already. Returns where the public key is.
    """
    serialization, ed25519 = _cryptography()
    path = Path(path)
    private = ed25519.Ed25519PrivateKey.generate()
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
    except FileExistsError as error:
        raise InputError(f"{path} exists; a key is never overwritten: give another name") from error
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    public = path.with_name(f"{path.name}.pub")
    shared = serialization.PublicFormat.SubjectPublicKeyInfo
    files.write_bytes(public, private.public_key().public_bytes(serialization.Encoding.PEM, shared))
    return public


def sign(engine: str | os.PathLike[str], key: str | os.PathLike[str]) -> Path:
    """Sign the engine with the private key, as it is now; where the signature lies.

    Raises InputError for a key that is none, EngineMismatch for an engine that was altered, AccuracyError for one that
    the gate refused.
    """
    serialization, ed25519 = _cryptography()
    data = _read(Path(key), "private key")
    try:
        private = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, _unsupported()) as error:
        raise InputError(f"{key} is no private key: make one with `cat2dog sign --new-key FILE`") from error
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise InputError(f"{key} is no Ed25519 key: make one with `cat2dog sign --new-key FILE`")
    path, manifest = Path(engine), read_manifest(engine)
    if not path.is_file() or files.sha256_file(path) != manifest.sha256:
        raise EngineMismatch(f"engine {path} was altered or is not there; it is not signed")
    if manifest.gate.state == "failed":
        raise AccuracyError(f"engine {path} was refused by the accuracy gate; it is not signed")
    content = {
        "algorithm": "ed25519",
        "key": _name(private.public_key()),
        "signature": base64.b64encode(private.sign(signed_text(manifest))).decode(),
    }
    files.write_text(signature_path(path), json.dumps(content, indent=2) + "\n")
    return signature_path(path)


def verify(engine: str | os.PathLike[str], manifest: Manifest, keys: str | os.PathLike[str]) -> str:
    """Which of the public keys signed the engine of this manifest (the beginning of its SHA-256).

    Whoever loads the plan has to compare its hash with the manifest's. Raises EngineMismatch where none did, InputError
    where `keys` are no keys.
    """
    if not os.fspath(keys):  # as a path, "" is the folder that one happens to be in
        raise InputError(f"{VARIABLE} is empty; it names a PEM file, or a folder of *.pub")
    known = _public_keys(Path(keys))
    path = signature_path(engine)
    try:
        with open(path, "rb") as file:
            name, signature = read_signature(file.read(_MOST_BYTES + 1))
    except FileNotFoundError as error:
        raise EngineMismatch(f"engine {engine} is not signed, and only engines signed by {keys} are loaded") from error
    except (OSError, ValueError) as error:
        raise EngineMismatch(f"signature {path} is damaged ({error}); sign the engine again") from error
    if name not in known:
        raise EngineMismatch(f"engine {engine} is signed by key {name[:16]}, which is not in {keys}")
    try:
        known[name].verify(signature, signed_text(manifest))
    except _invalid() as error:
        raise EngineMismatch(f"signature {path} is not of this engine: it was altered, or built again") from error
    return name[:16]


def check_policy(engine: str | os.PathLike[str], manifest: Manifest) -> None:
    """Where only signed engines are to be loaded, raise EngineMismatch for one that is not. Asked by all that load."""
    keys = os.environ.get(VARIABLE)
    if keys is not None:
        verify(engine, manifest, keys)


def signed_only() -> bool:
    """Whether only signed engines are to be loaded."""
    return VARIABLE in os.environ


def read_signature(data: bytes) -> tuple[str, bytes]:
    """The key's name and the signature in a `.sig` file. Raises ValueError for anything else."""
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has over {_MOST_BYTES} bytes")
    try:
        content = json.loads(data)
        if not isinstance(content, dict) or set(content) != {"algorithm", "key", "signature"}:
            raise ValueError("it has other fields than algorithm, key and signature")
        if content["algorithm"] != "ed25519" or not isinstance(content["key"], str):
            raise ValueError("it is of another algorithm than ed25519")
        signature = base64.b64decode(content["signature"], validate=True)
    except (RecursionError, TypeError, binascii.Error) as error:
        raise ValueError(" ".join(str(error).split())[:100]) from error
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())[:100]) from error
    if not _KEY_NAME.fullmatch(content["key"]):
        raise ValueError("its key is no SHA-256 in hexadecimal")
    if len(signature) != 64:
        raise ValueError(f"a signature of {len(signature)} bytes, expected 64")
    return content["key"], signature


def signed_text(manifest: Manifest) -> bytes:
    """What is signed: the manifest as canonical JSON, without what its gate measured."""
    content: dict[str, Any] = asdict(manifest)
    content["gate"] = {name: value for name, value in content["gate"].items() if name not in _OUTCOME}
    return _CONTEXT + json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _public_keys(path: Path) -> dict[str, Any]:
    serialization, ed25519 = _cryptography()
    paths = sorted(path.glob("*.pub")) if path.is_dir() else [path]
    if len(paths) > _MOST_KEYS:
        raise InputError(f"{path} has {len(paths)} public keys, more than {_MOST_KEYS}: keep those you trust")
    found = {}
    for each in paths:
        try:
            key = serialization.load_pem_public_key(_read(each, "public key"))
        except (ValueError, _unsupported()) as error:
            raise InputError(f"{each} is no public key; expected what `cat2dog sign --new-key` wrote") from error
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise InputError(f"{each} is no Ed25519 key; expected what `cat2dog sign --new-key` wrote")
        found[_name(key)] = key
    if not found:
        raise InputError(f"there is no public key in {path}; {VARIABLE} names a PEM file, or a folder of *.pub")
    return found


def _name(public: Any) -> str:
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()


def _read(path: Path, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise InputError(f"cannot read the {what} {path}: {error.strerror or error}") from error


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtra("cryptography", "signing engines and checking that they are", "'cat2dog[sign]'") from error
    return serialization, ed25519


def _unsupported() -> type[Exception]:
    from cryptography.exceptions import UnsupportedAlgorithm

    return UnsupportedAlgorithm


def _invalid() -> type[Exception]:
    from cryptography.exceptions import InvalidSignature

    return InvalidSignature
