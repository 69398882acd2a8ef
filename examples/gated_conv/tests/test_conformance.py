"""What every primitive must keep, asked of ours."""

from eulerstack.testing import Example, conformance

test_conformance = conformance("eulerstack-acme", Example("mixer", "vendor.acme.gated_conv", {"kernel": 3}))
