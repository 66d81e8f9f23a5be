"""Linear heads on the features of a frozen network: knows no run record, no Hub and no command line."""
