"""A description of data of one's own, which tests complete: tickets that are urgent or not, by channel."""

from collections.abc import Mapping
from typing import Any

TICKETS: Mapping[str, Any] = {
    "name": "tickets",
    "files": ["rows.jsonl"],
    "instruction": "Is the ticket urgent?",
    "input": "Ticket: {text}",
    "core": "the content",
    "label": "urgent",
    "candidates": ["no", "yes"],
}
