"""The evaluation contract, statistics, rows and claims."""
