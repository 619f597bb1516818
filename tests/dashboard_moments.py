"""Moments of a chat as its dashboard gets them, for the tests of what is drawn."""

from __future__ import annotations

from dataclasses import replace

from loopserve_cli.chat.dashboard.figures import Dialogue, Figures, idle, running
from loopserve_cli.chat.dashboard.watch import TurnWatch
from loopserve_cli.engine.events import PrefillProgress, Token
from loopserve_cli.engine.gauges import Gauges
from loopserve_cli.stats import TurnRecord

MIB, GIB = 2**20, 2**30

LAST = TurnRecord(
    turn=104,
    profile="loopserve",
    model="m",
    ttft_ms=412.345,
    select_ms=38.2,
    prefill_ms=301.0,
    prefill_tokens_per_s=1234.0,
    tokens_new=8000,
    tokens_cached=9000,
    tokens_output=37,
    tpot_ms=6.12,
    itl_ms=[5.0, 6.0, 7.0] * 12,
    decode_tokens_per_s=163.9,
    density=0.0412,
    coverage=0.955,
    lines_vertical=812.4,
    lines_slash=40.0,
    keys_read=1039,
    keys_stored=17036,
    reselections=3,
    reselect_ms=4.4,
    working_set_bytes=6 * MIB,
    kv_used_device_bytes=95 * MIB,
    kv_used_host_bytes=0,
    finish_reason="stop",
)
CPU = Gauges(
    tokens=17036,
    kv_used_device_bytes=0,
    kv_used_host_bytes=95 * MIB,
    kv_store_device_bytes=0,
    kv_store_host_bytes=143 * MIB,
    working_set_bytes=6 * MIB,
    keys_read=1039,
    keys_stored=17036,
    reselections=3,
    reselect_ms=4.4,
    density=0.0412,
    coverage=0.955,
    lines_vertical=812.4,
    lines_slash=40.0,
    select_ms=38.2,
    rss_bytes=702 * MIB,
    total_host_bytes=round(23.5 * GIB),
)
GPU = replace(
    CPU,
    kv_used_device_bytes=95 * MIB,
    kv_used_host_bytes=0,
    kv_store_device_bytes=143 * MIB,
    kv_store_host_bytes=0,
    allocated_device_bytes=635 * MIB,
    reserved_device_bytes=800 * MIB,
    peak_device_bytes=702 * MIB,
    total_device_bytes=80 * GIB,
    gpu_busy=0.41,
)


def full_turn(number: int, new: int, cached: int) -> TurnRecord:
    """One that ran under full attention, at a quarter of a millisecond a token."""
    return replace(
        LAST,
        turn=number,
        profile="full",
        tokens_new=new,
        tokens_cached=cached,
        ttft_ms=0.25 * new,
        density=1.0,
        select_ms=0.0,
        keys_read=17036,
        itl_ms=[],
    )


PAST = (full_turn(101, 1000, 0), full_turn(102, 4000, 1000), full_turn(103, 2000, 6000), LAST)


def dialogue(gauges: Gauges = CPU, past: tuple[TurnRecord, ...] = PAST, limit: int | None = 65_536) -> Dialogue:
    """After the turns `past`."""
    turn = (past[-1].turn or 0) if past else 0
    return Dialogue("m", "loopserve", "device", turn, limit, gauges, past)


def prefilling(gauges: Gauges = CPU, done: int = 14_300) -> Figures:
    """Some of 37,400 tokens are read, behind 16,100."""
    watch = TurnWatch()
    watch.prefill(PrefillProgress(done, 37_400, 16_100, ms=7526.0))
    return running(dialogue(gauges), watch)


def answering(gauges: Gauges = CPU, tokens: int = 37) -> Figures:
    """So many tokens have come, one in 6.1 ms."""
    watch = TurnWatch()
    watch.prefill(PrefillProgress(8000, 8000, 9000, ms=300.0))
    for number in range(tokens):
        watch.token(Token(number, "a", ms=412.345 + 6.1 * number))
    return running(dialogue(gauges), watch)


def resting(gauges: Gauges = CPU, past: tuple[TurnRecord, ...] = PAST) -> Figures:
    """Between turns."""
    return idle(dialogue(gauges, past))
