"""A streamed answer, put together from its chunks, and what they say about time and tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from loopserve_cli.measure.endpoint.chunk import Call, Chunk, Usage
from loopserve_cli.stats import ENDPOINT, TurnRecord

CountTokens = Callable[[str], int]


@dataclass(slots=True)
class Answer:
    """Grows chunk by chunk. `submitted` and the chunks' times are seconds of one clock."""

    submitted: float
    text: str = ""
    reasoning: str = ""
    finish: str | None = None
    usage: Usage = Usage()
    # How many chunks hold tokens. In ms since the submission: when they came, those that came together once; when the
    # first came that answers; and the end.
    chunks: int = 0
    stamps: list[float] = field(default_factory=list)
    first_answer_ms: float | None = None
    end_ms: float | None = None
    _calls: dict[int, Call] = field(default_factory=dict)

    def add(self, chunk: Chunk) -> None:
        """What a chunk adds."""
        ms = (chunk.at - self.submitted) * 1e3
        if chunk.holds_tokens:
            self.chunks += 1
            if not self.stamps or ms > self.stamps[-1]:
                self.stamps.append(ms)
            self.text += chunk.text
            self.reasoning += chunk.reasoning
            for call in chunk.calls:
                so_far = self._calls.get(call.index, Call(call.index))
                whole = Call(call.index, so_far.name + call.name, so_far.arguments + call.arguments)
                self._calls[call.index] = whole
            if self.first_answer_ms is None and (chunk.text or chunk.calls):
                self.first_answer_ms = ms
        if chunk.holds_tokens or chunk.finish is not None:
            self.end_ms = ms
        self.finish = chunk.finish or self.finish
        self.usage = chunk.usage or self.usage

    @property
    def said(self) -> str:
        """The answer, calls of functions behind it, each as a line of JSON: as text they can be compared."""
        calls = (json.dumps({"name": call.name, "arguments": call.arguments}) for call in self._calls.values())
        return "\n".join([*([self.text] if self.text else []), *calls])

    @property
    def usage_is_wrong(self) -> bool:
        """Whether the server counts fewer tokens than it sent chunks with tokens in them."""
        return self.usage.output is not None and self.usage.output < self.chunks

    def counted(self, count: CountTokens | None) -> tuple[int, str]:
        """How many tokens it has, and who says so: "server", "tokenizer" (`count`, where there is one) or "chunks"."""
        if self.usage.output is not None and not self.usage_is_wrong:
            return self.usage.output, "server"
        if count is not None:
            return max(count(self.reasoning) + count(self.said), self.chunks), "tokenizer"
        return self.chunks, "chunks"

    def record(self, model: str, count: CountTokens | None = None) -> TurnRecord:
        """What was measured of it; what no server tells is None.

        TPOT is (end - TTFT) / (tokens - 1), as for local turns, though a chunk may hold several tokens. Servers
        count the token that ends the answer, and say why it ended when that came; counted otherwise it ends with its
        last text. Of an answer that came at once it is unknown.
        """
        tokens, counted_by = self.counted(count)
        usage, ttft_ms = self.usage, self.stamps[0] if self.stamps else None
        end_ms = self.end_ms if counted_by == "server" or not self.stamps else self.stamps[-1]
        streamed = tokens > 1 and (len(self.stamps) > 1 or tokens == 2)
        decode_ms = end_ms - ttft_ms if end_ms is not None and ttft_ms is not None and streamed else None
        new = usage.prompt - usage.cached if usage.prompt is not None and usage.cached is not None else None
        return TurnRecord(
            model=model,
            device=ENDPOINT,
            tokens_logical=usage.prompt + tokens if usage.prompt is not None else None,
            tokens_new=new if new is None or new >= 0 else None,
            tokens_cached=usage.cached,
            tokens_output=tokens,
            tokens_reasoning=usage.reasoning,
            tokens_counted_by=counted_by,
            chunks=len(self.stamps),
            output_text=self.said,
            reasoning_text=self.reasoning or None,
            finish_reason=self.finish,
            ttft_ms=ttft_ms,
            first_answer_ms=self.first_answer_ms,
            tpot_ms=decode_ms / (tokens - 1) if decode_ms is not None else None,
            itl_ms=[later - earlier for earlier, later in zip(self.stamps, self.stamps[1:], strict=False)],
            e2e_ms=end_ms,
            decode_tokens_per_s=(tokens - 1) / decode_ms * 1e3 if decode_ms else None,
        )
