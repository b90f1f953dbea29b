"""Methods to compare with focus instruction tuning, in the same harness."""
