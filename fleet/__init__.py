"""Many machines: folders and prefixes of pictures through workers, and what it costs. See README.md."""
