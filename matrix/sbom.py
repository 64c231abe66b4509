"""The bill of materials of an image, CycloneDX 1.6 as JSON: what is in it, by which licence, for tools that look for flaws.

Pure: the same inventory and image give the same bytes, so a sealed bundle has one digest. There is no time in it, because
none but the image's own would mean anything, and the serial number is derived from the content.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from matrix.canonical import digest
from matrix.job import Image
from matrix.sample import DebianPackage, Installed, Inventory

_DISTRO: Final = "debian-12"
"""Every base of the matrix (`matrix.bases`) is of this release."""

_NAMESPACE: Final = uuid5(NAMESPACE_URL, "https://github.com/distill-matrix/distill-matrix#sbom")


def licence_of(one: Installed) -> str | None:
    """The licence as the distribution names it; None where it names none (older tools wrote the word UNKNOWN)."""
    return one.licence if one.licence.upper() not in {"", "UNKNOWN"} else None


def _component(purl: PackageURL, licence: str | None = None) -> Component:
    """One package; without a licence where it told none: unknown stays unknown."""
    told = [LicenseFactory().make_from_string(licence)] if licence else []
    return Component(
        type=ComponentType.LIBRARY,
        name=purl.name,
        version=purl.version,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=told,
    )


def _python(one: Installed) -> Component:
    found = _component(PackageURL("pypi", name=one.name, version=one.version), licence_of(one))
    found.name = one.name  # as it calls itself: a package URL's is folded to lower case
    return found


def _debian(one: DebianPackage) -> Component:
    qualifiers = {"arch": one.architecture, "distro": _DISTRO}
    return _component(PackageURL("deb", "debian", one.name, one.version, qualifiers))


def _components(inventory: Inventory) -> Iterator[Component]:
    yield from map(_python, inventory.python)
    yield from map(_debian, inventory.debian)


def _serial(inventory: Inventory, image: Image | None) -> UUID:
    """A number that changes with what the document says, and with nothing else."""
    named = [image.name, image.id] if image else None
    return uuid5(_NAMESPACE, digest([inventory.model_dump(mode="json"), named]))


def render(inventory: Inventory, image: Image | None) -> str:
    """The document of what `inventory` lists, about `image`; about nothing in particular where there was none."""
    bom = Bom(components=_components(inventory), serial_number=_serial(inventory, image))
    if image:
        about = Component(type=ComponentType.CONTAINER, name=image.name, version=image.id, bom_ref=image.id)
        bom.metadata.component = about
        bom.register_dependency(about, bom.components)
    written = json.loads(JsonV1Dot6(bom).output_as_string())
    del written["metadata"]["timestamp"]  # when it was rendered, which the library cannot leave out
    return json.dumps(written, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
