"""Key frames and settings to the plan of every frame, and back from the record in a file."""
