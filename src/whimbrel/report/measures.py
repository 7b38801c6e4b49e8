"""What the table's figures mean, in one sentence each; docs/measures.md says it in full."""

DEFINITIONS: tuple[tuple[str, str], ...] = (
    (
        "Time",
        (
            "Wall time from the request to move until the guest runs at the destination and "
            "needs the source no more. With "
            "repeats: the median, and in brackets the lowest and the highest."
        ),
    ),
    (
        "Speed",
        (
            "How many times as fast as qemu-default (on emulated hosts: as tcp), by the medians of "
            "wall time."
        ),
    ),
    (
        "Predicted",
        (
            "What was said of Time before the move began, from a survey of guest, link and hosts "
            "alone: the middle, and in brackets the 10th and the 90th percentile."
        ),
    ),
    ("Error", "How far the middle of the prediction was off, as a share of Time."),
    (
        "Setup",
        (
            "Preparation (until the destination listens, its memory prepared where asked for) plus "
            "QEMU's own setup time. Both are part of Time."
        ),
    ),
    ("QEMU total", "QEMU's own total time; it starts when the destination already listens."),
    (
        "Downtime",
        (
            "From the last heartbeat of the guest at the source to its first at the destination, "
            "as the lab heard them; resolution 5 ms, on emulated hosts 200 ms."
        ),
    ),
    (
        "QEMU says",
        (
            "QEMU's own figure for the downtime, by the source's clock. Under post-copy it ends "
            "before the destination has loaded the guest's state."
        ),
    ),
    (
        "On the wire",
        "Bytes counted at the source's network interfaces during the move, with all headers.",
    ),
    ("Rate", "Bytes on the wire divided by QEMU's total time, in bits."),
    ("Passes", "How often QEMU collected the memory that the guest had rewritten."),
    ("CPU s", "CPU seconds of the source's and of the destination's QEMU during the move."),
    (
        "Memory",
        (
            "The guest's own word after the move: every page it wrote is as it left it (intact), "
            "or not (CORRUPT)."
        ),
    ),
)
"""Heading in the table, and its definition."""
