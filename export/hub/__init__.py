"""Models by their ids on the hub: which of a repository's files are wanted, and their download."""
