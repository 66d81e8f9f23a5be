"""The network, its head and where its weights came from: knows no image, no loss and no run."""
