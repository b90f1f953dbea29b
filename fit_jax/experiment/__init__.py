"""The paper's evaluation in one command: methods x seeds, with statistics."""
