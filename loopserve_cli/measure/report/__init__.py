"""A run as one page that opens offline: report.html, made from the run's document.

`page.py` makes it: the verdict; of each dialogue (`dialogues.py`) what is drawn by turn (`by_turn.py`) and by layer and
head (`by_head.py`); command and machine (`facts.py`); the records (`saved.py`). `marks.py` says how profiles are told
apart, `middle.py` what an interval is; `charts.py` is what knows the plotting library, `assets/` what a browser gets.
"""
