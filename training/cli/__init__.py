"""The `food101` command: knows options and what is printed, and leaves the work to the other rooms."""
