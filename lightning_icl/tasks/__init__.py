"""What is asked: tasks, the catalogue, rows from the hub, from files, or made by rule."""
