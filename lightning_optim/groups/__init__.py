"""Param groups: selectors, rules, the plan and its table."""
