"""A run against an earlier one, the same turns paired: what changed beyond noise, and what else is not the same."""
