"""Budgets of agents: how much of each is used, and what is done about it."""

from collections.abc import Mapping
from dataclasses import replace

from csb_mcp.model import Budget, Limits
from csb_mcp.service.agents.watch import AgentWatch

WARN = 0.8
"""The share of a budget at which there is an event."""


def shares(watch: AgentWatch, budget: Budget) -> dict[str, float]:
    """By name: how much of each is used, 1.0 all of it."""
    used = _used(watch)
    return {
        name: used[name] / bound if bound else float("inf") for name, bound in budget.given.items()
    }


def _used(watch: AgentWatch) -> Mapping[str, float]:
    usage = watch.usage
    # A turn that goes on may end: it was within the budget when it began.
    over = usage.turns - watch.in_turn
    return {"max_tokens": usage.tokens, "max_cost": usage.spent, "max_turns": over}


def used_up(watch: AgentWatch, budget: Budget) -> str:
    """What is used up, in words, its name first; empty if nothing is."""
    for name, share in shares(watch, budget).items():
        if share >= 1:
            return told(watch, budget, name)
    return ""


def told(watch: AgentWatch, budget: Budget, name: str) -> str:
    """One of them, and how much of it is used."""
    return f"{name} {budget.given[name]:.10g}, used {_used(watch)[name]:.10g}"


def budget_words(budget: Budget) -> dict[str, str]:
    """As the record's limits tell it."""
    return {name: f"{bound:.10g}" for name, bound in budget.given.items()}


def with_budget(limits: Limits, asked: Mapping[str, str]) -> Limits:
    """Limits with other budgets; this program keeps them."""
    by = {name: limits.enforced_by.get(name, "csb-mcp") for name in asked}
    return replace(limits, asked=asked, enforced_by=by)
