"""What stands at the end of every command's help: commands to copy, each with what it does."""

from __future__ import annotations

# By command; each example is the words after the program's name. Those who test this file run all of them.
EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("chat", "talk with the bundled model"),
        ("replay demo", "time a dialogue, turn by turn"),
        ("doctor", "what this machine has, and what fits"),
    ),
    "chat": (
        ("chat", "the bundled model, no download"),
        ("chat --model Qwen/Qwen2.5-7B-Instruct --quant nf4", "another one, in 4 bits"),
        ("chat --profile loopserve+keep.budget=512", "decoding reads 512 keys per head"),
        ("chat --resume", "go on with the newest dialogue"),
        ("chat --resume talk.jsonl", "go on where a dialogue stopped"),
        ('chat "What is a KV cache?" --model ./my-model', "one turn, the answer on stdout"),
    ),
    "replay": (
        ("replay demo", "a bundled dialogue of 1k tokens"),
        ("replay demo:long -p full -p loopserve", "two profiles on the same history"),
        ("replay talk.jsonl --history live --repeat 5 --out results", "five times, with records as files"),
        ("replay demo --fail-if 'ttft_ms.p50 > 500'", "exit with 3 when turns wait too long"),
        ("replay demo -p full --endpoint http://localhost:8000/v1", "a server beside the engine here"),
    ),
    "report": (("report results", "its report.html, also of a killed run"),),
    "compare": (
        ("compare before after", "what changed between two runs of --out"),
        ("compare before after --fail-if worse", "exit with 3 if something got worse"),
    ),
    "convert": (
        ("convert export.json talk.jsonl", "any format that replay reads, to ours"),
        ("convert talk.jsonl talk.json --to openai", "to OpenAI's messages"),
    ),
    "doctor": (
        ("doctor", "what is here, fits, and is missing"),
        ("doctor --json", "the same for a program"),
    ),
    "models": (
        ("models", "what is at hand, and whether it fits"),
        ("models --dtype bfloat16", "with the weights in 16 bits"),
    ),
    "chats": (
        ("chats", "the saved dialogues, the newest first"),
        ("chats miro room", "where both words were said"),
    ),
    "bench": (
        ("bench turns", "against transformers' own generate"),
        ("bench device --quick", "does all of it run on this machine?"),
    ),
    "bench turns": (
        ("bench turns", "against transformers' own generate"),
        ("bench turns --profile loopserve-prefill --against full", "one profile against another"),
        ("bench turns --profile all --dialogue demo:xlong", "every profile on a bundled dialogue"),
        ("bench turns --profile snapkv+keep.budget=256 --against full", "a profile with a setting changed"),
    ),
    "bench decode": (
        ("bench decode", "three profiles at 8k tokens"),
        ("bench decode --model random:Llama-3.1-8B --tokens 8k,32k", "a shape of 8B, in random weights"),
        ("bench decode --profile full --profile loopserve+keep.budget=512", "these two in turn"),
    ),
    "bench kernels": (
        ("bench kernels", "sparse attention against dense"),
        ("bench kernels --keys 4k,16k --density 2,10 --no-coverage", "these sizes only"),
    ),
    "bench device": (
        ("bench device --quick", "does all of it run? a minute"),
        ("bench device --part 1 --out results", "the first third, at most nine minutes"),
        ("bench device --out results --show", "what was measured there"),
    ),
    "profiles": (
        ("profiles list", "all of them, a line each"),
        ("profiles show loopserve", "its settings, each explained"),
    ),
    "profiles list": (("profiles list", "all of them, a line each"),),
    "profiles show": (
        ("profiles show loopserve > mine.toml", "its settings, each explained, to edit"),
        ("profiles show snapkv+keep.budget=256", "with a setting changed"),
    ),
    "profiles check": (("profiles check mine.toml", "is it right? if not, what is wrong"),),
}
# Click wraps a paragraph anew unless this stands before it.
AS_WRITTEN = "\b\n"
WIDEST = 38


def epilog(command: str) -> str:
    """The end of a command's help: its examples, what each does behind it, or below where it is long."""
    lines = ["Examples:"]
    for words, does in EXAMPLES[command]:
        line = f"  loopserve {words}"
        if len(line) <= WIDEST:
            lines.append(f"{line:<{WIDEST}}  {does}")
        else:
            lines += [line, f"{'':<{WIDEST}}  {does}"]
    return AS_WRITTEN + "\n".join(lines)
