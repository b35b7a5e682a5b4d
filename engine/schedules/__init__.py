"""What users write that changes along the frames: arithmetic, schedules, easings."""
