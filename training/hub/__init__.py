"""What is published of a run, and the proof that it arrived: release, push, scoring again."""
