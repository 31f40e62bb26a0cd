"""The steps between a request and a choice: predict, filter, rate; and how probable each choice was."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from triton_router.routing.filters import CONSTRAINTS
from triton_router.routing.types import Rejection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.routing.policies import Policy
    from triton_router.routing.protocols import Candidate, Filter
    from triton_router.routing.types import RoutingContext

SURELY = 0.95
"""Probability of meeting its latency bound that a request must have elsewhere before it is spent on exploring."""


def predict(candidates: Sequence[Candidate], work: float, rows: float) -> None:
    """Fill in each candidate's figures for a request."""
    shape = (work, rows)
    is_steady = False
    for candidate in candidates:
        profile = candidate.profile
        candidate.alone_ms = alone = profile.remembered(shape) or profile.alone_of(shape)
        device = candidate.device
        if device.steadiness:
            is_steady = True
            if device.rated_for is not shape:
                device.rated_for = shape
                device.least_ms = alone or inf
            elif 0.0 < alone < device.least_ms:
                device.least_ms = alone
        on_device = device.in_flight + device.peers_in_flight
        here = candidate.in_flight + candidate.peers_in_flight
        if not on_device or not alone:
            candidate.expected_latency_ms = alone
            candidate.others_ms = 0.0
        elif here == on_device:
            ahead = candidate.ms_in_flight + candidate.peers_ms
            candidate.expected_latency_ms = alone + profile.wait_of(alone, ahead, here, 0.0, 0.0, 0.0)
            candidate.others_ms = alone * candidate.queueing * here * device.pressure
        elif not here:
            load = device.load or device.load_elsewhere()
            candidate.expected_latency_ms = alone + profile.wait_of(alone, *load)
            candidate.others_ms = alone * device.hindrance * on_device * device.pressure
        else:
            _, _, on_device_ms, _, busy = device.load or device.load_elsewhere()
            ahead = candidate.ms_in_flight + candidate.peers_ms
            candidate.expected_latency_ms = alone + profile.wait_of(
                alone, ahead, here, on_device_ms - ahead, on_device - here, busy - 1
            )
            hindered = candidate.queueing * here + device.hindrance * (on_device - here)
            candidate.others_ms = alone * hindered * device.pressure
    if is_steady:
        _charge_waste(candidates)


def _charge_waste(candidates: Sequence[Candidate]) -> None:
    """Charge more for what the fastest target of a device would not take, where that is lost: see `scorers.latency`."""
    for candidate in candidates:
        others = candidate.others_ms
        if others:
            device = candidate.device
            candidate.others_ms = others + others * device.steadiness * (1.0 - device.least_ms / candidate.alone_ms)


def constrained(
    context: RoutingContext, candidates: list[Candidate], now: float
) -> tuple[list[Candidate], list[Rejection]]:
    """Leave out what the request's own demands forbid; perhaps all of them."""
    rejections: list[Rejection] = []
    for rejects in CONSTRAINTS:
        candidates = without(rejects(context, candidates, now), candidates, rejections)
    return candidates, rejections


def filtered(
    context: RoutingContext,
    candidates: list[Candidate],
    now: float,
    steps: Sequence[Filter],
    rejections: list[Rejection],
) -> list[Candidate]:
    """Return who is left, and add who is not to ``rejections``; a filter that would leave nobody rejects nobody."""
    for rejects in steps:
        rejected = rejects(context, candidates, now)
        if rejected and len(rejected) < len(candidates):
            candidates = without(rejected, candidates, rejections)
    return candidates


def rate(context: RoutingContext, candidates: Sequence[Candidate], policy: Policy) -> None:
    """Fill in each candidate's score: the weighted mean of the policy's scorers, times the backend's weight."""
    scorer, share = policy.shares[0]
    totals = scorer(context, candidates)
    if share != 1.0:
        totals = [share * score for score in totals]
        for scorer, share in policy.shares[1:]:
            totals = [total + share * score for total, score in zip(totals, scorer(context, candidates), strict=True)]
    for candidate, total in zip(candidates, totals, strict=True):
        candidate.score = total * candidate.weight


def acceptance(context: RoutingContext, candidate: Candidate) -> float:
    """Return with what probability a request that would explore a rated candidate really goes there: its score.

    A target ten times as slow is tried a tenth as often, so that exploring costs the same whatever it tries. One that
    might keep the request past its latency bound is never tried.
    """
    bound, expected = context.max_latency_ms, candidate.expected_latency_ms
    if bound and not (expected > 0.0 and candidate.profile.probability_within(expected, bound) >= SURELY):
        return 0.0
    return candidate.score


def probabilities(
    context: RoutingContext, candidates: Sequence[Candidate], policy: Policy, explore: float
) -> list[float]:
    """Return how probable it is for each rated candidate to be chosen.

    With p the picker's probabilities, t the `acceptance` and n candidates: exploring turns with probability ``explore``
    to one of the n - 1 others, each equally likely, and goes there with probability t. So

        P(a) = p_a * (1 - explore * mean of t over the others) + (1 - p_a) * explore * t_a / (n - 1)
    """
    picked = policy.picker.probabilities(candidates)
    others = len(candidates) - 1
    if not others or not explore:
        return picked
    accepted = [acceptance(context, candidate) for candidate in candidates]
    total = sum(accepted)
    return [
        p * (1.0 - explore * (total - t) / others) + (1.0 - p) * explore * t / others
        for p, t in zip(picked, accepted, strict=True)
    ]


def without(
    rejected: Sequence[tuple[Candidate, str]], candidates: list[Candidate], rejections: list[Rejection]
) -> list[Candidate]:
    """Return the candidates that were not rejected, and add why the others were to ``rejections``."""
    if not rejected:
        return candidates
    rejections.extend(Rejection(candidate.target, reason) for candidate, reason in rejected)
    gone = {id(candidate) for candidate, _ in rejected}
    return [candidate for candidate in candidates if id(candidate) not in gone]
