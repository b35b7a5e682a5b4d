"""The front ends of the engine: the command line."""
