"""`python -m training.cli` is `food101`."""

from training.cli.main import main

raise SystemExit(main())
