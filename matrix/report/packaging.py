"""What ships: an image's size and where it comes from, what its imports cost, and by which licences it comes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from matrix.bundle import Evidence, Measured
from matrix.cell import Cell
from matrix.job import Image
from matrix.report.material import cells_of
from matrix.report.tables import Entry, Numbers, Table, name_of, rows_of, titles
from matrix.sample import Inventory
from matrix.sbom import licence_of
from matrix.units import DASH, show
from matrix.verdict import Judged

_LARGEST: Final = 12
_NAMED: Final = 4
_DAY_S: Final = 86_400
_COLUMNS: Final = (
    "image_bytes",
    "compressed_bytes",
    "layers",
    "packages",
    "cold_build_s",
    "warm_build_s",
    "base_age_s",
)
_UNKNOWN: Final = "unknown"


def image_cell(evidence: Evidence) -> Cell | None:
    """The cell that measured the image; None where there was none to measure."""
    return next((cell for cell in cells_of(evidence, "packaging") if cell.variant == "image"), None)


def measured_image(evidence: Evidence) -> Measured | None:
    """What the first launch that measured the image found."""
    cell = image_cell(evidence)
    found = evidence.launches_of(cell.id) if cell else {}
    return found[min(found)] if found else None


def lead(evidence: Evidence) -> str:
    """What the section is about: an image by name, or the environment that ran without one."""
    image = evidence.bundle.image
    if image is None:
        return (
            "It ran natively, without an image: only its imports were timed, and nothing is known of what would ship."
        )
    return f"Image {image.name} ({short(image.id)}) for {image.platform}, on {image.base}."


def short(identifier: str) -> str:
    """The first twelve digits of an image's digest."""
    return identifier.removeprefix("sha256:")[:12]


def tables(evidence: Evidence, numbers: Numbers) -> tuple[Table, ...]:
    """All that is known: of the image where there is one, of the imports, and of the licences where they were listed."""
    image, cell, held = evidence.bundle.image, image_cell(evidence), evidence.inventory
    return (
        *((_image(evidence, numbers, image, cell), _layers(evidence, image)) if image and cell else ()),
        *((_distributions(held),) if held else ()),
        *_imports(evidence, numbers),
        *((_licences(held, evidence.name),) if held else ()),
    )


def _image(evidence: Evidence, numbers: Numbers, image: Image, cell: Cell) -> Table:
    """The image's size, parts, build times and age."""
    (row,) = rows_of(evidence, numbers, [cell], lambda _: [Entry(image.name)], _COLUMNS)
    told = (_reworded(entry, numbers.get((cell.id, name))) for name, entry in zip(_COLUMNS, row[1:], strict=True))
    text = (
        "Sizes are of all layers, as they lie on a disk and as a pull moves them (gzip). Packages are Python distributions "
        "and Debian packages. A cold build installs the dependencies, a warm one finds them in the builder's cache; each "
        "is one build, the newest. The base's age is that of the image below the first layer."
    )
    return Table("image", "The image", text, ("Image", *titles(_COLUMNS)), ((row[0], *told),))


def _reworded(entry: Entry, judged: Judged | None) -> Entry:
    """Counts as whole numbers and an age in days: neither is read in significant digits."""
    value = judged.finding.value if judged else None
    if judged is None or value is None:
        return entry
    if judged.finding.metric == "base_age_s":
        return replace(entry, text=f"{value / _DAY_S:.0f} days", note="")
    return replace(entry, text=f"{value:.0f}", note="") if not judged.finding.unit else entry


def _layers(evidence: Evidence, image: Image) -> Table:
    """What each layer adds."""
    made = [(layer.made_by, layer.bytes, layer.compressed_bytes) for layer in image.layers]
    whole = measured_image(evidence)
    if whole and "bytes:model" in whole.evidence.facts:
        facts = whole.evidence.facts
        packed = facts["compressed_bytes"] - image.compressed_bytes
        made.append(("the function's model, baked in by the launch", round(facts["bytes:model"]), round(packed)))
    rows = tuple(
        (Entry(name), Entry(show(plain, "bytes")), Entry(show(packed, "bytes"))) for name, plain, packed in made
    )
    return Table("layers", "Layers", "The base first.", ("Made by", "Bytes", "Compressed"), rows)


def _distributions(inventory: Inventory) -> Table:
    """The largest Python distributions."""
    held = sorted(inventory.python, key=lambda one: (-one.bytes, one.name))
    rows = tuple(
        (Entry(one.name), Entry(one.version), Entry(show(one.bytes, "bytes")), Entry(licence_of(one) or _UNKNOWN))
        for one in held[:_LARGEST]
    )
    text = f"The {len(rows)} largest of {len(held)} Python distributions, by the bytes of their files."
    head = ("Distribution", "Version", "Bytes", "Licence")
    return Table("distributions", "Largest distributions", text, head, rows)


def _imports(evidence: Evidence, numbers: Numbers) -> Iterator[Table]:
    """What importing each heavy module costs a new process."""
    cells = [cell for cell in cells_of(evidence, "packaging") if cell.variant != "image"]
    text = (
        "A new Python imports one module, by its own clock; files are in the page cache. Modules that import each other are "
        "counted in each."
    )
    rows = rows_of(
        evidence, numbers, cells, lambda c: [Entry(name_of(c).text.removeprefix("import of "))], ("import_s",)
    )
    if rows:
        yield Table("imports", "Import times", text, ("Module", *titles(("import_s",))), rows)


def _few(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _licences(inventory: Inventory, bundle: str) -> Table:
    """How many distributions come by each licence; those that name none, by name."""
    by: dict[str | None, list[str]] = defaultdict(list)
    for one in inventory.python:
        by[licence_of(one)].append(one.name)
    known = sorted((-len(names), name) for name, names in by.items() if name)
    rows = [(Entry(str(-count)), Entry(name), Entry(_few(by[name]))) for count, name in known]
    nameless = by.get(None, [])
    rows.append((Entry(str(len(nameless))), Entry(_UNKNOWN), Entry(", ".join(nameless) or DASH)))
    text = (
        "As the distributions name them: one licence may stand under two names. "
        f"The {len(inventory.debian)} Debian packages keep theirs in the image (/usr/share/doc). "
        f"Every package with its version is in sbom.cdx.json (CycloneDX 1.6) of bundle {bundle}."
    )
    return Table("licences", "Licences", text, ("Distributions", "Licence", "Which"), tuple(rows))
