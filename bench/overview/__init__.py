"""What was measured, on one page: the committed results, how they came to be over commits, and against another one."""
