"""Where to serve: a bill and an answer for each traffic, and everything that was assumed."""

from __future__ import annotations

from collections.abc import Sequence

from matrix.deployment import Choice, Deployment, Offer, sentence
from matrix.report.badges import MARKS, worst
from matrix.report.figures import Figure
from matrix.report.svg import Axis, Row, plot
from matrix.report.tables import Entry, Table
from matrix.units import DASH, show

LEAD = (
    "Each option is sized for the peak and priced for a month, by the upper bounds of the newest measurements at the examples' "
    "own lengths. A number that may not be believed (its mark says why) makes an option a candidate and never the answer. "
    "Give your own prices and traffic: `matrix report --deployment FILE`, a copy of `matrix/deployment.toml`."
)


def _dollars(value: float | None) -> str:
    return DASH if value is None else f"$ {value:,.2f}"


def _row(offer: Offer) -> tuple[Entry, ...]:
    option = offer.option
    if offer.answer == "not measured":
        return (
            Entry(option.title, option.target),
            *[Entry(DASH)] * 5,
            Entry("", mark="not measured", hint=offer.why),
            Entry(offer.why),
        )
    return (
        Entry(option.title, option.target),
        Entry(f"{offer.instances:,}"),
        Entry(show(offer.cold_share, "share") if offer.cold_share is not None else "always warm"),
        Entry(show(offer.cold_s, "s")),
        Entry(show(offer.p95_s, "s"), mark=worst(offer.rests_on)),
        Entry(_dollars(offer.month)),
        Entry("", mark=offer.answer),
        Entry(offer.why),
    )


def _table(index: int, choice: Choice) -> Table:
    traffic = choice.traffic
    cold = f", a first answer within {show(traffic.cold_s, 's')}" if traffic.cold_s else ""
    lead = f"Promised: 95 % of the answers within {show(traffic.p95_s, 's')}{cold}. {sentence(choice)}"
    return Table(
        f"deployment-{index}",
        traffic.title[:1].upper() + traffic.title[1:],
        lead,
        ("Option", "At the peak", "Cold requests", "Cold start", "p95 of all requests", "A month", "Promises", "Why"),
        tuple(_row(offer) for offer in choice.offers),
    )


def _assumptions(deployment: Deployment) -> Table:
    """Every number of the page that no bundle holds."""
    assume = deployment.assume
    told = [
        ("hours of a month", f"{assume.hours:g}", ""),
        (
            "an idle instance is gone after",
            show(assume.idle_s, "s"),
            "AWS promises nothing; experiments saw 5 to 60 minutes",
        ),
        (
            "instances suffice",
            show(assume.certainty, "share"),
            "of the time: calls in progress are a Poisson variable (M/G/∞)",
        ),
        ("instances at once", f"{assume.concurrency:,}", "AWS's quota for an account until it is raised"),
        (
            "a task is busy at most",
            show(assume.utilisation, "share"),
            "at the peak; requests are spread at random, the wait is that of M/M/1",
        ),
        (
            "tasks of a service",
            f"at least {assume.tasks}",
            "one may fail; all month, sized for the peak: no autoscaling",
        ),
        ("a task's vCPU", "the measured host's", "one pinned thread of it; another CPU asks for another bundle"),
        (
            "a busy task's call",
            "as measured",
            "with the most clients and a worker a thread (concurrent_load), where that is longer than alone; p95 by as much",
        ),
        ("at the beginning of a burst", "all cold", "each request starts an instance until the first new one is warm"),
        (
            "a cold start",
            "as measured",
            "with this engine's container start for the service's own, and files in the page cache",
        ),
        ("a request", "one example", "batch 1, at the data's own lengths, one call at a time in each task"),
    ]
    prices = [
        (
            f"price of {name}",
            ", ".join(
                f"$ {scale * value:g} {unit}"
                for value, scale, unit in (
                    (price.per_request, 1e6, "a million calls"),
                    (price.per_gb_s, 1e6, "a million GB-seconds"),
                    (price.per_hour, 1, "an hour"),
                )
                if value is not None
            ),
            f"{price.source}; of {price.date}",
        )
        for name, price in deployment.price.items()
    ]
    return Table(
        "deployment-assumptions",
        "What is assumed",
        "No bundle holds these. Free tiers, discounts, load balancers, data transfer and people are left out.",
        ("Assumption", "Value", "Why, or whence"),
        tuple(tuple(Entry(text) for text in row) for row in (*told, *prices)),
    )


def figure(choices: Sequence[Choice]) -> Figure:
    """A month's bill of each option, a group a traffic."""
    rows = []
    for choice in choices:
        priced = [offer for offer in choice.offers if offer.month is not None]
        if priced:
            rows.append(Row(choice.traffic.title))
        rows += [
            Row(
                f"{MARKS[one.answer].glyph} {one.option.title}",
                one.month,
                points=(one.month or 0.0,),
                tone=MARKS[one.answer].tone,
            )
            for one in priced
        ]
    axis = Axis("US dollars a month, logarithmic", lambda value: f"{value:,.6g}", log=True)
    svg = plot("plot-deployment", "A month's bill of each option under each traffic", rows, axis)
    return Figure(svg, "✓ keeps every promise to users, ✗ does not. What was not measured has no bill here.")


def tables(deployment: Deployment, choices: Sequence[Choice]) -> tuple[Table, ...]:
    """A table a traffic, and the assumptions."""
    return (*(_table(index, one) for index, one in enumerate(choices, 1)), _assumptions(deployment))
