"""The flags that several commands share, each written once.

A group is a function from flags to options. `takes` splices its flags into a command's signature, so
that the command itself receives the options.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from loopserve_cli import completions
from loopserve_cli.config import DTYPES, QUANTS, ModelOptions, SamplingOptions, length
from loopserve_cli.profile import DEFAULT_PROFILE, Profile, load_profile

Sampling = Callable[[float], SamplingOptions]

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a profile's setting, e.g. prefill.alpha=0.9; repeatable.",
        autocompletion=completions.settings,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse a file for one bad record, instead of leaving it out.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]

SpecialTokens = Annotated[
    bool,
    typer.Option("--special-tokens", help="Let control tokens in messages stand as such, rather than as text."),
]


def model_flags(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            autocompletion=completions.models,
            help="A hub name, a local folder (a LoRA adapter's too), a .gguf file, package:NAME (the model that an "
            "installed package ships), or demo (bundled, no download); `loopserve models` lists what is here. "
            "random:NAME, e.g. random:Llama-3.1-8B, has that shape and random weights: for timings, its answers mean "
            "nothing.",
        ),
    ] = "demo",
    dtype: Annotated[
        str,
        typer.Option(
            metavar="|".join(DTYPES),
            help="Number format of the weights. auto is the checkpoint's own on a GPU. On a CPU it is float32, or, "
            "whatever the checkpoint's, bfloat16 where that is measured to be faster as the model is loaded; the demo "
            "model and quantised ones stay in float32.",
        ),
    ] = "auto",
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda|cuda:N", help="Where to run; auto is CUDA, then CPU.")
    ] = "auto",
    quant: Annotated[
        str | None, typer.Option(metavar="|".join(QUANTS), help="Quantise the weights with bitsandbytes.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run model code that comes with the model.")
    ] = False,
    context: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="The most tokens a dialogue may hold, e.g. 32k; above the model's own limit, it warns."
        ),
    ] = None,
) -> ModelOptions:
    """Which model, and how it is loaded."""
    most = None if context is None else length("--context", context)
    return ModelOptions(model, dtype, device, quant, trust_remote_code, most)


def sampling_flags(
    temperature: Annotated[
        float | None,
        typer.Option(
            help="0 always takes the likeliest token. Default: 0; in chat, 0.7 with any model but demo.",
            show_default=False,
        ),
    ] = None,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens that hold this much probability.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Draw from this many likeliest tokens; 0 is off.")] = 0,
    min_p: Annotated[
        float, typer.Option(help="Drop tokens below this share of the likeliest one's probability.")
    ] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 discourages repetition.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.")] = 512,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End the answer before this text; repeatable.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampled answers repeatable.")] = None,
) -> Sampling:
    """How tokens are drawn, once the command has said its default temperature."""
    return lambda default: SamplingOptions(
        temperature=default if temperature is None else temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        max_new_tokens=max_new_tokens,
        stop=tuple(stop or ()),
        seed=seed,
    )


def profile_flags(
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            "-p",
            metavar="NAME",
            help="A profile's name, or a .toml file; with settings changed: loopserve+keep.budget=512.",
            autocompletion=completions.profiles,
        ),
    ] = DEFAULT_PROFILE,
    settings: Settings = None,
) -> Profile:
    """One acceleration profile, with its settings changed."""
    return load_profile(profile).with_overrides(settings or ())


def profiles_flags(
    profile: Annotated[
        list[str] | None,
        typer.Option(
            "--profile",
            "-p",
            metavar="NAME",
            help="A profile's name, or a .toml file; with settings changed: loopserve+keep.budget=512; repeatable. "
            f"[default: {DEFAULT_PROFILE}]",
            autocompletion=completions.profiles,
        ),
    ] = None,
    settings: Settings = None,
) -> tuple[Profile, ...]:
    """Several acceleration profiles to compare, each with the same settings changed."""
    return tuple(
        load_profile(name).with_overrides(settings or ()) for name in dict.fromkeys(profile or [DEFAULT_PROFILE])
    )


def takes(**groups: Callable[..., Any]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Replace each parameter named in `groups` by the flags of its group."""

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        flags_of = {name: inspect.signature(group, eval_str=True).parameters for name, group in groups.items()}
        own = inspect.signature(command, eval_str=True)
        parameters = [p for p in own.parameters.values() if p.name not in groups]
        parameters += [p for flags in flags_of.values() for p in flags.values()]

        @functools.wraps(command)
        def spread(**given: Any) -> int:
            options = {name: groups[name](**{f: given.pop(f) for f in flags}) for name, flags in flags_of.items()}
            return command(**given, **options)

        # Typer reads both.
        spread.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        )
        spread.__annotations__ = {p.name: p.annotation for p in parameters}
        return spread

    return decorate
