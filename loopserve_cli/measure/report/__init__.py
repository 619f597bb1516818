"""A run as one page that opens offline: report.html, made from the run's document.

`page.py` makes it, from the verdict, `by_turn.py` (times, cache, keys and KL), `by_head.py` (density and coverage),
`facts.py` (command and machine) and the records; `charts.py` is what knows the plotting library, `page/` is what the
browser gets. `folder.py` reads the document of a run's folder back.
"""
