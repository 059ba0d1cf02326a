import json
from pathlib import Path
from typing import Dict

import pytest

from oci_node import OciNodeError
from oci_node.context import read_context


def written(tmp_path: Path, **said: str) -> Dict[str, str]:
    file = tmp_path / "oci-node" / "context.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(said))
    file.chmod(0o600)
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def refused(env: Dict[str, str]) -> OciNodeError:
    with pytest.raises(OciNodeError) as caught:
        read_context(env)
    assert caught.value.next and "planted" not in str(caught.value)
    return caught.value


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    env = written(tmp_path, url="http://127.0.0.1:7070", token="file", ca_file="/ca.pem")
    found = read_context(env)
    assert (found.url, found.token, found.ca_file) == ("http://127.0.0.1:7070", "file", "/ca.pem")
    assert "file" not in repr(found).replace("ca_file", "")
    found = read_context(
        {**env, "OCI_NODE_URL": "https://node.example/", "OCI_NODE_TOKEN": "own", "OCI_NODE_CA_FILE": "/b"}
    )
    assert (found.url, found.token, found.ca_file) == ("https://node.example", "own", "/b")


def test_a_token_goes_to_its_own_node_and_over_no_network_in_the_clear(tmp_path: Path) -> None:
    env = written(tmp_path, url="http://0.0.0.0:7070", token="planted")
    assert read_context({**env, "OCI_NODE_URL": "http://localhost:7070"}).token == "planted"
    assert "another node" in refused({**env, "OCI_NODE_URL": "https://evil.example:7443"}).message
    assert "another node" in refused({**env, "OCI_NODE_URL": "http://127.0.0.1:7071"}).message
    for url in ["http://node.example", "http://127.0.0.1.evil.example", "http://user:x@node.example"]:
        told = refused({"XDG_CONFIG_HOME": "/nonexistent", "OCI_NODE_URL": url, "OCI_NODE_TOKEN": "planted"})
        assert "in the clear" in told.message and "user" not in told.message
    for url in ["node.example", "ftp://node.example", "https://", "http://[::1"]:
        assert (
            "is no URL"
            in refused(
                {"XDG_CONFIG_HOME": "/nonexistent", "OCI_NODE_URL": url, "OCI_NODE_TOKEN": "x"}
            ).message
        )


def test_a_file_that_is_absent_damaged_or_open_to_others_is_told(tmp_path: Path) -> None:
    assert refused({"XDG_CONFIG_HOME": str(tmp_path)}).code == "no_context"
    env = written(tmp_path, url="http://127.0.0.1:7070", token="planted")
    file = tmp_path / "oci-node" / "context.json"
    file.chmod(0o644)
    assert refused(env).next == "Run: chmod 600 %s" % file
    file.chmod(0o600)
    file.write_text("{")
    assert refused(env).code == "bad_context"
