"""A bill of materials names every package with its licence, says nothing that it does not know, and is the same twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cyclonedx.exception import MissingOptionalDependencyException
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from matrix.job import Image
from matrix.sbom import render
from tests.making import HELD, IMAGE


def written() -> dict[str, Any]:
    """The document of the inventory by hand."""
    found: dict[str, Any] = json.loads(render(HELD, IMAGE))
    return found


def components() -> dict[str, dict[str, Any]]:
    """Its components by name."""
    return {one["name"]: one for one in written()["components"]}


def test_it_is_about_the_image_which_holds_every_package() -> None:
    """A container by the digest of its configuration; its dependencies are all components, each there once."""
    found = written()
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    about = found["metadata"]["component"]
    assert (about["type"], about["name"], about["version"]) == ("container", IMAGE.name, IMAGE.id)
    references = [one["bom-ref"] for one in found["components"]]
    assert len(references) == len(set(references)) == len(HELD.python) + len(HELD.debian)
    (depends,) = [one["dependsOn"] for one in found["dependencies"] if one["ref"] == about["bom-ref"]]
    assert sorted(depends) == sorted(references)


def test_packages_have_addresses_that_scanners_know() -> None:
    """Python's by its index, Debian's by architecture and release; a name stays as the distribution writes it."""
    purls = {name: one["purl"] for name, one in components().items()}
    assert purls["torch"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert purls["Small_One"] == "pkg:pypi/small-one@1.0"
    assert purls["libc6"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64&distro=debian-12"


def test_a_licence_is_an_expression_a_name_or_unknown() -> None:
    """SPDX where it is one; words of one's own as a name; neither nothing nor UNKNOWN becomes a licence."""
    found = components()
    assert found["numpy"]["licenses"] == [{"expression": "BSD-3-Clause AND MIT"}]
    assert found["torch"]["licenses"] == [{"license": {"name": "BSD License"}}]
    assert {name for name, one in found.items() if "licenses" not in one} == {"old", "Small_One", "libc6"}


def test_the_same_inventory_gives_the_same_bytes_and_another_one_another_number() -> None:
    """In any order of its packages, at any time, however long the build took; the serial number is of the content."""
    first = render(HELD, IMAGE)
    assert render(HELD, IMAGE.model_copy(update={"warm_build_s": 3.0})) == first
    assert "timestamp" not in first
    other = render(HELD.model_copy(update={"debian": ()}), IMAGE)
    assert json.loads(other)["serialNumber"] != written()["serialNumber"]


def test_without_an_image_it_is_about_nothing_in_particular() -> None:
    """The packages are listed all the same."""
    found = json.loads(render(HELD, None))
    assert "component" not in found["metadata"]
    assert len(found["components"]) == 5


@pytest.mark.parametrize("image", [IMAGE, None], ids=["image", "none"])
def test_it_keeps_the_schema_of_cyclonedx(image: Image | None) -> None:
    """The library's own copy of the schema, read strictly."""
    try:
        fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(render(HELD, image))
    except MissingOptionalDependencyException as error:
        pytest.skip(str(error))
    assert fault is None
