"""A few alterations of certificates: neither checker accepts what is false, and none crashes."""

from benchmarks.forgeries import run


def test_no_altered_certificate_is_accepted_whose_claim_is_false() -> None:
    counts = run(60, 7, 2)
    assert counts["mutations"] == 60 and not counts["FALSE"] and not counts["crashes"]
    assert counts["accepted by both"]
