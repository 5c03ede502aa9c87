"""Work that is told to stop."""

from __future__ import annotations

import os
import signal

import pytest

from tasks.files.state import stop_on_signals


def test_a_parent_s_death_stops_work_once_however_many_signals_it_sends() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with stop_on_signals() as asked:
        assert not asked()
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert asked()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert {number: signal.getsignal(number) for number in before} == before
