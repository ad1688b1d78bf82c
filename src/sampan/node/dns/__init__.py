"""The cluster's DNS, served by every node itself so that it answers while the server is down."""
