"""What a run tells: its log, trackers, and the progress display."""
