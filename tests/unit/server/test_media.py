"""Accept headers and request bodies, as kubectl and others write them."""

from __future__ import annotations

import pytest

from tandem.errors import BadRequest, NotAcceptable
from tandem.server.media import JSON, YAML, Form, accepts, decode, negotiate, preferred

KUBECTL_GET = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,"
    "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
KUBECTL_METADATA = (
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,"
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Form(JSON)),
        ("*/*", Form(JSON)),
        ("application/json", Form(JSON)),
        ("application/yaml", Form(YAML)),
        ("application/vnd.kubernetes.protobuf, application/json", Form(JSON)),
        ("application/json;q=0.1, application/yaml", Form(YAML)),
        (KUBECTL_GET, Form(JSON, "Table", "v1")),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Form(JSON, "Table", "v1beta1")),
        (KUBECTL_METADATA, Form(JSON, "PartialObjectMetadata", "v1")),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Form(JSON)),
        ("application/json, */*", Form(JSON)),
    ],
)
def test_the_first_form_we_can_write_is_chosen(accept: str, form: Form) -> None:
    assert negotiate(accept) == form


@pytest.mark.parametrize(
    "accept",
    ["text/html", "application/vnd.kubernetes.protobuf", "application/json;q=0", "application/xml"],
)
def test_a_form_we_cannot_write_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/json"):
        negotiate(accept)


def test_only_plain_json_is_sent_as_it_is_stored() -> None:
    assert negotiate("application/json").plain
    assert not negotiate("application/yaml").plain
    assert not negotiate(KUBECTL_GET).plain


def test_parameters_of_an_accepted_type_are_told_apart() -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    assert accepts(accept, JSON, g="apidiscovery.k8s.io", v="v2")
    assert not accepts(accept, JSON, g="apidiscovery.k8s.io", v="v2beta1")


def test_preference_follows_the_client() -> None:
    assert preferred("application/a, application/b;q=0.5", ["application/b"]) == "application/b"
    assert preferred("application/c", ["application/b"]) is None


def test_yaml_times_stay_the_strings_they_were() -> None:
    assert decode(b"at: 2026-01-02T03:04:05Z\nday: 2026-01-02", YAML) == {
        "at": "2026-01-02T03:04:05Z",
        "day": "2026-01-02",
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"a: [", "not valid YAML"),
        (b"1: x", "must be a string"),
        (b"a: .nan", "nan"),
        (b"a: !!binary aGk=", "JSON"),
        (b"a: !!python/object:os.system {}", "could not determine a constructor"),
        (b"a: &x [*x]", "nested too deeply"),
    ],
)
def test_yaml_that_json_cannot_say_is_refused(text: bytes, complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint):
        decode(text, YAML)


def test_nested_aliases_do_not_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 12):
        aliases = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} [{aliases}]")
    with pytest.raises(BadRequest, match="aliases"):
        decode("\n".join(lines).encode(), YAML)


@pytest.mark.parametrize("media", [JSON, YAML])
def test_what_is_nested_without_end_is_refused(media: str) -> None:
    with pytest.raises(BadRequest, match=r"nested too deeply|not valid"):
        decode(b'{"a":' * 5000 + b"1" + b"}" * 5000, media)


def test_bad_json_is_told_where() -> None:
    with pytest.raises(BadRequest, match="byte 5"):
        decode(b'{"a":}', JSON)
