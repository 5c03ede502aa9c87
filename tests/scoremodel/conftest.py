"""Tests of the library are of tiny tensors, for which starting threads costs more than it saves."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
