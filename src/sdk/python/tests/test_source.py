import os
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from oci_node.source import locate

HEAD = "from oci_node import Image, endpoint\nimage = Image('registry.example/app')\n"
HANDLER = HEAD + "@endpoint(image=image)\ndef handler(): return 1\n"


def cli(cwd: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "XDG_CONFIG_HOME": str(cwd)}
    return subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "oci-node-py"), *args],
        cwd=str(cwd),
        env=env,
        capture_output=True,
        text=True,
    )


def test_a_file_in_a_package_is_uploaded_with_the_package(tmp_path: Path) -> None:
    (tmp_path / "pkg" / "sub").mkdir(parents=True)
    for folder in ["pkg", "pkg/sub"]:
        (tmp_path / folder / "__init__.py").write_text("")
    file = tmp_path / "pkg" / "sub" / "app.py"
    file.write_text("")
    root = os.path.realpath(tmp_path)
    assert locate(str(file), None) == (root, "pkg.sub.app")
    assert locate(str(file.parent / "__init__.py"), None) == (root, "pkg.sub")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "app.py").write_text("")
    assert locate(str(tmp_path / "plain" / "app.py"), None) == (root + "/plain", "app")
    assert locate(str(tmp_path / "plain" / "app.py"), str(tmp_path)) == (root, "plain.app")


@pytest.mark.parametrize(
    ("files", "args", "code", "told"),
    [
        ({}, ["deploy", "app.py:handler"], 2, "there is no file app.py"),
        ({"app.py": HANDLER}, ["deploy", "app.py"], 2, "app.py does not name a function"),
        ({"app.py": HANDLER}, ["deploy", "app.py:other"], 2, "there is no other in app.py\n  It has handler."),
        ({"app.py": "def handler(): ..."}, ["deploy", "app.py:handler"], 2, "handler in app.py is no endpoint"),
        ({"my-app.py": HANDLER}, ["deploy", "my-app.py:handler"], 2, "my-app.py is no file that Python could import"),
        ({"json.py": HANDLER}, ["deploy", "json.py:handler"], 2, "Python has another module json than json.py"),
        ({"app.py": "import absent_thing\n"}, ["deploy", "app.py:handler"], 1, "No module named 'absent_thing'"),
        ({"app.py": HANDLER}, ["deploy", "app.py:handler", "--root", "x"], 2, "x is no folder"),
        ({"app.py": HANDLER}, ["deploy", "app.py:handler", "--name", "A"], 2, "'A' is no name of an endpoint"),
        ({"app.py": HANDLER}, ["deploy", "app.py:handler"], 1, "no node is known"),
        ({"app.py": HANDLER.replace("app')", "app', ['USERNAME'])")}, ["deploy", "app.py:handler"], 1, "USERNAME, which is not"),
        ({}, ["call", "x", "[]"], 2, "the arguments are no JSON object"),
        ({}, [], 2, "required: COMMAND"),
    ],
)  # fmt: skip
def test_wrong_usage_and_failures_are_told_without_a_trace_of_ours(
    tmp_path: Path, files: dict, args: List[str], code: int, told: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    result = cli(tmp_path, *args)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.startswith("oci-node-py: ") and told in result.stderr
    assert "oci_node/" not in result.stderr and "importlib" not in result.stderr
