"""A folder, or a prefix of an object store, as a place for whole files: read, written, made once, listed.

A URL with a scheme (`s3://bucket/dogs`) goes through fsspec, everything else is a folder of this machine. A file is
seen whole or not at all: locally it is renamed into place, and an object store shows an object when its upload ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runtime import files
from runtime.errors import InputError, MissingExtra, ToolchainError

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://")


@dataclass(frozen=True)
class Entry:
    """A file: its name below the place, its size in bytes, the Unix time it was written."""

    name: str
    size: int
    modified: float


class Place(Protocol):
    """Names are relative, with `/` between folders. Faults of the place are ToolchainErrors that name the file.

    `read` and `size` raise FileNotFoundError where there is no such file.
    """

    url: str

    def read(self, name: str, most: int) -> bytes: ...

    def write(self, name: str, data: bytes) -> None: ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that is not there yet; False, and nothing done, where it is. Of two callers one gets True."""

    def download(self, name: str, target: Path) -> None: ...

    def upload(self, source: Path, name: str) -> None: ...

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""

    def entry(self, name: str) -> Entry: ...

    def entries(self, folder: str = "", deep: bool = True) -> Iterator[Entry]:
        """The files below `folder`, in no order; temporary ones left out."""


def is_url(text: str | os.PathLike[str]) -> bool:
    """Whether it has a scheme, as s3://bucket/folder has."""
    return _SCHEME.match(os.fspath(text)) is not None


def open_place(url: str | os.PathLike[str]) -> Place:
    """The place at a URL or folder. Raises MissingExtra without fsspec or its package for this scheme."""
    text = os.fspath(url)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    return RemotePlace(text) if is_url(text) else Folder(Path(text))


class Folder:
    """A folder of this machine, or of a file system that machines share."""

    def __init__(self, root: Path):
        self.root = root.absolute()
        self.url = str(root)

    def read(self, name: str, most: int) -> bytes:
        """The file's bytes, at most `most` of them (InputError for a longer one)."""
        with self._told(name), open(self._path(name), "rb") as file:
            data = file.read(most + 1)
        return _bounded(f"{self.url}/{name}", data, most)

    def write(self, name: str, data: bytes) -> None:
        """Write it whole, through a temporary file."""
        with self._told(name):
            files.write_bytes(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """A hard link is made of a whole file or fails, where opening with O_EXCL would show an empty one first."""
        path = self._path(name)
        with self._told(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.parent / f".tmp-{os.getpid()}-{secrets.token_hex(8)}"
            try:
                temporary.write_bytes(data)
                os.link(temporary, path)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def download(self, name: str, target: Path) -> None:
        """Copy the file to `target`, in pieces."""
        with self._told(name), open(self._path(name), "rb") as source, open(target, "wb") as sink:
            while piece := source.read(1 << 22):
                sink.write(piece)

    def upload(self, source: Path, name: str) -> None:
        """Copy `source` here, whole or not at all, in pieces."""
        with self._told(name), files.atomic_path(self._path(name)) as temporary:
            with open(source, "rb") as file, open(temporary, "wb") as sink:
                while piece := file.read(1 << 22):
                    sink.write(piece)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        with self._told(name):
            self._path(name).unlink(missing_ok=True)

    def entry(self, name: str) -> Entry:
        """Raises FileNotFoundError where there is no such file."""
        with self._told(name):
            status = self._path(name).stat()
        return Entry(name, status.st_size, status.st_mtime)

    def entries(self, folder: str = "", deep: bool = True) -> Iterator[Entry]:
        """The files below `folder`; none where it is missing."""
        top = self.root / folder
        for where, folders, names in os.walk(top):
            if not deep:
                folders.clear()
            for name in names:
                if name.startswith("."):
                    continue
                path = Path(where, name)
                with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                    status = path.stat()
                    yield Entry(path.relative_to(self.root).as_posix(), status.st_size, status.st_mtime)

    def _path(self, name: str) -> Path:
        return self.root / _checked(name)

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            raise ToolchainError(f"{self.url}/{name}: {error.strerror or error}") from error


class RemotePlace:
    """What fsspec reaches. `create` is a conditional put: S3 has had If-None-Match since 2024, s3fs since 2024.10."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        scheme = url.partition(":")[0]
        try:
            import fsspec
        except ImportError as error:
            raise MissingExtra("fsspec", f"'{url}'", "'cat2dog[store]'") from error
        try:
            # Listings must show what others wrote a moment ago.
            self._system, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            raise MissingExtra(f"fsspec's for {scheme}", f"'{url}'", "'cat2dog[store]' (s3://), or it") from error
        except ValueError as error:
            raise InputError(f"'{url}' is no URL that fsspec knows: {_line(error)}") from error
        self._root = root.rstrip("/")

    # A client has a thread and an event loop of its own; another process makes its own.
    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePlace, (self.url,)

    def read(self, name: str, most: int) -> bytes:
        """The object's bytes, at most `most` of them (InputError for a longer one)."""
        with self._told(name):
            data = self._system.cat_file(self._path(name), start=0, end=most + 1)
        return _bounded(f"{self.url}/{name}", data, most)

    def write(self, name: str, data: bytes) -> None:
        """Put the object."""
        with self._told(name, absent="there is no such bucket"):
            self._system.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Put the object if there is none; the store decides between two who try."""
        try:
            with self._told(name, absent="there is no such bucket"):
                self._system.pipe_file(self._path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def download(self, name: str, target: Path) -> None:
        """Copy the object to `target`."""
        with self._told(name):
            self._system.get_file(self._path(name), str(target))

    def upload(self, source: Path, name: str) -> None:
        """Put the object from a file, in parts where it is large; seen when the last part is in."""
        with self._told(name, absent="there is no such bucket"):
            self._system.put_file(str(source), self._path(name))

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        with contextlib.suppress(FileNotFoundError), self._told(name):
            self._system.rm_file(self._path(name))

    def entry(self, name: str) -> Entry:
        """Raises FileNotFoundError where there is no such object."""
        with self._told(name):
            return self._entry(self._system.info(self._path(name), refresh=True))

    def entries(self, folder: str = "", deep: bool = True) -> Iterator[Entry]:
        """The objects below `folder`."""
        depth = None if deep else 1
        with contextlib.suppress(FileNotFoundError), self._told(folder):
            found = self._system.find(f"{self._root}/{folder}".rstrip("/"), maxdepth=depth, detail=True)
            for entry in map(self._entry, found.values()):
                if not entry.name.rpartition("/")[2].startswith("."):
                    yield entry

    def _entry(self, info: dict[str, Any]) -> Entry:
        name = info["name"][len(self._root) :].lstrip("/")
        when = info.get("LastModified") or info.get("mtime") or info.get("created") or time.time()
        return Entry(name, int(info["size"]), when if isinstance(when, (int, float)) else when.timestamp())

    def _path(self, name: str) -> str:
        return f"{self._root}/{_checked(name)}"

    @contextlib.contextmanager
    def _told(self, name: str, absent: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if not absent:
                raise
            raise ToolchainError(f"{self.url}/{name}: {absent}") from error
        except (FileExistsError, GeneratorExit, ToolchainError):
            raise
        except Exception as error:  # each store's client raises its own
            if "PreconditionFailed" in repr(error) or "ConditionalRequestConflict" in repr(error):
                raise FileExistsError(name) from error
            raise ToolchainError(f"{self.url}/{name}: {_line(error)}") from error


def _checked(name: str) -> str:
    parts = name.split("/")
    if not all(parts) or any(part in (".", "..") for part in parts) or "\\" in name:
        raise InputError(f"'{name}' is no name of a file in a place; expected parts with single slashes between")
    return name


def _bounded(where: str, data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise InputError(f"{where} is larger than the {most} bytes expected at most")
    return data


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
