"""The record of one turn, and sums over many. Plain data: no torch, no printing.

Units are in the names. `None` means unknown, never zero: a value that was not measured is not invented.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import metadata
from typing import Any

from loopserve_cli.record_values import JSON_KINDS, measurable

# The device of turns that a server took: what it ran on is unknown.
ENDPOINT = "endpoint"
PACKAGES = ("loopserve", "torch", "transformers", "triton", "bitsandbytes", "accelerate", "tokenizers")


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """Everything measured in one turn.

    TTFT runs from the turn's submission to its first token id on the host; TPOT is
    (e2e - TTFT) / (tokens - 1); ITL is the list of gaps between tokens. Of tokens_output, tokens_reasoning were
    thought before the answer, None for a model that does not think aloud; the tags around thoughts are neither thought
    nor answer. first_answer_ms runs from the submission to the answer's first token, None where no answer came. ui_ms
    is what showing the turn took, which is in no other time.

    Of the prefill: density is entries computed / causal entries; coverage the share of the sampled rows' attention on
    the lines chosen (alpha was asked), 1 where dense, None for fixed patterns; the lines are means over the heads
    that left something out, None if none did; dense_layers had no such head; select_ms is the choosing alone,
    attention_ms the attention alone, over all layers.
    Of decoding: keys_read is what its last step read per head, on average over the layers, of keys_stored;
    reselections counts choices after the first, reselect_ms the time of all of them, None where they were part of
    replayed steps; graph_replays counts the tokens that came from a captured CUDA graph, graph_refusal is why the
    model's steps cannot be captured, if they cannot;
    step_kernels says what ran the layers, prefill's too: "fused" kernels of ours, or "eager", the model's own code.
    Of the cache: the kv_store bytes are allocated, the kv_used bytes hold tokens.
    Of fidelity (replay): an answer that is given is forced token by token, tokens_forced of them. nll is their mean
    negative log-likelihood in nats, nll_change how much that is above full attention's; kl_mean is the mean KL
    divergence of the next-token distribution from full attention's, in nats, agreement the share of them at which the
    most likely tokens are the same. diverged_at is the first place where the greedy answer, left to itself, parts from
    full attention's; None where it does not, or it is unknown.
    streamed_bytes is what came from the host's memory to the device to be read (tier host), the prefill's included.
    Of a server's answer: tokens_counted_by is "server", "tokenizer" (ours, which may differ) or "chunks"; chunks
    is how many pieces came one after another, and where they are fewer than the tokens, itl_ms are the gaps between
    pieces. None for local turns.
    """

    conversation_id: str | None = None
    turn: int | None = None
    profile: str | None = None
    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    quant: str | None = None
    seed: int | None = None
    repeat: int | None = None
    tokens_logical: int | None = None
    tokens_new: int | None = None
    tokens_cached: int | None = None
    tokens_rolled_back: int | None = None
    tokens_output: int | None = None
    tokens_reasoning: int | None = None
    tokens_counted_by: str | None = None
    chunks: int | None = None
    output_text: str | None = None
    reasoning_text: str | None = None
    finish_reason: str | None = None
    ttft_ms: float | None = None
    tokenize_ms: float | None = None
    select_ms: float | None = None
    attention_ms: float | None = None
    prefill_ms: float | None = None
    first_token_ms: float | None = None
    first_answer_ms: float | None = None
    compile_ms: float | None = None
    tpot_ms: float | None = None
    itl_ms: list[float] = field(default_factory=list)
    e2e_ms: float | None = None
    ui_ms: float | None = None
    decode_tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    density: float | None = None
    coverage: float | None = None
    alpha: float | None = None
    lines_vertical: float | None = None
    lines_slash: float | None = None
    dense_layers: int | None = None
    keys_read: int | None = None
    keys_stored: int | None = None
    reselections: int | None = None
    reselect_ms: float | None = None
    graph_replays: int | None = None
    graph_refusal: str | None = None
    step_kernels: str | None = None
    kv_store_device_bytes: int | None = None
    kv_store_host_bytes: int | None = None
    kv_used_device_bytes: int | None = None
    kv_used_host_bytes: int | None = None
    working_set_bytes: int | None = None
    streamed_bytes: int | None = None
    allocated_device_bytes: int | None = None
    reserved_device_bytes: int | None = None
    peak_device_bytes: int | None = None
    rss_bytes: int | None = None
    agreement: float | None = None
    kl_mean: float | None = None
    nll: float | None = None
    nll_change: float | None = None
    tokens_forced: int | None = None
    diverged_at: int | None = None
    error: str | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def chose_lines(self) -> bool:
        """Whether any head of this turn's prefill left something out, by lines or by blocks."""
        return self.lines_slash is not None or (self.density is not None and self.density < 1)

    @property
    def memory_bytes(self) -> int | None:
        """The device's peak where there is one, else the resident set."""
        return self.peak_device_bytes if self.peak_device_bytes is not None else self.rss_bytes

    @property
    def left_keys_out(self) -> bool:
        """Whether decoding read fewer keys than are stored."""
        return self.keys_read is not None and self.keys_stored is not None and self.keys_read < self.keys_stored

    def to_json(self) -> dict[str, Any]:
        """The record as JSON types, every field present."""
        # Not asdict, which looks at every gap between tokens: ten times the time, and runs have a million records.
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return found | {"itl_ms": list(self.itl_ms), "versions": dict(self.versions)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TurnRecord:
        """A record read back; fields this version does not know are dropped, one of a wrong type is a TypeError.

        A number that nothing could have measured, such as 1e400, is read as unknown.
        """
        known: dict[str, Any] = {}
        for f in fields(cls):
            if f.name not in data:
                continue
            fits, words = JSON_KINDS[str(f.type)]
            value = data[f.name]
            if not fits(value):
                raise TypeError(f"{f.name} must be {words}")
            if isinstance(value, list):
                known[f.name] = [number for number in value if measurable(number)]
            else:
                known[f.name] = value if measurable(value) else None
        return cls(**known)


SUMMARISED = (
    "ttft_ms",
    "first_answer_ms",
    "prefill_ms",
    "tpot_ms",
    "e2e_ms",
    "decode_tokens_per_s",
    "prefill_tokens_per_s",
    "select_ms",
    "density",
    "coverage",
    "tokens_new",
    "tokens_output",
    "tokens_reasoning",
    "rss_bytes",
    "peak_device_bytes",
    "agreement",
    "kl_mean",
    "nll",
    "nll_change",
    "tokens_forced",
    "diverged_at",
)
# Means over an answer's tokens: over turns their mean is that of all tokens, not of turns.
OF_FORCED_TOKENS = ("agreement", "kl_mean", "nll", "nll_change")


@dataclass(frozen=True, slots=True)
class Distribution:
    """A mean and percentiles; p90 needs 10 values and p99 needs 100, else None."""

    n: int
    mean: float
    p50: float
    p90: float | None
    p99: float | None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of an ascending sequence lies, interpolated linearly."""
    position = (len(ordered) - 1) * share
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def distribution(values: Iterable[float | None]) -> Distribution | None:
    """The distribution of the known values, or None when none is known."""
    known = sorted(v for v in values if v is not None)
    if not known:
        return None
    return Distribution(
        n=len(known),
        mean=statistics.fmean(known),
        p50=percentile(known, 0.5),
        p90=percentile(known, 0.9) if len(known) >= 10 else None,
        p99=percentile(known, 0.99) if len(known) >= 100 else None,
    )


def spread_of(records: Sequence[TurnRecord], name: str) -> Distribution | None:
    """The distribution of one measure over turns, the gaps between tokens pooled; None when none is known.

    What is a mean over the tokens of a forced answer has as its mean that over all of these tokens.
    """
    if name == "itl_ms":
        return distribution(gap for r in records for gap in r.itl_ms)
    spread = distribution(getattr(r, name) for r in records)
    if spread is None or name not in OF_FORCED_TOKENS:
        return spread
    known = [(getattr(r, name), r.tokens_forced or 1) for r in records if getattr(r, name) is not None]
    return replace(spread, mean=statistics.fmean(*zip(*known, strict=True)))


def summarise(records: Sequence[TurnRecord]) -> dict[str, dict[str, Any]]:
    """Per profile: turns, failures, and the distribution of each measure in `SUMMARISED`.

    The gaps between tokens (`itl_ms`) are pooled over all turns.
    """
    summary: dict[str, dict[str, Any]] = {}
    for profile in dict.fromkeys(record.profile or "n/a" for record in records):
        of_profile = [r for r in records if (r.profile or "n/a") == profile]
        good = [r for r in of_profile if r.error is None]
        row: dict[str, Any] = {"turns": len(of_profile), "failed": len(of_profile) - len(good)}
        for name in (*SUMMARISED, "itl_ms"):
            spread = spread_of(good, name)
            row[name] = asdict(spread) if spread else None
        summary[profile] = row
    return summary


def versions() -> dict[str, str]:
    """Installed versions of the packages a measurement depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
