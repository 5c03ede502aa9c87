"""Image sets in other code bases' formats: read, brought to a data set's shape, written.

What is assumed or done on the way is said in words (`ImageSet.said`); what would have to be guessed is
refused. No pickle is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoremodel.registry import lazy

if TYPE_CHECKING:
    from scoremodel.data.exchange.fit import fitted
    from scoremodel.data.exchange.image_set import ImageSet, Scale
    from scoremodel.data.exchange.read import read_images
    from scoremodel.data.exchange.write import Form, write_images

__all__ = ["Form", "ImageSet", "Scale", "fitted", "read_images", "write_images"]

# Imported on first use, so that what only reads does not depend on what writes.
__getattr__ = lazy(__name__)
