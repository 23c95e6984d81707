"""ManiSkill 3 tasks: one at a time on the CPU, or many together on a GPU."""
