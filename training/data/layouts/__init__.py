"""Ways in which people keep labelled images on a disk: each module reads one into a `Found`."""
