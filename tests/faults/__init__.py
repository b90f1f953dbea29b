"""The campaign of faults: `python -m tests.faults` draws bad inputs, kills and damage, and keeps what fails."""
