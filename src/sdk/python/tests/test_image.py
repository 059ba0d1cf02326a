import pytest

from oci_node import Image, OciNodeError

ECR = "111111111111.dkr.ecr.us-east-1.amazonaws.com/my-image:latest"
KEYS = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"]


def test_names_are_read_from_the_environment_when_the_image_is_built() -> None:
    image = Image(base_image=ECR, base_image_creds=KEYS)
    env = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1", "OTHER": "c"}
    assert image.build_request(env) == {"reference": ECR, "baseImageCreds": {key: env[key] for key in KEYS}}


@pytest.mark.parametrize("env", [{}, {"AWS_SECRET_ACCESS_KEY": ""}])
def test_a_variable_that_is_missing_or_empty_is_named(env: dict) -> None:
    env = {"AWS_ACCESS_KEY_ID": "planted", "AWS_REGION": "us-east-1", **env}
    with pytest.raises(OciNodeError) as caught:
        Image(base_image=ECR, base_image_creds=KEYS).build_request(env)
    assert (
        caught.value.message
        == "base_image_creds names AWS_SECRET_ACCESS_KEY, which is not set in the environment"
    )
    assert caught.value.next == "Set AWS_SECRET_ACCESS_KEY, or leave it out of base_image_creds."
    assert "planted" not in str(caught.value)


def test_a_value_where_a_name_is_asked_for_is_not_shown() -> None:
    with pytest.raises(OciNodeError) as caught:
        Image("a/b", ["USERNAME", "pl4nted/secret"]).build_request({"USERNAME": "u"})
    assert "pl4nted" not in str(caught.value)


def test_a_mapping_is_used_as_it_is_given() -> None:
    image = Image.from_registry("ghcr.io/me/app:1", creds={"GITHUB_USERNAME": "me", "GITHUB_TOKEN": "t"})
    assert image.build_request({})["baseImageCreds"] == {"GITHUB_USERNAME": "me", "GITHUB_TOKEN": "t"}
    assert "t" not in repr(image).replace("Image", "").replace("ghcr.io/me/app:1", "")


def test_googles_variable_is_a_path_on_this_machine(tmp_path) -> None:
    key = tmp_path / "key.json"
    key.write_text('{"type": "service_account"}')
    name = "GOOGLE_APPLICATION_CREDENTIALS"
    image = Image("eu.gcr.io/p/app", [name])
    assert image.build_request({name: str(key)})["baseImageCreds"][name] == '{"type": "service_account"}'
    with pytest.raises(OciNodeError, match="names a file that cannot be read"):
        image.build_request({name: str(tmp_path / "absent")})


def test_what_cannot_be_meant_is_refused_at_once() -> None:
    for wrong in ["USERNAME", [1], {"USERNAME": ""}, {"USERNAME": 1}]:
        with pytest.raises(OciNodeError):
            Image("a/b", wrong)  # type: ignore[arg-type]
    with pytest.raises(OciNodeError):
        Image("")
    with pytest.raises(OciNodeError, match="beside base_image_creds"):
        Image("a/b", ["USERNAME"], secret="s")


def test_a_public_image_and_one_by_its_id() -> None:
    assert Image("alpine").build_request({}) == {"reference": "alpine"}
    assert Image("a/b", secret="s", platform="linux/amd64").build_request({}) == {
        "reference": "a/b", "secretName": "s", "platform": "linux/amd64",
    }  # fmt: skip
    assert Image.from_id("img-1").id == "img-1"
