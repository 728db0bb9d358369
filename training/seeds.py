"""Which seeds are for training and which never are."""

HELD_OUT = 1_000_000_000  # this seed and those above are for looking and measuring; training uses those below
