"""Studies of several training runs: `mmpost compare` (arms of one task) and `mmpost continual` (tasks in sequence)."""
