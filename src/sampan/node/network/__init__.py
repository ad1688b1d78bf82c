"""Pod network, Services, policy and the fabric between nodes: programmed by raw netlink, no binary needed."""
