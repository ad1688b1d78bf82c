"""API Priority and Fairness: requests of some users cannot crowd out those of others.

a request's turn   fairness (who goes at once, who waits, who is refused), width (seats it takes)
where it belongs   rules (of FlowSchemas), level (seats and queues of a priority level)
what it tells      tally (what became of requests), metrics (for /metrics), dump (for people)
"""
