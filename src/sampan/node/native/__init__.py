"""The container runtime: Linux namespaces and control groups, no binary needed. Small processes load parts of it.

the agent's side   runtime, requests, channel, streams, records (what outlives the agent), sandbox, usage
process 1          init; it keeps zygote, which forks for every start
a container        starter, rootfs, users, process, capabilities, seccomp; then its shim with stdio, logs, ending
one more process   execute, terminal
the kernel         syscalls, syscall_numbers, cgroups
"""
