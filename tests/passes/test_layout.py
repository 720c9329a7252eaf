"""NHWC inside, and no transposes between image ops."""

from irc.passes import layout, sinking
from tests.passes.rules import AnyRule, check_rule, parametrize


@parametrize((*sinking.RULES, *layout.MERGING, layout.transpose_is_reshape, *layout.USE_RULES))
def test_rule(rule: AnyRule) -> None:
    check_rule(rule)
