"""Two wires joined to one team: see whimbrel.lab.nested.team."""

from whimbrel.lab.nested.team import NICS, Aggregate, Mode, aggregate, join, part, sent

__all__ = ["NICS", "Aggregate", "Mode", "aggregate", "join", "part", "sent"]
