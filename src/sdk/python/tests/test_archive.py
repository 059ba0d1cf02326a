import os
import tarfile
import threading
from pathlib import Path
from typing import List

import pytest

from oci_node import OciNodeError
from oci_node.archive import pack

LIMIT = 1 << 20


def names(root: Path, limit: int = LIMIT) -> List[str]:
    archive = pack(str(root), limit)
    try:
        archive._file.seek(0)
        with tarfile.open(fileobj=archive._file, mode="r:gz") as tar:
            return tar.getnames()
    finally:
        archive.close()


def digest(root: Path) -> str:
    archive = pack(str(root), LIMIT)
    archive.close()
    return archive.sha256


def write(root: Path, **files: str) -> Path:
    root.mkdir(exist_ok=True)
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def refusal(root: Path, limit: int = LIMIT) -> OciNodeError:
    with pytest.raises(OciNodeError) as caught:
        pack(str(root), limit)
    assert caught.value.next
    return caught.value


def test_equal_files_make_equal_archives_whenever_and_by_whomever(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", b="x", a__c="y"), write(tmp_path / "two", a__c="y", b="x")
    os.utime(two / "b", (1, 1))
    (two / "b").chmod(0o600)
    assert digest(one) == digest(two)
    (two / "b").chmod(0o700)
    assert digest(one) != digest(two)
    archive = pack(str(one), LIMIT)
    assert (archive.files, sum(map(len, archive.pieces(7)))) == (2, archive.size)
    archive._file.seek(0)
    with tarfile.open(fileobj=archive._file, mode="r:gz") as tar:
        members = [(m.name, m.mode, m.uid, m.gid, m.mtime, m.uname) for m in tar]
    assert members == [("a", 0o755, 0, 0, 0, ""), ("a/c", 0o644, 0, 0, 0, ""), ("b", 0o644, 0, 0, 0, "")]
    archive.close()


def test_what_is_ignored_stays_here_and_defaults_can_be_taken_back(tmp_path: Path) -> None:
    root = write(
        tmp_path / "r", app_dot_py="", _dot_env="SECRET=1", sub___dot_env_dot_local="", _dot_git__config="", data_dot_csv="",
        node_modules__x_dot_js="", keep_dot_csv="",
    )  # fmt: skip
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "app.pyc").write_text("")
    assert names(root) == ["app.py", "data.csv", "keep.csv", "sub"]
    (root / ".ocinodeignore").write_text("*.csv\n!keep.csv\n!.env\n")
    assert names(root) == [".env", "app.py", "keep.csv", "sub"]


def test_links_inside_stay_links_and_those_that_lead_out_are_refused_by_name(tmp_path: Path) -> None:
    root = write(tmp_path / "r", sub__file="x")
    (root / "link").symlink_to("sub/file")
    (root / "sub" / "up").symlink_to("../sub")
    assert names(root) == ["link", "sub", "sub/file", "sub/up"]
    for target in ["/etc/passwd", "../../outside", "..", str(root / "sub" / "file")]:
        (root / "out").symlink_to(target)
        assert "out is a symbolic link to %s, outside" % target in refusal(root).message
        (root / "out").unlink()
    # Inside by its spelling, outside by where the folder before it leads.
    (tmp_path / "away" / "deep").mkdir(parents=True)
    (root / ".ocinodeignore").write_text("/door\n")
    (root / "door").symlink_to(tmp_path / "away" / "deep")
    (root / "out").symlink_to("door/../x")
    assert "out is a symbolic link" in refusal(root).message


def test_what_is_no_file_or_cannot_be_packed_is_refused_by_name(tmp_path: Path) -> None:
    root = write(tmp_path / "r", a="")
    os.mkfifo(root / "pipe")
    assert refusal(root).message == "pipe is neither a file nor a folder"
    (root / "pipe").unlink()
    with open(os.path.join(os.fsencode(root), b"\xff"), "w"):
        pass
    assert "its name is not UTF-8" in refusal(root).message


def test_a_folder_that_is_too_large_names_its_largest_files(tmp_path: Path) -> None:
    root = write(tmp_path / "r", small="x")
    (root / "big.bin").write_bytes(os.urandom(300_000))
    told = refusal(root, 100_000)
    assert told.message.startswith(
        "the folder is too large to upload: packed it may have 97.7 KiB. The largest files are "
    )
    assert "big.bin (293.0 KiB), small (1 B)" in told.message


def test_long_and_foreign_names_are_kept(tmp_path: Path) -> None:
    name = "ü" * 60 + "/" + "n" * 200 + "/" + "f" * 100
    write(tmp_path / "r", **{name.replace("/", "__"): "x"})
    assert names(tmp_path / "r")[-1] == name


def test_a_file_that_changes_while_it_is_read_is_part_of_no_archive(tmp_path: Path) -> None:
    root = write(tmp_path / "r", log="")
    (root / "log").write_bytes(b"x" * 50_000_000)
    ended = threading.Event()

    def append() -> None:
        while not ended.is_set():
            with open(root / "log", "ab") as file:
                file.write(b"y")

    writer = threading.Thread(target=append)
    writer.start()
    try:
        assert refusal(root, 1 << 30).message == "log changed while it was read"
    finally:
        ended.set()
        writer.join()
