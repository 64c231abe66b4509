"""Who vouches for the evidence: chains of signatures, what is missing from them, what was withdrawn, and what was waived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from matrix.bundle import Evidence
from matrix.gates import idle
from matrix.provenance import Granted, Signer, Withdrawn
from matrix.report.material import Material
from matrix.report.tables import Entry, Table
from matrix.units import DASH
from matrix.validity import withdrawals

_KEY = 12
"""Characters of a key's identifier, or of a digest, that are enough for people."""


def by(signers: Sequence[Signer]) -> str:
    """Signers by role and key."""
    return " and ".join(map(str, signers))


def unaccepted(material: Material, evidence: Evidence) -> str:
    """Why the policy does not accept a bundle that somebody signed; nothing where it does."""
    asked, said = material.policy.signatures.of(evidence.bundle.target), material.ledger.vouched.get(evidence.name)
    if said is None or (asked and asked.accepts(said.signers)):
        return ""
    return f"Not accepted: signed by {', '.join(one.role for one in said.signers)}, the policy asks for {asked or 'nobody'}."


def signed(material: Material, evidence: Evidence) -> Entry:
    """Who signed a bundle, as which statement of whose chain; or why nobody vouches for it."""
    said = material.ledger.vouched.get(evidence.name)
    if said is None:
        return Entry("nobody who is trusted", material.ledger.refused.get(evidence.name, "nobody signed it"))
    roles = " and ".join(signer.role for signer in said.signers)
    keys = ", ".join(signer.key[:_KEY] for signer in said.signers)
    place = f"key {keys}, number {said.attestation.serial}"
    refused = unaccepted(material, evidence)
    return Entry(roles, f"{place}. {refused}" if refused else place)


def revoked(material: Material, name: str) -> str:
    """Why a bundle was withdrawn; nothing where it stands."""
    reason = withdrawals(material.ledger, material.policy).get(name)
    return reason.number if reason else ""


def faults(material: Material) -> Table:
    """Why there is no verdict: each fault of the evidence as a whole."""
    lead = (
        "Evidence that was changed or taken away could say anything: while one of these holds, no answer below counts."
    )
    rows = tuple((Entry("", mark="invalid"), Entry(fault)) for fault in material.verdict.invalid)
    return Table("faults", "What does not hold", lead, ("State", "Fault"), rows)


def _roles(material: Material) -> dict[str, str]:
    """The role of each key that signed something which is still here."""
    ledger = material.ledger
    several = (*(one.signers for one in ledger.vouched.values()), *(one.signers for one in ledger.withdrawn))
    return {signer.key: signer.role for signers in several for signer in signers}


def _places(material: Material) -> list[str]:
    """The chain of each statement that is here and as it was signed."""
    ledger = material.ledger
    bundles = [one.attestation.chain for one in ledger.vouched.values()]
    return [*bundles, *(one.revocation.chain for one in ledger.withdrawn)]


def chains(material: Material) -> Table:
    """A row a key: how many statements it signed, and the digest of the last."""
    roles, held = _roles(material), Counter(_places(material))
    rows = []
    for key, head in material.ledger.heads.items():
        known = len(material.ledger.digests[key])
        missing = f"{known - held[key]} gone or changed" if known > held[key] else ""
        role = Entry(roles.get(key, DASH))
        rows.append((Entry(key[:_KEY]), role, Entry(str(known), missing), Entry(head.sha256[:_KEY])))
    lead = (
        "Each key signs its statements in a chain, each with the digest of the one before, so that a bundle or a revocation "
        "that disappears is missed. Compare the head with a sign-off's: only what saw the end of a chain can tell that it "
        "was cut off."
    )
    return Table("chains", "Chains", lead, ("Key", "Role", "Statements", "Head"), tuple(rows))


def _revocation(material: Material, one: Withdrawn) -> tuple[Entry, ...]:
    asked = material.policy.signatures.revocation
    counts = "" if asked.accepts(one.signers) else f"counts for nothing: the policy asks for {asked}"
    said = one.revocation
    state = Entry("", mark="revoked") if not counts else Entry(counts)
    return Entry(said.bundle), state, Entry(said.why), Entry(by(one.signers)), Entry(said.created[:10])


def revocations(material: Material) -> Table:
    """Every signed revocation, those that count for nothing too."""
    rows = tuple(_revocation(material, one) for one in material.ledger.withdrawn)
    head = ("Bundle", "State", "Why", "Signed by", "On")
    return Table("revocations", "Revocations", "What a revoked bundle says counts neither for nor against.", head, rows)


def _waiver(material: Material, granted: Granted) -> tuple[Entry, ...]:
    waiver = granted.waiver
    why_not = idle(granted, material.policy, material.case.today)
    used = sum(result.waived_by == waiver.name for result in material.verdict.results)
    return (
        Entry(waiver.name),
        Entry(f"gate {waiver.gate}", f"target {waiver.target}, cell {waiver.cell}"),
        Entry(f"counts for nothing: {why_not}" if why_not else f"passes over {used} of the answers"),
        Entry(waiver.why),
        Entry(by(granted.signers)),
        Entry(f"{waiver.created[:10]} to {waiver.expires[:10]}"),
    )


def waivers(material: Material) -> Table:
    """Every signed waiver, those that count for nothing too."""
    rows = tuple(_waiver(material, one) for one in sorted(material.ledger.granted, key=lambda one: one.waiver.name))
    head = ("Waiver", "Covers", "Today", "Why", "Signed by", "From, to")
    return Table(
        "waivers", "Waivers", "A waiver changes no answer and no badge, and never covers invalid evidence.", head, rows
    )


def unheard(material: Material) -> Table:
    """Statements of strangers, which count for nothing; a bundle's stands with the bundle."""
    names = {one.name for one in material.evidence}
    rows = [(Entry(name), Entry(why)) for name, why in sorted(material.ledger.refused.items()) if name not in names]
    lead = "Revocations and waivers that no key signed which is trusted here."
    return Table("unheard", "Statements of strangers", lead, ("Statement", "Why it is not heard"), tuple(rows))


def tables(material: Material) -> tuple[Table, ...]:
    """The ledger's tables; those of which there is nothing are left out."""
    found = (chains(material), revocations(material), waivers(material), unheard(material))
    return tuple(table for table in found if table.rows)
