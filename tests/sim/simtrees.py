"""What an agent's work looks like to judges: trees with what is wrong with them, and the truth about each.

Knows the world's truth, which no part of the product sees: the invariants compare its decisions with it.
"""

from dataclasses import dataclass, replace

JUDGES = ("scope", "tests", "secrets", "bandit")


@dataclass(frozen=True, slots=True)
class Tree:
    """A content; `rules` are (judge, rule id) of critical findings, `weak` judges that say FAIL or INCONCLUSIVE."""

    name: str
    changed: int = 0
    failing: int = 3
    regressions: int = 0
    rules: tuple[tuple[str, str], ...] = ()
    weak: tuple[tuple[str, str], ...] = ()
    complete: bool = True

    @property
    def safe(self) -> bool:
        """No judge objects: the goal may be open, but nothing is broken."""
        weak = [said for said in self.weak if said != ("tests", "FAIL")]
        return self.complete and not self.rules and not weak and self.regressions == 0

    def verdict(self, judge: str) -> tuple[str, tuple[str, ...]]:
        """What a judge says of it, and the rules of its critical findings."""
        rules = tuple(rule for its, rule in self.rules if its == judge)
        if rules:
            return "FAIL", rules
        weak = dict(self.weak).get(judge)
        if weak:
            return weak, ()
        if judge == "tests" and (self.failing or self.regressions):
            return "FAIL", ()
        return "PASS", ()


class Trees:
    """Every tree there has been."""

    def __init__(self, failing: int) -> None:
        self.base = Tree("base", failing=failing)
        self.known = {"base": self.base}

    def next(self, before: Tree, **changes: object) -> Tree:
        """Another content, which differs from the one before as stated."""
        made = replace(before, name=f"t{len(self.known)}", **changes)  # type: ignore[arg-type] # fields of Tree by name
        self.known[made.name] = made
        return made
