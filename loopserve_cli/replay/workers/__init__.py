"""Many dialogues at once: processes of this machine or of a Ray cluster run them, and tell one process of every turn.

`Dispatch` gives every dialogue to a worker and bears its death; a `Pool` is where the workers are.
"""
