"""The conformance kit: what every primitive must keep, asked of a package's own by a few lines in its tests.

    from eulerstack.testing import Example, conformance

    test_conformance = conformance(
        "eulerstack-acme",
        Example("mixer", "vendor.acme.ema", {"half_life": 4.0}),
    )

The claims stand in `eulerstack.testing.claims`, and docs/write-a-mixer.md shows a whole package. Importing this
package imports no torch; pytest is needed, and comes with the extra `testing`.
"""

from eulerstack.testing.claims import CLAIMS, PACKAGE_CLAIMS, Claim
from eulerstack.testing.example import Example, Other
from eulerstack.testing.table import conformance

__all__ = ["CLAIMS", "PACKAGE_CLAIMS", "Claim", "Example", "Other", "conformance"]
