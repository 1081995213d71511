"""Addresses of archives."""

from __future__ import annotations

import pytest

from segmed.archive.pacs.address import delivery_at, open_address, source_at
from segmed.archive.pacs.dicomweb import DicomWeb, DicomWebSource, StowDelivery
from segmed.archive.pacs.dimse import Dimse, DimseSource, StoreDelivery
from segmed.archive.pacs.remote import Query
from segmed.errors import UsageError


def test_dicomweb_address_names_a_service_and_takes_its_password_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEGMED_DICOMWEB_PASSWORD", "hidden")
    service = open_address("dicomweb://ann@pacs:8042/dicom-web/")
    assert isinstance(service, DicomWeb)
    assert (service.url, service.user) == ("http://pacs:8042/dicom-web", "ann")
    assert service.password == "hidden"
    assert "hidden" not in repr(service)


def test_dimse_address_names_both_titles() -> None:
    node = open_address("dimse://PACS@host:11112?calling=NIGHT")
    assert isinstance(node, Dimse)
    assert (node.host, node.port, node.called, node.calling) == ("host", 11112, "PACS", "NIGHT")


def test_dimse_address_may_ask_for_c_move_to_a_port_here() -> None:
    assert open_address("dimse://PACS@host").listen is None
    assert open_address("dimse://PACS@host?move=11112").listen == ("0.0.0.0", 11112)
    assert open_address("dimse://PACS@host?move=10.0.0.2:104").listen == ("10.0.0.2", 104)


def test_source_and_delivery_are_of_the_address_kind() -> None:
    assert isinstance(source_at("dicomwebs://h/x", query=Query()), DicomWebSource)
    assert isinstance(source_at("dimse://P@h", query=Query()), DimseSource)
    assert isinstance(delivery_at("dicomweb://h"), StowDelivery)
    assert isinstance(delivery_at("dimse://P@h"), StoreDelivery)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ftp://host", "unknown kind of archive 'ftp'"),
        ("dicomweb://u:secret@host", "SEGMED_DICOMWEB_PASSWORD"),
        ("dimse://host:104", "names no AE title"),
        ("dicomweb:///x", "names no host"),
        ("dimse://P@host?move=here", "write move=PORT"),
        ("dimse://P@host?moves=104", "calling, move"),
    ],
)
def test_useless_addresses_are_refused_with_what_would_do(address: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        open_address(address)
    assert "secret" not in str(caught.value)
