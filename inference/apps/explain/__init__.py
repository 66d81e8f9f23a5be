"""One page that follows one photograph through one network: `food101 explain`."""
