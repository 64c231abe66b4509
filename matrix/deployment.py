"""Where to serve: a function, a container service or a GPU, from measured numbers, a traffic and a dated price list. Pure.

Each option is sized for the traffic's peak and priced for a month; every latency in it is a bound that a gate would be judged
on. A choice rests on believed numbers only: what is emulated, stale or unaccepted can be a candidate and never the answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from matrix import stats
from matrix.strict import Strict, parse_toml
from matrix.verdict import Judged

_SUITES: Final = ("inference_latency", "concurrent_load")
_DAY_S: Final = 86_400.0
_QUANTILE: Final = 0.95
_TAIL: Final = 0.99
"""The longest tail of warm requests that is measured."""
_RARE: Final = 0.001
"""Cold requests up to this share leave the 95th percentile to the warm ones."""


class Price(Strict):
    """What a thing costs, in US dollars: an hour of a task or of a machine, or a function's call and its GB-seconds."""

    source: str
    date: str
    per_hour: float | None = Field(default=None, gt=0)
    per_request: float | None = Field(default=None, gt=0)
    per_gb_s: float | None = Field(default=None, gt=0)


class Assumptions(Strict):
    """What no measurement says."""

    hours: float = Field(gt=0)
    idle_s: float = Field(gt=0)
    certainty: float = Field(gt=0, lt=1)
    concurrency: int = Field(gt=0)
    utilisation: float = Field(gt=0, lt=1)
    tasks: int = Field(gt=0)


class Service(Strict):
    """Tasks that are always warm: each serves one call at a time by `variant`, as fast as a worker of `target` was measured."""

    title: str
    target: str
    variant: str
    price: str


class Function(Service):
    """Instances that start when a call finds none, of `memory_mb`."""

    memory_mb: int = Field(gt=0)


class Traffic(Strict):
    """Requests, one example each: `mean_per_s` over a month, `peak_per_s` during each burst; and what users are promised.

    `p95_s` bounds 95 % of the answers. `cold_s` bounds the first answer of a new instance; None promises nothing.
    """

    title: str
    mean_per_s: float = Field(gt=0)
    peak_per_s: float = Field(gt=0)
    bursts_per_day: float = Field(ge=0)
    burst_s: float = Field(ge=0)
    p95_s: float = Field(gt=0)
    cold_s: float | None = Field(default=None, gt=0)

    @property
    def busy_share(self) -> float:
        """Share of the day that is a burst."""
        return self.bursts_per_day * self.burst_s / _DAY_S

    @property
    def base_per_s(self) -> float:
        """Requests a second between bursts."""
        left = self.mean_per_s - self.busy_share * self.peak_per_s
        return max(0.0, left) / (1 - self.busy_share)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.busy_share >= 1:
            raise ValueError("its bursts fill more than the day")
        if self.peak_per_s < self.mean_per_s:
            raise ValueError("its peak is below its mean")
        if self.busy_share * self.peak_per_s > self.mean_per_s * (1 + 1e-9):
            raise ValueError("its bursts alone hold more requests than its mean")
        return self


class Deployment(Strict):
    """Prices, assumptions, options and traffics: `deployment.toml`, or the user's own file."""

    price: dict[str, Price]
    assume: Assumptions
    function: tuple[Function, ...] = ()
    service: tuple[Service, ...] = ()
    traffic: tuple[Traffic, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _priced(self) -> Self:
        for option, asked in (
            *((one, ("per_request", "per_gb_s")) for one in self.function),
            *((one, ("per_hour",)) for one in self.service),
        ):
            found = self.price.get(option.price)
            missing = [name for name in asked if found is None or getattr(found, name) is None]
            if missing:
                raise ValueError(f"{option.title}: price {option.price!r} does not say {', '.join(missing)}")
        return self


@dataclass(frozen=True)
class Offer:
    """What an option is for a traffic. None where it was not measured; `why` says what it misses, or what is missing.

    Seconds and US dollars; `cold_share` is that of requests which wait for a new instance (None: always warm).
    """

    option: Service
    answer: Literal["pass", "fail", "not measured"]
    why: str
    instances: int | None = None
    cold_share: float | None = None
    cold_s: float | None = None
    p95_s: float | None = None
    month: float | None = None
    rests_on: tuple[Judged, ...] = ()

    @property
    def believed(self) -> bool:
        """Whether each number that it rests on may be rested on."""
        return bool(self.rests_on) and all(one.state.believed for one in self.rests_on)


@dataclass(frozen=True)
class Choice:
    """A traffic's options, and which of them to take: the cheapest that keeps the promises on believed numbers."""

    traffic: Traffic
    offers: tuple[Offer, ...]

    @property
    def able(self) -> list[Offer]:
        """What keeps the promises, the cheapest first."""
        return sorted((one for one in self.offers if one.answer == "pass"), key=lambda one: one.month or 0.0)

    @property
    def chosen(self) -> Offer | None:
        """The answer; None where nothing that may be believed keeps the promises."""
        return next((one for one in self.able if one.believed), None)


def parse_deployment(text: str, where: str = "deployment.toml") -> Deployment:
    """The prices and traffics that `text` (TOML) declares.

    Raises:
        DataError: with the path to each fault.
    """
    return parse_toml(Deployment, text, where)


class _Measured:
    """An option's numbers, each the newest that has a value and is no invalid evidence; `used` collects what was asked for."""

    def __init__(self, judged: Sequence[Judged], option: Service) -> None:
        memory = getattr(option, "memory_mb", None)
        self._held = [
            one
            for one in judged
            if (one.finding.target, one.finding.cell.variant, one.finding.cell.memory_mb)
            == (option.target, option.variant, memory)
            and one.finding.cell.suite in _SUITES
            and one.finding.value is not None
            and one.state.validity != "invalid"
            and not one.state.revoked
            and one.finding.cell.length == "data"
        ]
        self.used: list[Judged] = []
        self.missing: list[str] = []

    def high(self, metric: str, **parameters: object) -> float:
        """The upper bound of the slowest matching cell, seconds (a function is called in several ways); NaN where none is."""
        newest = {
            one.finding.cell.id: one
            for one in self._held
            if one.finding.metric == metric
            and all(getattr(one.finding.cell, key) == value for key, value in parameters.items())
        }
        known = [(bound, one) for one in newest.values() if (bound := one.finding.bound_high) is not None]
        if not known:
            self.missing.append(metric)
            return math.nan
        worst, judged = max(known, key=lambda pair: pair[0])
        self.used.append(judged)
        return worst

    def busy_s(self) -> float | None:
        """Seconds that a worker takes for an answer while each of them has one to give; None where no load was measured.

        By the lower bound of their answers a second with the most clients: several workers share caches, memory and clock.
        """
        throughput = [one for one in self._held if one.finding.cell.mode == "throughput" and one.finding.cell.clients]
        most = max((one.finding.cell.clients or 0 for one in throughput), default=0)
        newest = {one.finding.metric: one for one in throughput if one.finding.cell.clients == most}
        answers, workers = newest.get("requests_per_s"), newest.get("workers")
        if not answers or not workers or not answers.finding.bound_low:
            return None
        self.used.append(answers)
        return (workers.finding.value or 1) / answers.finding.bound_low


def _unmeasured(option: Service, measured: _Measured) -> Offer:
    told = f"no bundle of {option.target} has {', '.join(measured.missing)} of {option.variant}"
    return Offer(option, "not measured", told)


def _broken(p95_s: float, cold_s: float | None, traffic: Traffic) -> Iterator[str]:
    """Which promises do not hold."""
    if p95_s > traffic.p95_s:
        yield f"95 % are answered within {1e3 * p95_s:.1f} ms, not {1e3 * traffic.p95_s:.0f} ms"
    if cold_s is not None and traffic.cold_s is not None and cold_s > traffic.cold_s:
        yield f"a new instance answers after {1e3 * cold_s:.0f} ms, not {1e3 * traffic.cold_s:.0f} ms"


def _function(option: Function, price: Price, assume: Assumptions, traffic: Traffic, measured: _Measured) -> Offer:
    """A function: every request finds a warm instance or starts one.

    Calls in progress are Poisson with mean rate x duration, whatever the duration's law (M/G/infinity). Between bursts a
    request is cold where no other came for `idle_s`; at the beginning of a burst each request starts an instance until the
    first of them is warm.
    """
    call, p95, start, init = (
        measured.high("p50_s", mode="warm"),
        measured.high("p95_s", mode="warm"),
        measured.high("start_s", mode="cold", init="full"),
        measured.high("init_s", mode="cold", init="full"),
    )
    if measured.missing:
        return _unmeasured(option, measured)
    base, peak = traffic.base_per_s, traffic.peak_per_s
    kept = stats.poisson_quantile(base * call, assume.certainty)
    started = max(0.0, peak * start - kept) if traffic.bursts_per_day else 0.0
    cold_per_day = _DAY_S * (1 - traffic.busy_share) * base * math.exp(-base * assume.idle_s)
    cold_per_day += traffic.bursts_per_day * started
    share = min(1.0, cold_per_day / (_DAY_S * traffic.mean_per_s))
    instances = max(1, stats.poisson_quantile(peak * call, assume.certainty), math.ceil(kept + started))
    requests = traffic.mean_per_s * 3600 * assume.hours
    billed = math.ceil(1e3 * call) / 1e3 + share * init
    month = requests * ((price.per_request or 0) + billed * option.memory_mb / 1024 * (price.per_gb_s or 0))
    p95, stands_in = _mixed(share, p95, start, measured)
    why = list(_broken(p95, start, traffic))
    if why and stands_in:
        why.append("the cold start stands in for the warm p99, which has no bound")
    if instances > assume.concurrency:
        why.append(f"{instances} instances at the peak are beyond the quota of {assume.concurrency}")
    return Offer(
        option,
        "fail" if why else "pass",
        "; ".join(why) or "keeps every promise",
        instances,
        share,
        start,
        p95,
        month,
        tuple(measured.used),
    )


def _mixed(cold: float, p95: float, start: float, measured: _Measured) -> tuple[float, bool]:
    """The 95th percentile of all requests, of which the share `cold` waits for a new instance; whether that is a stand-in.

    1 - (0.05 - c) / (1 - c) of the warm requests must be within it, for a share c: 99 % where 4 % are cold.
    """
    if cold <= _RARE:
        return p95, False
    if 1 - (1 - _QUANTILE - cold) / (1 - cold) > _TAIL:
        return start, False
    tail = measured.high("p99_s", mode="warm")
    return (start, True) if math.isnan(tail) else (tail, False)


def _service(option: Service, price: Price, assume: Assumptions, traffic: Traffic, measured: _Measured) -> Offer:
    """Tasks that are always there, as many as the peak needs.

    Requests are spread at random, one call at a time in each task: the wait is that of M/M/1, P(W > t) = r exp(-(1 - r) t / d)
    for a utilisation r and calls of d seconds, which is pessimistic where calls are as even as a classifier's; its 95th
    percentile is added to that of a call. A call is as long as one that is alone, or as one of a worker among busy ones where
    that is measured and longer.
    """
    call, p95 = measured.high("p50_s", mode="warm"), measured.high("p95_s", mode="warm")
    if measured.missing:
        return _unmeasured(option, measured)
    busy = measured.busy_s() or call
    call, p95 = max(call, busy), p95 + max(0.0, busy - call)
    tasks = max(assume.tasks, math.ceil(traffic.peak_per_s * call / assume.utilisation))
    used = traffic.peak_per_s * call / tasks
    wait = max(0.0, call * math.log(used / (1 - _QUANTILE)) / (1 - used))
    why = list(_broken(p95 + wait, None, traffic))
    month = tasks * assume.hours * (price.per_hour or 0)
    told = "; ".join(why) or "keeps every promise"
    return Offer(option, "fail" if why else "pass", told, tasks, None, None, p95 + wait, month, tuple(measured.used))


def choices(deployment: Deployment, judged: Sequence[Judged]) -> list[Choice]:
    """Every traffic with an offer for each option; `judged` is in order of age."""
    found = []
    for traffic in deployment.traffic:
        offers = [
            *(
                _function(one, deployment.price[one.price], deployment.assume, traffic, _Measured(judged, one))
                for one in deployment.function
            ),
            *(
                _service(one, deployment.price[one.price], deployment.assume, traffic, _Measured(judged, one))
                for one in deployment.service
            ),
        ]
        found.append(Choice(traffic, tuple(offers)))
    return found


def sentence(choice: Choice) -> str:
    """Which option to take, or why there is no answer."""
    able, chosen = choice.able, choice.chosen
    if not able:
        open_ = [one.option.title for one in choice.offers if one.answer == "not measured"]
        waits = f"; not measured: {', '.join(open_)}" if open_ else ""
        return f"No measured option keeps the promises{waits}."
    first = able[0]
    if first is chosen:
        return f"Take {first.option.title}: $ {first.month:,.2f} a month."
    if chosen is None:
        return (
            f"Undecided: {first.option.title} would cost $ {first.month:,.2f} a month and keep the promises, on numbers that may "
            "not be believed today."
        )
    return (
        f"Take {chosen.option.title}: $ {chosen.month:,.2f} a month. {first.option.title} would cost $ {first.month:,.2f}, on "
        "numbers that may not be believed today."
    )
