"""Accept and Content-Type."""

import pytest

from sampan.api.status import ApiError
from sampan.server.negotiate import Form, body_type, form_of

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("accept", "listing", "form"),
    [
        ("", False, Form()),
        ("*/*", False, Form()),
        ("application/vnd.kubernetes.protobuf, application/json", False, Form()),
        ("text/html, */*;q=0.1", False, Form()),
        ("application/json;q=0.1, application/yaml", False, Form(media="application/yaml")),
        (f"{TABLE},application/json", True, Form("table")),
        (PARTIAL, False, Form("partial")),
        (PARTIAL_LIST, True, Form("partial")),
        ("application/json;as=Gizmo;v=v1;g=meta.k8s.io, application/json", False, Form()),
    ],
)
def test_the_first_form_we_have_is_taken(accept, listing, form):
    assert form_of({"accept": accept}, listing=listing) == form


@pytest.mark.parametrize(
    ("accept", "listing", "message"),
    [
        ("text/html", False, "406: Not Acceptable"),
        (
            TABLE.replace("v=v1", "v=v7"),
            True,
            "only the following media types are accepted: application/json, ",
        ),
        (PARTIAL, True, "only the following media types are accepted: application/json, "),
    ],
)
def test_what_we_lack_is_406(accept, listing, message):
    with pytest.raises(ApiError) as refused:
        form_of({"accept": accept}, listing=listing)
    assert refused.value.code == 406
    assert refused.value.message.startswith(message)


PROTOBUF = "application/vnd.kubernetes.protobuf"


@pytest.mark.parametrize(
    "accept", [f"{PROTOBUF},application/json", f"{PROTOBUF}, */*", PARTIAL.replace("json", PROTOBUF[12:])]
)
def test_custom_objects_are_json_for_those_who_take_it(accept):
    assert form_of({"accept": accept}, custom=True).media == "application/json"


def test_nobody_gets_custom_objects_in_protobuf():
    assert form_of({"accept": PROTOBUF}) == Form()  # client-go looks at what it gets
    with pytest.raises(ApiError) as refused:
        form_of({"accept": PROTOBUF}, custom=True)
    assert refused.value.code == 406
    assert (
        refused.value.message
        == "only the following media types are accepted: application/json, application/yaml"
    )


def test_an_unknown_body_type_is_415():
    assert body_type({"content-type": "application/json; charset=utf-8"}) == "application/json"
    with pytest.raises(ApiError) as refused:
        body_type({"content-type": "text/plain"})
    assert refused.value.code == 415
