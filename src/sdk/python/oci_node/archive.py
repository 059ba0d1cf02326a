"""A folder as an archive that is the same wherever and whenever it is made of the same files."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import tempfile
from dataclasses import dataclass
from typing import IO, Iterator, List, Tuple

from .errors import OciNodeError
from .ignore import DEFAULTS, FILE_NAME, Ignore
from .printable import format_size, printable

ENTRIES_MAX = 50_000
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Entry:
    """path: from the root, with `/`; kind: `directory`, `file` or `link`."""

    path: str
    kind: str
    size: int
    executable: bool = False
    target: str = ""


class Archive:
    """A gzip'd ustar archive in a file without a name. Close it."""

    def __init__(self, file: IO[bytes], sha256: str, size: int, files: int) -> None:
        self._file = file
        self.sha256 = sha256
        self.size = size
        self.files = files

    def pieces(self, size: int) -> Iterator[bytes]:
        self._file.seek(0)
        while True:
            piece = self._file.read(size)
            if not piece:
                return
            yield piece

    def close(self) -> None:
        self._file.close()


def pack(root: str, size_max: int) -> Archive:
    """The files of a folder that are not ignored. size_max: of the archive, in bytes.

    Raises OciNodeError for what cannot be uploaded, by name; nothing is followed out of the folder.
    """
    entries = scan(root)
    file = tempfile.TemporaryFile()
    try:
        limited = _Limited(file, size_max)
        with gzip.GzipFile(filename="", mode="wb", fileobj=limited, mtime=0) as packed:
            with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for entry in entries:
                    _add(tar, root, entry)
        files = sum(entry.kind == "file" for entry in entries)
        return Archive(file, limited.hash.hexdigest(), limited.size, files)
    except _TooLarge:
        file.close()
        raise too_large(entries, size_max) from None
    except BaseException:
        file.close()
        raise


def too_large(entries: List[Entry], size_max: int) -> OciNodeError:
    largest = sorted(entries, key=lambda entry: -entry.size)[:5]
    named = ", ".join("%s (%s)" % (printable(entry.path, 200), format_size(entry.size)) for entry in largest)
    return OciNodeError(
        "the folder is too large to upload: packed it may have %s. The largest files are %s"
        % (format_size(size_max), named),
        "code_too_large",
        "Name what the handler does not need in %s, or put it into the image." % FILE_NAME,
    )


class _TooLarge(Exception):
    pass


class _Limited(io.RawIOBase):
    """Writes on, counts and hashes."""

    def __init__(self, file: IO[bytes], size_max: int) -> None:
        super().__init__()
        self._out = file
        self._size_max = size_max
        self.size = 0
        self.hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.size += len(data)
        if self.size > self._size_max:
            raise _TooLarge()
        self.hash.update(data)
        self._out.write(data)
        return len(data)


def scan(root: str) -> List[Entry]:
    """What there is to upload, sorted. Raises OciNodeError."""
    root = os.path.realpath(root)
    ignore = Ignore(DEFAULTS + _own_patterns(root))
    entries: List[Entry] = []
    folders: List[str] = [""]
    while folders:
        folder = folders.pop()
        for name, status in _listed(root, folder):
            path = folder + name
            is_dir = stat.S_ISDIR(status.st_mode)
            if ignore.matches(path, is_dir):
                continue
            if len(entries) >= ENTRIES_MAX:
                raise OciNodeError(
                    "the folder %s has more than %d files" % (root, ENTRIES_MAX),
                    "code_too_large",
                    "Name what the handler does not need in %s, or give a smaller folder by --root."
                    % FILE_NAME,
                )
            entries.append(_entry(root, path, status))
            if is_dir:
                folders.append(path + "/")
    return sorted(entries, key=lambda entry: entry.path.encode("utf-8"))


def _own_patterns(root: str) -> str:
    try:
        with open(os.path.join(root, FILE_NAME), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise OciNodeError("%s cannot be read (%s)" % (FILE_NAME, error), "usage") from None


def _listed(root: str, folder: str) -> List[Tuple[str, os.stat_result]]:
    try:
        with os.scandir(os.path.join(root, folder)) as found:
            return [(entry.name, entry.stat(follow_symlinks=False)) for entry in found]
    except OSError as error:
        raise OciNodeError(
            "%s cannot be read (%s)" % (printable(folder or root, 200), error.strerror),
            "unreadable",
            "Check its permissions, or name it in %s." % FILE_NAME,
        ) from None


def _entry(root: str, path: str, status: os.stat_result) -> Entry:
    shown = printable(path, 200)
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        raise OciNodeError(
            "%s: its name is not UTF-8" % shown, "unpackable", "Rename it, or name it in %s." % FILE_NAME
        ) from None
    if len(encoded) > 1000:
        raise OciNodeError("%s: its path is too long" % shown, "unpackable", "Name it in %s." % FILE_NAME)
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        return Entry(path, "directory", 0)
    if stat.S_ISREG(mode):
        return Entry(path, "file", status.st_size, bool(mode & 0o111))
    if stat.S_ISLNK(mode):
        return Entry(path, "link", 0, target=_target(root, path, shown))
    raise OciNodeError(
        "%s is neither a file nor a folder" % shown,
        "unpackable",
        "Name it in %s: it stays here then." % FILE_NAME,
    )


def _target(root: str, path: str, shown: str) -> str:
    """Where a symbolic link leads, which must be inside."""
    full = os.path.join(root, path)
    target = os.readlink(full)
    spelled = os.path.normpath(os.path.join(os.path.dirname(path), target))
    real = os.path.realpath(full)
    outside = (
        spelled == ".." or spelled.startswith("../") or not (real + "/").startswith(root.rstrip("/") + "/")
    )
    if os.path.isabs(target) or outside:
        raise OciNodeError(
            "%s is a symbolic link to %s, outside of the folder" % (shown, printable(target, 200)),
            "unpackable",
            "Put the file itself there, or name the link in %s." % FILE_NAME,
        )
    return target


def _add(tar: tarfile.TarFile, root: str, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.path)
    if entry.kind == "directory":
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
    elif entry.kind == "link":
        info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, entry.target
        tar.addfile(info)
    else:
        info.mode = 0o755 if entry.executable else 0o644
        _add_file(tar, os.path.join(root, entry.path), info)


def _add_file(tar: tarfile.TarFile, path: str, info: tarfile.TarInfo) -> None:
    """What is read is what was looked at: a file that becomes another meanwhile is no part of any version."""
    shown = printable(info.name, 200)
    try:
        # Neither a link nor a pipe that has taken its place.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise OciNodeError(
            "%s cannot be read (%s)" % (shown, error.strerror),
            "unreadable",
            "Check its permissions, or name it in %s." % FILE_NAME,
        ) from None
    with os.fdopen(descriptor, "rb", buffering=READ_BYTES) as file:
        before = os.fstat(descriptor)
        info.size = before.st_size
        try:
            tar.addfile(info, file)
            changed = file.read(1) != b""
        except OSError as error:
            if isinstance(error, OciNodeError):
                raise
            changed = True
        after = os.fstat(descriptor)
        if changed or not stat.S_ISREG(before.st_mode) or before.st_mtime_ns != after.st_mtime_ns:
            raise OciNodeError(
                "%s changed while it was read" % shown, "changed", "Try again once nothing writes to it."
            )
