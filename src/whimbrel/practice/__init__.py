"""What does happen: surveys and moves, carried out through whimbrel.ports."""
