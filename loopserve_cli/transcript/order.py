"""The order in which messages may follow each other."""

from __future__ import annotations

from loopserve_cli.messages import Role
from loopserve_cli.transcript.place import Place


def check_next(
    previous: Role | None, role: Role, place: Place, name: str = "role", questions_only: bool = False
) -> None:
    """Raise unless `role` may come after `previous` (None: at the start); `name` is the field that holds the role.

    With `questions_only` users follow each other, since nobody knows the answers.
    """
    if role == "system":
        if previous is not None:
            raise place.error(f"{name} is system, but only the first message may be; move it to the front or remove it")
    elif role == "assistant":
        if questions_only:
            raise place.error(f"{name} is assistant among questions only; take the answer or questions_only out")
        if previous == "assistant":
            raise place.error(f"{name} is assistant twice in a row; join the two or put the question between them")
        if previous != "user":
            raise place.error(f"{name} is assistant, but a dialogue begins with the user; put the question before it")
    elif previous == "user" and not questions_only:
        raise place.error(f"{name} is user twice in a row; join the two or put the answer between them")
