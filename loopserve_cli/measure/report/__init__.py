"""A run as one page that opens offline: report.html, made from the run's document.

`page.py` makes it: the verdict, `by_turn.py` (times, cache, keys and KL), `by_head.py` (density, coverage, keys read),
`facts.py` (command and machine) and the records. `marks.py` says how profiles are told apart, `middle.py` what an
interval is; `charts.py` is what knows the plotting library, `assets/` is what the browser gets.
"""
