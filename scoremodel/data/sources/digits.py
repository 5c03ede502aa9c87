"""scikit-learn's handwritten digits, which are bundled with it."""

from __future__ import annotations

import numpy as np

from scoremodel.data.sources.base import SOURCES, RawData

__all__ = ["load_digits"]


@SOURCES.register("digits", gives="images")
def load_digits() -> RawData:
    """Return scikit-learn's 1,797 handwritten digits, 8×8 pixels with 17 grey levels."""
    from sklearn.datasets import load_digits as bundled

    digits = bundled()
    return RawData(
        x=digits.images.astype(np.uint8)[:, None],
        labels=digits.target.astype(np.int64),
        levels=17,
        classes=[str(name) for name in digits.target_names],
        held_out=None,
        source="scikit-learn load_digits; E. Alpaydin, C. Kaynak, UCI 1998",
        licence="CC BY 4.0",
    )
