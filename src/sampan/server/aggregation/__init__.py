"""Group versions that somebody else answers ("Kubernetes API Aggregation Layer").

other servers      aggregator (group versions that an APIService gives to a Service)
agents of nodes    usage (metrics.k8s.io, for which others install an add-on)
"""
