"""Sound and films of the user, read as a stream: whatever a file claims, in bounds or refused."""
