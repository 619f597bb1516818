"""What is measured, kept and made of it, wherever the turns come from: replay and the benchmarks read this package.

Measuring
  rounds.py         the order of what is compared: all in every round, the first to go changing
  measured.py       a turn that was measured: its record and its token ids
  fidelity.py       what a profile would have said at every place of an answer that is given
  endpoint/         a server that speaks OpenAI's chat completions, asked and measured
  progress.py       how far a run is, what is left of it, and what was measured so far

Keeping
  document.py       a run as one JSON document
  run_folder.py     a run's folder: every turn in it from when it ended
  appended.py       a file of JSON lines, each on the disk before the next
  fingerprint.py    what must be the same for two processes to be one run
  turn_key.py       which turn of a run a record is of

What it comes to
  ratio.py          where a ratio is computed: each time over its partner's on the same turn, with an interval
  interval.py       how far a mean may be off: a bootstrap over turns
  slow_waves.py     the same where the turns are few
  student.py        Student's t, for what is estimated from few
  spread.py         median, lowest and highest
  reference.py      whom the others are compared with
  verdict.py        what a profile gained and what it cost
  gates.py          --fail-if: limits on what was measured
  gate_measures.py  what a gate may name, and its values
  grammar.py        a condition read from text
  expression.py     a condition as a tree, and what it comes to
  compare/          what changed from one run to another

Showing
  figures.py        numbers, bytes, shares and ratios as text
  verdict_lines.py  a verdict in words
  verdict_table.py  a verdict as a table, or as Markdown
  report/           a run as one page: report.html
"""
