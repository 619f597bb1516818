"""Options as frozen dataclasses that check themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from loopserve_cli.endpoint_options import EndpointOptions
from loopserve_cli.errors import UsageError
from loopserve_cli.profile import LONGEST, Profile, brief
from loopserve_cli.shapes import random_shape

DTYPES = ("auto", "float32", "float16", "bfloat16")
QUANTS = ("nf4", "int8")
UIS = ("dashboard", "simple", "none")
HISTORIES = ("recorded", "live")
THINKING = ("show", "hide")
ON_FULL = ("stop", "slide")
MAX_LENGTH = LONGEST
MOST_REPEATS = 1_000_000
MOST_WORKERS = 1024


def length(flag: str, text: str, example: str = "4096 or 16k") -> int:
    """A number of tokens from "4096" or "16k", where k is 1,024; raises UsageError that names `flag`."""
    match = re.fullmatch(r"\s*([0-9]{1,9})(k?)\s*", text)
    number = int(match[1]) * (1024 if match[2] else 1) if match else 0
    if not 1 <= number <= MAX_LENGTH:
        raise UsageError(f"{flag}: {text.strip()!r} is no length from 1 to {MAX_LENGTH}; write for example {example}")
    return number


def lengths(flag: str, text: str) -> tuple[int, ...]:
    """Ascending lengths from "4096,16k"."""
    return tuple(sorted({length(flag, word, example="4096,16k") for word in text.split(",")}))


def check_device(what: str, name: str) -> None:
    """Refuse what is no device's name, whether or not it is here; raises UsageError that names `what`."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        raise UsageError(f"unknown {what} {name!r}; choose auto, cpu, cuda or cuda:N")


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model, and how it is loaded. `device` is "auto", "cpu", "cuda" or "cuda:N".

    `context` is the most tokens it may hold; None is as many as the model reads.
    """

    model: str = "demo"
    dtype: str = "auto"
    device: str = "auto"
    quant: str | None = None
    trust_remote_code: bool = False
    context: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no loader could do."""
        if not self.model:
            raise UsageError("--model is empty; give a hub name, a folder, or demo")
        if self.dtype not in DTYPES:
            raise UsageError(f"unknown dtype {self.dtype!r}; choose one of {', '.join(DTYPES)}")
        if self.quant is not None and self.quant not in QUANTS:
            raise UsageError(f"unknown quantisation {self.quant!r}; choose one of {', '.join(QUANTS)}")
        check_device("device", self.device)
        if self.context is not None and not 1 <= self.context <= MAX_LENGTH:
            raise UsageError(f"--context is {brief(self.context)}, but must be from 1 to {MAX_LENGTH}")
        if random_shape(self.model) is not None and self.quant is not None:
            raise UsageError(
                f"--quant {self.quant} needs weights to quantise, but {self.model} has random ones; drop it"
            )


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How the next token is drawn. Temperature 0 is greedy; `seed` None draws from torch's own state."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges."""
        for name, (low, high) in SAMPLING_RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"{name} is {brief(value)}, but must be from {low:g} to {high:,.10g}")
        if 0 < self.temperature < LEAST_TEMPERATURE:
            raise UsageError(f"temperature is {self.temperature}, too close to 0; give 0 for the likeliest token")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UsageError(
                f"seed is {brief(self.seed)}, but must be from 0 to {2**63 - 1}; leave it out for a random one"
            )
        if any(not text for text in self.stop):
            raise UsageError("a stop string is empty; give the text that ends the answer")


SAMPLING_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 100),
    "top_p": (0, 1),
    "top_k": (0, 1e9),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 100),  # logits are divided by it or multiplied: 1 is off
    "max_new_tokens": (1, 1e7),
}
# Logits are divided by it: below this they would overflow.
LEAST_TEMPERATURE = 1e-6


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What `loopserve chat` was asked for. `message` makes it one turn, answered on stdout.

    `resume` is a dialogue's file, or its name in the state folder; `resume_newest` is the newest there.
    `thinking` shows or hides what a model thinks aloud; None shows it to people, and not to what reads stderr.
    `on_full` is what a message meets that the context has no room for: "stop" refuses it, "slide" forgets old turns.
    """

    model: ModelOptions
    sampling: SamplingOptions
    profile: Profile
    system: str | None = None
    resume: Path | None = None
    save: Path | None = None
    ui: str = "dashboard"
    message: str | None = None
    special_tokens: bool = False
    thinking: str | None = None
    debug: bool = False
    resume_newest: bool = False
    on_full: str = "stop"

    def __post_init__(self) -> None:
        """Refuse an unknown display, and bytes that are no text: a shell passes them on as half characters."""
        if self.ui not in UIS:
            raise UsageError(f"unknown --ui {self.ui!r}; choose one of {', '.join(UIS)}")
        if self.thinking is not None and self.thinking not in THINKING:
            raise UsageError(f"unknown --thinking {self.thinking!r}; choose one of {', '.join(THINKING)}")
        if self.on_full not in ON_FULL:
            raise UsageError(f"unknown --on-full {self.on_full!r}; choose one of {', '.join(ON_FULL)}")
        for name, text in {"the message": self.message, "--system": self.system}.items():
            if text is not None and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise UsageError(f"{name} is not UTF-8 text; write it in UTF-8")


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What `loopserve replay` was asked for. `transcripts` are paths, - for stdin, or demo, demo:long, demo:xlong.

    `strict` refuses a file for one bad record, which otherwise is left out. `out` is a new run's folder, `resume` that
    of a run which is to go on. `endpoints` are servers to measure as well, or alone where there is no profile: then no
    model is loaded here. `fidelity` forces the answers of the first repeat once more, to compare what was likely
    at their places. Of several profiles a verdict is shown; `turns` shows every turn as well, `markdown` the verdict as
    a table for an issue or a README. `baseline` is an earlier run, which this one is compared with. `workers` processes
    share the dialogues, one for each GPU, or those of the Ray cluster at the address `ray`; without both, this process
    runs them one after the other.
    """

    model: ModelOptions
    sampling: SamplingOptions
    profiles: tuple[Profile, ...]
    transcripts: tuple[str, ...]
    history: str = "recorded"
    repeat: int = 1
    max_turns: int | None = None
    out: Path | None = None
    json: bool = False
    fail_if: tuple[str, ...] = ()
    special_tokens: bool = False
    strict: bool = False
    fidelity: bool = False
    turns: bool = False
    markdown: bool = False
    resume: Path | None = None
    baseline: Path | None = None
    endpoints: tuple[EndpointOptions, ...] = ()
    workers: int | None = None
    ray: str | None = None

    @property
    def names(self) -> list[str]:
        """What turns are recorded under: the profiles, then the servers."""
        return [profile.name for profile in self.profiles] + [endpoint.called for endpoint in self.endpoints]

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.fidelity and not self.profiles:
            raise UsageError("--fidelity looks at probabilities, which no server tells; give a --profile as well")
        if self.markdown and (self.json or self.turns):
            raise UsageError(f"--markdown shows the verdict alone; drop it, or {'--json' if self.json else '--turns'}")
        if not self.transcripts:
            raise UsageError("no dialogue to replay; give a file, or demo")
        if not self.profiles and not self.endpoints:
            raise UsageError("no profile to replay under; give --profile full")
        if self.history not in HISTORIES:
            raise UsageError(f"unknown --history {self.history!r}; choose one of {', '.join(HISTORIES)}")
        if not 1 <= self.repeat <= MOST_REPEATS:
            raise UsageError(f"--repeat is {brief(self.repeat)}, but must be from 1 to {MOST_REPEATS:,}")
        if self.out is not None and self.resume is not None:
            raise UsageError("--out is for a new run, --resume goes on with one in its own folder; give one of them")
        if self.max_turns is not None and not 1 <= self.max_turns <= MAX_LENGTH:
            raise UsageError(f"--max-turns is {brief(self.max_turns)}, but must be from 1 to {MAX_LENGTH}")
        if self.workers is not None and not 1 <= self.workers <= MOST_WORKERS:
            raise UsageError(f"--workers is {brief(self.workers)}, but must be from 1 to {MOST_WORKERS:,}")
        if self.ray is not None and not re.fullmatch(r"auto|local|[^\s:/]+:[0-9]{1,5}", self.ray):
            raise UsageError(f"--ray {self.ray!r} is no address; give auto, local or HOST:PORT")
        if self.workers is not None or self.ray is not None:
            flag = "--workers" if self.ray is None else "--ray"
            if self.model.device.startswith("cuda:"):
                raise UsageError(f"{flag} takes one GPU after the other, not {self.model.device}; give --device cuda")
            if self.endpoints:
                raise UsageError(f"{flag} and --endpoint: a server asked by several answers later; give one of them")
