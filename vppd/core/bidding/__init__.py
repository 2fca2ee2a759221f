"""What can be promised, for how much, and what is offered where."""
