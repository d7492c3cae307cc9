"""Many runs that answer one question: grids, the ledger, and the report."""
