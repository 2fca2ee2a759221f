"""Planning ahead as a mixed-integer program: the instance, its solution and what it means."""
