"""Speed, memory and learning beside peers; results stand in `results/` with their command."""
