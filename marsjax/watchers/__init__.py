"""What is kept of a rollout while it runs: pure functions fed with every order and what it did."""
