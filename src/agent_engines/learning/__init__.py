"""What experience teaches the router: value of each kind of agent, load of each replica, exploration with exact propensity."""
