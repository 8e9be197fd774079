"""The fused execution: a rule, traced to a program and compiled to one kernel that steps all tensors of a bucket."""
