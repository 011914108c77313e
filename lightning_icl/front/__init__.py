"""The front door for programs: each command as one call on a model and a task, its results as an object."""
