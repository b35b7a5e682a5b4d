"""Sound to numbers: what its loudness, onsets and beats are at each frame."""
