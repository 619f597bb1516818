from __future__ import annotations

import os
import signal

import pytest

from loopserve_cli.chat import deferral
from loopserve_cli.chat.deferral import deferred_interrupt


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_waits_for_the_end() -> None:
    before = signal.getsignal(signal.SIGINT)
    done = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupt():
        press()
        press()
        done.append("written")
    assert done == ["written"]
    assert signal.getsignal(signal.SIGINT) is before
    with deferred_interrupt():
        done.append("undisturbed")
    assert len(done) == 2


def test_a_later_press_ends_a_write_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferral, "PATIENCE", -1.0)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), deferred_interrupt():
        press()
        press()
        pytest.fail("went on")
    assert signal.getsignal(signal.SIGINT) is before
