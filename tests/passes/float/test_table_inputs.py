"""Tables in files that irc wrote; how they come back as a whole, tests/backends tells."""

from irc.passes.float.table_inputs import RULES
from tests.passes.rules import AnyRule, check_rule, parametrize


@parametrize(RULES)
def test_rule(rule: AnyRule) -> None:
    check_rule(rule)
