"""Networks: a policy or critic is an input, a backbone with or without memory, and a head."""
