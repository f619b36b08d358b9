"""What recipes read, and who answers: settings to tables, teachers, rewards and fleets."""
