"""Numbers as people read them, and a turn's statistics in one line. Unknown is "n/a"."""

from __future__ import annotations

import math

from loopserve_cli.stats import TurnRecord

UNKNOWN = "n/a"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def count(value: float | None) -> str:
    """A whole number with thousands separated."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """A count in three digits or so: 980, 1.2k, 65.5k, 1.3M."""
    if value is None:
        return UNKNOWN
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.1f}{unit}"
    return f"{value:.0f}"


def duration(milliseconds: float | None) -> str:
    """Milliseconds below one second, seconds above."""
    if milliseconds is None:
        return UNKNOWN
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.2f} s"


def per_token(milliseconds: float | None) -> str:
    """Milliseconds with a decimal below a hundred: a token's time."""
    if milliseconds is None or milliseconds >= 100:
        return duration(milliseconds)
    return f"{milliseconds:.1f} ms"


def waiting(milliseconds: float) -> str:
    """Time left, in whole seconds or minutes."""
    seconds = math.ceil(milliseconds / 1000)
    return f"{seconds} s" if seconds < 100 else f"{seconds // 60} min {seconds % 60} s"


def rate(per_second: float | None) -> str:
    """Tokens per second."""
    if per_second is None:
        return UNKNOWN
    return f"{per_second:.1f} tok/s" if per_second < 100 else f"{short(per_second)} tok/s"


def size(number: float | None) -> str:
    """Bytes in binary units."""
    if number is None:
        return UNKNOWN
    unit = 0
    while number >= 1024 and unit < len(UNITS) - 1:
        number /= 1024
        unit += 1
    return f"{number:.0f} {UNITS[unit]}" if unit == 0 or number >= 100 else f"{number:.1f} {UNITS[unit]}"


def memory(record: TurnRecord) -> str:
    """The device's peak where there is a device, else the process's resident set."""
    if record.peak_device_bytes is not None:
        return f"peak {size(record.peak_device_bytes)}"
    return f"rss {size(record.rss_bytes)}"


def kv_bytes(record: TurnRecord) -> int | None:
    """Keys and values of the dialogue, device and host together; None when neither is known."""
    known = [part for part in (record.kv_store_device_bytes, record.kv_store_host_bytes) if part is not None]
    return sum(known) if known else None


def kv_used(record: TurnRecord) -> int | None:
    """As `kv_bytes`, of the rows that hold tokens; room for more is left out."""
    known = [part for part in (record.kv_used_device_bytes, record.kv_used_host_bytes) if part is not None]
    return sum(known) if known else None


def share(value: float | None) -> str:
    """A share in percent, three digits or so."""
    if value is None:
        return UNKNOWN
    return f"{value:.0%}" if value >= 0.995 else f"{value:.1%}"


def sparsity(record: TurnRecord) -> list[str]:
    """What prefill left out and how it chose; empty for full attention, the reason where a sparse profile ran dense."""
    if not record.chose_lines:
        if record.alpha is None or not record.tokens_new:
            return []
        if record.alpha >= 1:
            return ["dense: alpha is 1"]
        if record.select_ms:
            return [f"dense: lines would have cost as much, {duration(record.select_ms)} to see it"]
        return [f"dense: {short(record.tokens_new)} new tokens, below where sparse pays"]
    covered = [] if record.coverage is None else [f"covers {share(record.coverage)}"]
    lines = f"{count(record.lines_vertical)}+{count(record.lines_slash)} lines"
    chosen = "blocks" if record.lines_slash is None else lines
    return [f"density {share(record.density)}", *covered, f"{chosen} in {duration(record.select_ms)}"]


def compression(record: TurnRecord) -> list[str]:
    """Which part of the stored keys decoding read; empty when it read all of them."""
    if not record.left_keys_out:
        return []
    again = f", chosen again {record.reselections}x" if record.reselections else ""
    return [f"read {count(record.keys_read)} of {count(record.keys_stored)} keys{again}"]


def thought_line(tokens: int | None, milliseconds: float | None = None) -> str:
    """Thoughts folded to one line."""
    of = "" if tokens is None else f" for {count(tokens)} token{'' if tokens == 1 else 's'}"
    return f"thought{of}" + ("" if milliseconds is None else f", {duration(milliseconds)}")


def thinking(record: TurnRecord) -> list[str]:
    """How long the answer was waited for after the first token, and what was thought; empty where nothing was."""
    if not record.tokens_reasoning:
        return []
    waited = [] if record.first_answer_ms is None else [f"answer after {duration(record.first_answer_ms)}"]
    return [*waited, f"{count(record.tokens_reasoning)} thought"]


def ending(record: TurnRecord) -> str | None:
    """Why the answer ended, where it is not the model's own choice."""
    said = {"cancelled": "cancelled", "length": "length", "context": "context full", "stop_string": "stop string"}
    return said.get(record.finish_reason or "")


def turn_line(record: TurnRecord, change: str = "") -> str:
    """One turn's statistics in one line, short enough for most terminals; `change` stands behind its TTFT."""
    parts = [
        f"TTFT {duration(record.ttft_ms)}{change}",
        f"prefill {rate(record.prefill_tokens_per_s)}",
        f"decode {rate(record.decode_tokens_per_s)}",
        f"{count(record.tokens_new)} new/{count(record.tokens_cached)} cached/{count(record.tokens_logical)} logical",
        f"{count(record.tokens_output)} out",
        *thinking(record),
        memory(record),
        *sparsity(record),
        *compression(record),
    ]
    if record.tokens_rolled_back:
        parts.append(f"{count(record.tokens_rolled_back)} rolled back")
    end = ending(record)
    return " · ".join([*parts, end] if end else parts)
