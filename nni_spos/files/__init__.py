"""Files that outlive a crash, and that a stranger may have written."""
