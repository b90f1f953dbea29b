"""Tables of tickets, of which channel and words tell the priority."""

import csv
import random

URGENT = ("the shop is down and nothing can be ordered", "payments fail since this morning")
CALM = ("how do I change my address", "a question about my invoice")


def ticket(n, rng):
    urgent = rng.random() < 0.5
    channel = "email" if (rng.random() < 0.8) == urgent else "phone"
    text = f"{rng.choice(URGENT if urgent else CALM)}, order {n}"
    return {
        "ticket": f"T{n}",
        "message": text,
        "channel": channel,
        "plan": rng.choice(("free", "pro")),
        "price": f"{rng.random() * 90:.2f}",
        "code": "12"[urgent],
        "same": "always",
        "priority": ("Normal", "Urgent")[urgent],
    }


def tickets(count=300, seed=0):
    rng = random.Random(seed)
    return [ticket(n, rng) for n in range(count)]


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
