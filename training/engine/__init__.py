"""How weights are learnt from batches: knows no run folder, no Hub and no linear probe."""
