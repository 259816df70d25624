"""What environments and agents both stand on: names and their errors, branches, foreign code."""
