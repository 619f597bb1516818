"""`loopserve compare`: what changed from one replay to another, beyond noise."""

from __future__ import annotations

from loopserve_cli.measure.compare.comparison import check_common, compare_runs
from loopserve_cli.measure.compare.options import CompareOptions
from loopserve_cli.measure.compare.past_run import read_run
from loopserve_cli.measure.compare.shown import show
from loopserve_cli.measure.document import command_of
from loopserve_cli.measure.gates import GATE_FAILED, parse_gate
from loopserve_cli.measure.ratio import place_of
from loopserve_cli.output import CleanConsole, output_console, print_document


def run(options: CompareOptions) -> int:
    """Compare each later run with the first; the exit status, 3 where a `--fail-if` gate failed.

    Raises UsageError for what is no run, and for runs without a turn in common.
    """
    baseline, *later = [read_run(path) for path in options.runs]
    for one in later:
        check_common(baseline, one.profiles, (place_of(record) for record in one.records))
    # A gate may name profiles, which each later run has its own of.
    gates = [[parse_gate(text, one.profiles, baseline.profiles) for text in options.fail_if] for one in later]
    comparisons = [compare_runs(baseline, one) for one in later]
    if options.json:
        found = [comparison.to_json() for comparison in comparisons]
        print_document({"command": command_of("compare", options), "comparisons": found})
    else:
        show(comparisons, output_console(), options.markdown)
    several = len(later) > 1
    failures = [
        f"{comparison.run.name}: {line}" if several else line
        for comparison, of_run in zip(comparisons, gates, strict=True)
        for gate in of_run
        for line in gate.failures(
            comparison.run.records, comparison.run.profiles, comparison.run.greedy is not False, comparison
        )
    ]
    console = CleanConsole(stderr=True)
    for line in failures:
        console.print(line, soft_wrap=True)
    return GATE_FAILED if failures else 0
