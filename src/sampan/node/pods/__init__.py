"""A pod's life on a node: a pure state machine (`worker`), the shell that acts for it (`driver`), and the manager.

decisions          worker, world (the facts), actions, phase (the status), admission, restart_all, resize; all pure
their shell        manager, driver, kit (what all drivers share), starting, pulling, recall, problems; mirror for static pods
what is configured spec, podspec, env, env_file, fields, security, users, addresses
"""
