"""`/set`: show all settings, explain one, or change it."""

from __future__ import annotations

from loopserve_cli.chat.commands.resetting import began_with, changed
from loopserve_cli.chat.commands.settings import change, check_known, current, keys, written
from loopserve_cli.chat.session import Session
from loopserve_cli.chat.setting_facts import default_of, explanation, policies_told, range_of, readers
from loopserve_cli.chat.settings_table import SettingExplained, SettingRow, SettingsTable
from loopserve_cli.meanings import MEANINGS
from loopserve_cli.profile import whole_name


def set_(session: Session, argument: str) -> None:
    """Without a key all settings, without a value one of them, else change it."""
    name, _, value = argument.partition(" ")
    if value.strip():
        change(session, name, value.strip())
    elif name:
        key = whole_name(name)
        check_known(session, name, key)
        session.data(one_setting(session, key))
    else:
        session.data(SettingsTable([row_of(session, key) for key in keys(session)]))


def row_of(session: Session, key: str) -> SettingRow:
    """A setting as it is now."""
    began = written(began_with(session, key)) if changed(session, key) else None
    return SettingRow(key, written(current(session, key)), range_of(key, short=True), MEANINGS.get(key, ""), began)


def one_setting(session: Session, key: str) -> SettingExplained:
    """A setting with its range, its default, who reads it, and the words of its profile."""
    profile = session.conversation.engine.profile
    row = row_of(session, key)
    facts = [("range", range_of(key))] if row.range else []
    default = default_of(key, profile)
    if default is not None:
        value, whose = default
        facts.append(("default", written(value) + (f" ({whose})" if whose else "")))
    if readers(key):
        facts.append(("read by", f"{key.partition('.')[0]} policy {', '.join(readers(key))}"))
    told = explanation(key, profile)
    if told is not None:
        facts.append(("its profile", told))
    facts.append(("to change it", f"/set {key} VALUE" + ("" if row.began is None else f"; back: /reset {key}")))
    return SettingExplained(row, facts, policies_told(key))
