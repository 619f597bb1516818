"""The dashboard: what a dialogue and its turn are at now, in four sizes.

`figures` and `watch` are what is shown, `estimate` what full attention would have cost, `layout` chooses a size,
`strip`, `wide` and `history` draw it, `panel` is what the views hold.
"""
