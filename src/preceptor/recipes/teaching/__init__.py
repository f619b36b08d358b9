"""Of what trains: a course from its data to the grades of its student."""
