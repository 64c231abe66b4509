"""A verdict as JUnit XML, so that CI shows each requirement. A missing cell is a failure and never skipped.

A waived requirement is no failure; its answer, its waiver and its reason are what the case printed.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from matrix.verdict import GateResult, Verdict


def _case(suite: Element, result: GateResult) -> None:
    case = SubElement(
        suite, "testcase", classname=f"{result.gate}.{result.target}", name=f"{result.cell} {result.metric}"
    )
    if result.waived_by:
        SubElement(case, "system-out").text = f"{result.answer}, waived by {result.waived_by}: {result.why}"
    elif result.answer == "fail":
        SubElement(case, "failure", message=result.why)
    elif result.answer == "undecided":
        SubElement(case, "error", message=result.why)


def render(verdict: Verdict) -> str:
    """The verdict as JUnit XML text; an empty policy and invalid evidence are failing cases of their own."""
    answers = [result.answer for result in verdict.results if result.waived_by is None]
    empty = not verdict.results
    failures = answers.count("fail") + len(verdict.invalid) + empty
    errors = answers.count("undecided")
    total = len(verdict.results) + len(verdict.invalid) + empty
    suite = Element(
        "testsuite", name=verdict.policy, tests=str(total), failures=str(failures), errors=str(errors), skipped="0"
    )
    for result in verdict.results:
        _case(suite, result)
    for number, fault in enumerate(verdict.invalid, start=1):
        SubElement(
            SubElement(suite, "testcase", classname="evidence", name=f"bundle {number}"), "failure", message=fault
        )
    if empty:
        SubElement(
            SubElement(suite, "testcase", classname="policy", name="gates"), "failure", message="the policy has no gate"
        )
    indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(suite, encoding="unicode") + "\n"
