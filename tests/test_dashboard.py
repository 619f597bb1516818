"""The dashboard's sizes and phases, and that its figures are the record's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from dashboard_moments import CPU, GPU, LAST, MIB, PAST, answering, dialogue, prefilling, resting

from loopserve_cli.chat import figures as written
from loopserve_cli.chat.dashboard.figures import Figures, idle, running
from loopserve_cli.chat.dashboard.layout import Size, lines, size_for
from loopserve_cli.chat.dashboard.line import ASCII, BLOCKS, marks_for, plain, row, value, width
from loopserve_cli.chat.dashboard.spark import bar, spark
from loopserve_cli.chat.dashboard.watch import TurnWatch
from loopserve_cli.engine.events import PrefillProgress, Token
from loopserve_cli.stats import TurnRecord

SIZES = [(50, 20), (60, 15), (60, 20), (80, 24), (109, 40), (120, 40), (200, 50)]
PHASES: list[Callable[[], Figures]] = [prefilling, answering, resting]


def drawn(figures: Figures, columns: int, rows: int) -> list[str]:
    return [plain(one) for one in lines(figures, columns, rows, BLOCKS)]


def test_the_terminal_chooses_the_size() -> None:
    assert [size_for(*terminal) for terminal in SIZES] == [
        *(Size.LINE, Size.LINE, Size.STRIP, Size.STRIP, Size.STRIP),
        *(Size.WIDE, Size.FULL),
    ]


@pytest.mark.parametrize("terminal", SIZES)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("gauges", [CPU, GPU])
def test_it_fits_and_is_never_torn(terminal: tuple[int, int], phase: Callable[..., Figures], gauges: object) -> None:
    columns, rows = terminal
    shown = lines(phase(gauges), columns, rows, BLOCKS)
    assert all(width(one) < columns for one in shown)
    most = {Size.LINE: 1, Size.STRIP: 6, Size.WIDE: 16, Size.FULL: 26}[size_for(columns, rows)]
    assert 1 <= len(shown) <= most
    if most > 1:
        assert plain(shown[0]).startswith("── loopserve · turn 104 ──")


def test_a_prefill_at_80x24() -> None:
    assert drawn(prefilling(), 80, 24) == [
        "── loopserve · turn 104 ───────────────────────────── prefill · Ctrl-C stops ──",
        " prefill █████████░░░░░░░░░░░░░░░  14.3k/37.4k tok  1.9k tok/s  13 s left",
        " before  16.1k in cache  computing 4.1% of the matrix  choosing 38 ms  full n/a",
        " cache   95.0 MiB used  30.4k of 65.5k tokens  ██████░░░░░░ 46%",
        " memory  702 MiB resident, of 23.5 GiB  history on device",
    ]


def test_an_answer_at_80x24() -> None:
    assert drawn(answering(), 80, 24) == [
        "── loopserve · turn 104 ─────────────────────────── answering · Ctrl-C stops ──",
        " TTFT    412 ms    full ~2.00 s   4.9x      ▃█▅▄▄  5 turns, 250 ms – 1.00 s",
        " token   6.1 ms    164 tok/s      37 out    ████████████████████████",
        " cache   95.0 MiB used  17.0k of 65.5k tokens  ███░░░░░░░░░ 26%",
        " memory  702 MiB resident, of 23.5 GiB  history on device",
        " reads   1,039 of 17.0k keys  chosen again 3x, 4 ms  density 4.1%",
    ]


def test_the_most_important_figures_are_in_one_line_of_any_width() -> None:
    assert drawn(prefilling(), 50, 20) == ["prefill 14.3k/37.4k tok · 13 s left · 1.9k tok/s"]
    assert drawn(answering(), 59, 20) == ["TTFT 412 ms · 17.0k/65.5k (26%) tokens · KV 95.0 MiB"]


def test_the_wide_column_says_what_the_strip_does_not() -> None:
    shown = "\n".join(drawn(answering(GPU), 120, 40))
    for said in (
        "choosing  38 ms, prefill 300 ms",
        "tokens    8.0k new, 9.0k kept, 37 out",
        "density   4.1%, covers 95.5%",
        "lines     812 vertical, 40 slash",
        "keys      reads 1,039 of 17,036",
        "device    95.0 MiB used of 143 MiB",
        "host      0 B used of 0 B",
        "working   set 6.0 MiB, chosen again 3x",
        "GPU       635 MiB of 80.0 GiB",
        "reserved  800 MiB, busy 41.0%",
        "635 MiB, peak 702 MiB, of 80.0 GiB",
    ):
        assert said in shown, said
    table = [line[:75].split() for line in shown.split("\n") if "full " in line[:75] or " loopserve " in line[:75]]
    assert ["103", "500", "ms", "2.0k", "95.0", "MiB", "100%", "37", "full"] in table


def test_more_room_shows_more_of_the_past() -> None:
    past = tuple(replace(LAST, turn=number, ttft_ms=float(number)) for number in range(1, 41))
    wide, full = (drawn(resting(past=past), *terminal) for terminal in ((120, 40), (200, 50)))
    assert len(full) > len(wide)
    series = next(line for line in full if "1 ms – 40 ms" in line and "turns" not in line)
    assert sum(mark in BLOCKS.levels for mark in series) == 40
    turns = [line.split()[0] for line in full if "loopserve" in line and line[:7].strip().isdigit()]
    assert turns == [str(number) for number in range(28, 41)]


def test_every_figure_is_written_as_the_record_has_it() -> None:
    record = LAST
    shown = "\n".join(drawn(resting(), 200, 50))
    for text in (
        written.duration(record.ttft_ms),
        written.per_token(record.tpot_ms),
        written.rate(record.decode_tokens_per_s),
        f"{written.count(record.tokens_output)} out",
        written.size(written.kv_used(record)),
        f"reads {written.count(record.keys_read)} of {written.count(record.keys_stored)}",
        f"{written.duration(record.select_ms)}, prefill {written.duration(record.prefill_ms)}",
        written.share(record.density),
        written.share(record.coverage),
        f"chosen again {written.count(record.reselections)}x, {written.duration(record.reselect_ms)}",
        f"set {written.size(record.working_set_bytes)}",
        "p50 6.0 ms, p99 n/a",
    ):
        assert text in shown, text


def test_a_turn_that_runs_has_the_times_that_its_record_will_have() -> None:
    stamps = [412.345, 418.0, 425.5]
    watch = TurnWatch()
    for number, stamp in enumerate(stamps):
        watch.token(Token(number, "a", reasoning=number < 1, ms=stamp))
    now = watch.record()
    assert (now.ttft_ms, now.tokens_output, now.tokens_reasoning) == (412.345, 3, 1)
    assert now.tpot_ms == (425.5 - 412.345) / 2 and now.itl_ms == [418.0 - 412.345, 425.5 - 418.0]
    assert now.decode_tokens_per_s == 2 / (425.5 - 412.345) * 1e3
    assert running(dialogue(), watch).phase == "answering"


def test_what_is_unknown_is_never_invented() -> None:
    nothing = drawn(idle(dialogue(past=())), 80, 24)
    assert nothing[0].startswith("── loopserve · no turn yet ──")
    assert nothing[1] == " TTFT    n/a       full n/a" and nothing[2].split() == ["token", "n/a", "n/a", "n/a", "out"]
    watch = TurnWatch()
    begun = drawn(running(dialogue(), watch), 80, 24)
    assert "turn 105" in begun[0] and "is about to begin" in begun[1]
    watch.prefill(PrefillProgress(2048, 4096, 0))  # a GPU does not say how long it took
    assert "2.0k/4.1k tok  n/a  n/a left" in drawn(running(dialogue(), watch), 80, 24)[1]
    watch.token(Token(0, "a"))
    assert drawn(running(dialogue(), watch), 80, 24)[1].startswith(" TTFT    n/a ")
    assert "TTFT n/a" in drawn(running(dialogue(), watch), 50, 10)[0]


def test_nothing_of_an_older_turn_stands_beside_a_new_one() -> None:
    watch = TurnWatch()
    watch.prefill(PrefillProgress(10, 40, 17_036, ms=1.0))
    now = running(dialogue(), watch).now
    assert now.ttft_ms is now.tpot_ms is now.decode_tokens_per_s is None
    assert now.tokens_output == 0 and now.itl_ms == []
    rested = resting(gauges=replace(CPU, kv_used_host_bytes=MIB, rss_bytes=2 * MIB)).now
    assert (written.kv_used(rested), rested.rss_bytes) == (MIB, 2 * MIB)  # of now, and not of the record


def test_a_measured_turn_is_not_estimated() -> None:
    ran_full = resting(past=PAST[:3])
    assert (ran_full.full_ms, ran_full.measured, ran_full.gain) == (500.0, True, None)
    assert "full 500 ms" in drawn(ran_full, 80, 24)[1]
    assert resting().full_ms == pytest.approx(2000) and resting().gain == pytest.approx(2000 / 412.345)
    assert resting(past=(*PAST[:2], LAST)).full_ms is None


def test_a_context_without_a_limit_has_no_bar() -> None:
    shown = drawn(idle(dialogue(limit=None)), 80, 24)
    assert " cache   95.0 MiB used  17.0k tokens" in shown


def test_cells_are_whole_or_not_there() -> None:
    cells = [value("first"), value("x" * 30), value("last")]
    assert plain(row("name", cells, 30)) == " name    first  last"
    assert plain(row("name", cells, 60)) == f" name    first  {'x' * 30}  last"


def test_names_cannot_act_on_the_terminal() -> None:
    named = replace(dialogue(), model="m\x1b[2J", past=(replace(LAST, profile="p\x1b[2J\n"),))
    for terminal in SIZES:
        assert "\x1b" not in "\n".join(drawn(idle(named), *terminal))
        assert all("\n" not in line for line in drawn(idle(named), *terminal))


def test_bars_and_sparklines() -> None:
    assert plain(bar(0.5, 4, BLOCKS)) == "██░░" and plain(bar(0.5, 4, ASCII)) == "##.."
    assert plain(bar(None, 3, BLOCKS)) == "░░░" and plain(bar(7.0, 3, BLOCKS)) == "███"
    assert plain(spark([0, 1, 2, 3, 4, 5, 6, 7], 20, BLOCKS)) == "▁▂▃▄▅▆▇█"
    assert plain(spark([9.0, 0, 7], 2, BLOCKS)) == "▁█" and plain(spark([6.1, 6.2], 9, BLOCKS)) == "██"
    assert spark([], 5, BLOCKS) == ()


def test_an_encoding_without_blocks_gets_ascii() -> None:
    assert marks_for("utf-8") is BLOCKS and marks_for("latin-1") is ASCII and marks_for("unheard-of") is ASCII
    for phase in PHASES:
        for terminal in SIZES:
            for one in lines(phase(), *terminal, ASCII):
                plain(one).encode("ascii")


def test_a_turn_without_a_record_is_empty() -> None:
    assert TurnWatch().record() == TurnRecord(tokens_output=0)
