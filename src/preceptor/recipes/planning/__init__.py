"""What `plan` works out: tokens, memory, disk, time and money of a run, before it starts."""
