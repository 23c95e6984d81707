"""Learners: pure updates that know Batch and nn.Module, nothing else."""
