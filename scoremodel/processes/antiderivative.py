"""The integral of a function from 0, tabulated once: what turns drift and diffusion into a kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

__all__ = ["Antiderivative"]

_DEGREE = 23
_FIRST = 40
_HALVINGS = 24
_ERROR = 1e-13


class Antiderivative:
    """t → ∫_0^t function ds for t in [0, 1], in float64, by piecewise Chebyshev interpolation.

    The panels halve towards 0, where an integral that is small keeps its digits so, and are halved
    further until the last coefficients of the interpolant are 1e-13 of its largest, or, at a jump or a
    pole, until they are 2⁻²⁴ of what they were. The kernels that come of VE's, VP's and sub-VP's drift
    and diffusion agree with the closed forms to a relative 1e-12 from t = 1e-9 on, and so do the times
    of their noise ratios (`tests/scoremodel/test_sde.py`).

    Trefethen, Approximation Theory and Approximation Practice, 2013, chapters 4 and 19.

    Args:
        function: what is integrated, of times (float64) of any shape, each by itself.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        nodes = chebyshev.chebpts1(_DEGREE + 1)
        fit = 2 / len(nodes) * chebyshev.chebvander(nodes, _DEGREE).T
        fit[0] /= 2
        ends = np.array([0.0, *2.0 ** np.arange(1 - _FIRST, 1)])
        low, high = ends[:-1], ends[1:]
        done: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for halving in range(_HALVINGS + 1):
            middle, half = (low + high) / 2, (high - low) / 2
            # Samplers may ask for the first time in inference mode, whose tensors training cannot use.
            with torch.inference_mode(False), torch.no_grad():
                values = function(torch.from_numpy(middle + half * nodes[:, None])).numpy()
            found = fit @ values
            size = np.abs(found)
            rough = ~(size[-3:].max(0) <= _ERROR * size.max(0))
            split = rough & (halving < _HALVINGS)
            done.append((low[~split], high[~split], found[:, ~split]))
            low, middle, high = low[split], middle[split], high[split]
            low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
            if not len(low):
                break
        lows, highs, pieces = (np.concatenate(each, axis=-1) for each in zip(*done, strict=True))
        order = np.argsort(lows)
        lows, highs = lows[order], highs[order]
        integrals = chebyshev.chebint(pieces[:, order], lbnd=-1) * (highs - lows) / 2
        totals = integrals.sum(0)  # at 1 every Chebyshev polynomial is 1
        integrals[0] += np.concatenate([[0.0], totals.cumsum()[:-1]])
        self.ends = torch.from_numpy(np.append(lows, highs[-1]))
        self.values = torch.from_numpy(np.append(0.0, totals.cumsum()))
        self._coefficients = torch.from_numpy(np.ascontiguousarray(integrals.T))

    def __call__(self, t: Tensor) -> Tensor:
        """Return the integral to each t (float64, on its device), by Clenshaw's recurrence."""
        ends, table = self.ends.to(t.device), self._coefficients.to(t.device)
        s = t.double().clamp(0, 1)
        panel = torch.searchsorted(ends[1:-1], s.detach().contiguous(), right=True)
        low, high = ends[panel], ends[panel + 1]
        u = (2 * s - low - high) / (high - low)
        *higher, first = table[panel].unbind(-1)[::-1]
        now, before = torch.zeros_like(u), torch.zeros_like(u)
        for coefficient in higher:
            now, before = coefficient + 2 * u * now - before, now
        return first + u * now - before

    def inverse(self, value: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the t at which the integral of a function that is nowhere negative has each value.

        By Newton's method in the panel where it lies, and by bisection where that would leave it;
        values beyond the last give 1.

        Args:
            value: values (float64) of any shape.
            function: what is integrated.

        Returns:
            Times (float64) with the shape of the values.
        """
        ends, values = self.ends.to(value.device), self.values.to(value.device)
        panel = torch.searchsorted(values[1:-1], value.contiguous(), right=True)
        low, high = ends[panel], ends[panel + 1]
        share = (value - values[panel]) / (values[panel + 1] - values[panel])
        t = torch.lerp(low, high, share.nan_to_num(0.5).clamp(0, 1))
        for _ in range(60):
            over = self(t) - value
            low, high = torch.where(over > 0, low, t), torch.where(over > 0, t, high)
            after = t - over / function(t)
            after = torch.where((after >= low) & (after <= high), after, (low + high) / 2)
            moved, t = (after - t).abs(), after
            if bool((moved <= 1e-14 * t).all()):
                break
        return t
