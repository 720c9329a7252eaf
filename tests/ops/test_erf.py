import math

import numpy as np

from irc.ops.erf import erf


def test_erf_is_that_of_the_c_library() -> None:
    rng = np.random.default_rng(0)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-300, -1e-300, 6.0, 5.999, 1e300]
    x = np.concatenate([special, rng.normal(0, 2, 20000), rng.normal(0, 1e-3, 5000)])
    found, wanted = erf(x), np.array([math.erf(v) for v in x])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted))
    np.testing.assert_array_max_ulp(found[~np.isnan(x)], wanted[~np.isnan(x)], 2)
