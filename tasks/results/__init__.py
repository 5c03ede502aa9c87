"""Results: the ledger, the table, the verdict, and reading and repeating them."""
