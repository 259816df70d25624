"""Parts shared by experiments: compositions that know both agents and training."""
