"""What both threads may read and neither may change alone."""
