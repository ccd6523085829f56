"""The values of an op's views: what an envelope, a relaxation, a restriction or exact rows are, whatever the op."""
