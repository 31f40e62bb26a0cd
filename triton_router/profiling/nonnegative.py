"""Five non-negative coefficients, fitted to a stream by weighted least squares with exponential forgetting.

    y = b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3 + b4 * x4,    every b >= 0

Kept are the information ``A = sum(x x')`` and the gradient ``g = sum(x * (y - x'b))`` at the current ``b``. Each
observation fades and adds to them and then descends along one coefficient after the other,

    b_j <- max(0, b_j + g_j / A_jj)

(Franc, Hlavac & Navara, *Sequential coordinate-wise algorithm for the non-negative least squares problem*, CAIP
2005). No step increases the weighted squared error, none leaves the non-negative orthant, and no matrix is inverted:
nothing can diverge. Two fits merge by adding their ``A`` and their ``A b + g``: these are sums over observations.

Written out instead of looped over: it runs for every request, and loops take three times as long.
"""

from __future__ import annotations

from math import inf

FORGETTING = 0.97
"""Weight of evidence that is one observation older; half of it is gone after 23."""
_NOTHING = 1e-100
"""Information below this is none; dividing by it could overflow."""

Five = tuple[float, float, float, float, float]
Fifteen = tuple[float, float, float, float, float, float, float, float, float, float, float, float, float, float, float]

NOTHING: Five = (0.0, 0.0, 0.0, 0.0, 0.0)
NO_INFORMATION: Fifteen = (*NOTHING, *NOTHING, *NOTHING)


class NonNegativeFit:
    """The coefficients and what is known of them.

    Attributes:
        beta: The coefficients.
        gradient: ``g``, near 0 wherever the constraint does not bind.
        information: The upper triangle of ``A``, row by row.
    """

    __slots__ = ("beta", "gradient", "information", "most")

    def __init__(self, beta: Five = NOTHING, most: Five = (inf, inf, inf, inf, inf)) -> None:
        self.most = most
        self.beta = beta
        self.gradient: Five = NOTHING
        self.information: Fifteen = NO_INFORMATION

    def add(self, y: float, x: Five, doubt: Five, forgetting: float = FORGETTING) -> None:
        """Fade the evidence and add one observation. One with ``x_j = 0`` does not fade what is known of ``b_j``.

        Args:
            y: What was measured.
            x: What it was measured at.
            doubt: Evidence that comes with it that each coefficient is 0 (ridge regression's penalty): information,
                in squared units of ``x``.
            forgetting: Weight of the evidence before it.
        """
        x0, x1, x2, x3, x4 = x
        d0, d1, d2, d3, d4 = doubt
        a00, a01, a02, a03, a04, a11, a12, a13, a14, a22, a23, a24, a33, a34, a44 = self.information
        g0, g1, g2, g3, g4 = self.gradient
        b0, b1, b2, b3, b4 = self.beta
        miss = y - b0 * x0 - b1 * x1 - b2 * x2 - b3 * x3 - b4 * x4
        # Rows and columns of the matrix fade alike, each by the root: so it stays positive semidefinite.
        root = forgetting**0.5
        f0 = root if x0 else 1.0
        f1 = root if x1 else 1.0
        f2 = root if x2 else 1.0
        f3 = root if x3 else 1.0
        f4 = root if x4 else 1.0
        self.gradient = (
            g0 * f0 * f0 + miss * x0 - d0 * b0,
            g1 * f1 * f1 + miss * x1 - d1 * b1,
            g2 * f2 * f2 + miss * x2 - d2 * b2,
            g3 * f3 * f3 + miss * x3 - d3 * b3,
            g4 * f4 * f4 + miss * x4 - d4 * b4,
        )
        self.information = (
            a00 * f0 * f0 + x0 * x0 + d0,
            a01 * f0 * f1 + x0 * x1,
            a02 * f0 * f2 + x0 * x2,
            a03 * f0 * f3 + x0 * x3,
            a04 * f0 * f4 + x0 * x4,
            a11 * f1 * f1 + x1 * x1 + d1,
            a12 * f1 * f2 + x1 * x2,
            a13 * f1 * f3 + x1 * x3,
            a14 * f1 * f4 + x1 * x4,
            a22 * f2 * f2 + x2 * x2 + d2,
            a23 * f2 * f3 + x2 * x3,
            a24 * f2 * f4 + x2 * x4,
            a33 * f3 * f3 + x3 * x3 + d3,
            a34 * f3 * f4 + x3 * x4,
            a44 * f4 * f4 + x4 * x4 + d4,
        )

    def descend(self, sweeps: int) -> None:  # noqa: C901, PLR0915 - five times the same
        """Take the best step along each coefficient in turn, ``sweeps`` times.

        Where several explain what was seen equally well, the first takes it, then the third: the others need evidence
        of their own.
        """
        a00, a01, a02, a03, a04, a11, a12, a13, a14, a22, a23, a24, a33, a34, a44 = self.information
        g0, g1, g2, g3, g4 = self.gradient
        b0, b1, b2, b3, b4 = self.beta
        m0, m1, m2, m3, m4 = self.most
        for _ in range(sweeps):
            if a00 > _NOTHING:
                step = g0 / a00
                step = -b0 if step < -b0 else step if step < m0 - b0 else m0 - b0
                if step:
                    b0 += step
                    g0 -= a00 * step
                    g1 -= a01 * step
                    g2 -= a02 * step
                    g3 -= a03 * step
                    g4 -= a04 * step
            if a22 > _NOTHING:
                step = g2 / a22
                step = -b2 if step < -b2 else step if step < m2 - b2 else m2 - b2
                if step:
                    b2 += step
                    g0 -= a02 * step
                    g1 -= a12 * step
                    g2 -= a22 * step
                    g3 -= a23 * step
                    g4 -= a24 * step
            if a11 > _NOTHING:
                step = g1 / a11
                step = -b1 if step < -b1 else step if step < m1 - b1 else m1 - b1
                if step:
                    b1 += step
                    g0 -= a01 * step
                    g1 -= a11 * step
                    g2 -= a12 * step
                    g3 -= a13 * step
                    g4 -= a14 * step
            if a33 > _NOTHING:
                step = g3 / a33
                step = -b3 if step < -b3 else step if step < m3 - b3 else m3 - b3
                if step:
                    b3 += step
                    g0 -= a03 * step
                    g1 -= a13 * step
                    g2 -= a23 * step
                    g3 -= a33 * step
                    g4 -= a34 * step
            if a44 > _NOTHING:
                step = g4 / a44
                step = -b4 if step < -b4 else step if step < m4 - b4 else m4 - b4
                if step:
                    b4 += step
                    g0 -= a04 * step
                    g1 -= a14 * step
                    g2 -= a24 * step
                    g3 -= a34 * step
                    g4 -= a44 * step
        self.beta = (b0, b1, b2, b3, b4)
        self.gradient = (g0, g1, g2, g3, g4)

    @property
    def is_void(self) -> bool:
        """Whether nothing is known any more, so many changes ago was the last observation."""
        return max(self.information) <= _NOTHING

    def forget_last(self) -> None:
        """Take ``b_4`` to be 0 and nothing to be known of it; what was measured stays, for the others to explain."""
        a00, a01, a02, a03, a04, a11, a12, a13, a14, a22, a23, a24, a33, a34, _ = self.information
        g0, g1, g2, g3, _ = self.gradient
        b0, b1, b2, b3, b4 = self.beta
        self.beta = (b0, b1, b2, b3, 0.0)
        self.gradient = (g0 + a04 * b4, g1 + a14 * b4, g2 + a24 * b4, g3 + a34 * b4, 0.0)
        self.information = (a00, a01, a02, a03, 0.0, a11, a12, a13, 0.0, a22, a23, 0.0, a33, 0.0, 0.0)

    def rescale(self, factor: float, kept: float) -> None:
        """Multiply what is predicted by ``factor``, and what the evidence for it weighs by ``kept``."""
        b0, b1, b2, b3, b4 = self.beta
        self.beta = (b0 * factor, b1 * factor, b2 * factor, b3 * factor, b4 * factor)
        # Observations were divided by what was predicted; it is ``factor`` times as much now.
        fade = kept / (factor * factor)
        self.information = tuple([a * fade for a in self.information])  # pyright: ignore[reportAttributeAccessIssue]
        g0, g1, g2, g3, g4 = self.gradient
        fade *= factor
        self.gradient = (g0 * fade, g1 * fade, g2 * fade, g3 * fade, g4 * fade)

    def merge(self, other: NonNegativeFit, sweeps: int = 200) -> None:
        """Take in what another fit has learned of the same target."""
        mine, theirs = self.information[0], other.information[0]
        if not any(other.information):
            return
        if not any(self.information):
            self.beta, self.gradient, self.information = other.beta, other.gradient, other.information
            return
        share = mine / (mine + theirs) if mine + theirs > _NOTHING else 0.5
        beta = tuple([share * a + (1.0 - share) * b for a, b in zip(self.beta, other.beta, strict=True)])
        moments = [a + b for a, b in zip(self.moments(), other.moments(), strict=True)]
        self.information = tuple(  # pyright: ignore[reportAttributeAccessIssue]
            [a + b for a, b in zip(self.information, other.information, strict=True)]
        )
        self.beta = beta  # pyright: ignore[reportAttributeAccessIssue]
        product = self._product()
        self.gradient = tuple(  # pyright: ignore[reportAttributeAccessIssue]
            [moment - p for moment, p in zip(moments, product, strict=True)]
        )
        self.descend(sweeps)

    def moments(self) -> list[float]:
        """Return ``sum(x * y)``, which is ``A b + g``."""
        return [p + g for p, g in zip(self._product(), self.gradient, strict=True)]

    def _product(self) -> Five:
        a00, a01, a02, a03, a04, a11, a12, a13, a14, a22, a23, a24, a33, a34, a44 = self.information
        b0, b1, b2, b3, b4 = self.beta
        return (
            a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3 + a04 * b4,
            a01 * b0 + a11 * b1 + a12 * b2 + a13 * b3 + a14 * b4,
            a02 * b0 + a12 * b1 + a22 * b2 + a23 * b3 + a24 * b4,
            a03 * b0 + a13 * b1 + a23 * b2 + a33 * b3 + a34 * b4,
            a04 * b0 + a14 * b1 + a24 * b2 + a34 * b3 + a44 * b4,
        )
