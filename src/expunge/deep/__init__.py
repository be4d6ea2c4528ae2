"""Deep unlearning of facts: a fact is gone when it can no longer be deduced from what stays."""
