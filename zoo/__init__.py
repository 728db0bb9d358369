"""Other model families, each in a package of its own; what they need is imported when they are used."""
