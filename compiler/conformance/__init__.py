"""Conformance suites: other people's test cases, run through the whole compiler."""
